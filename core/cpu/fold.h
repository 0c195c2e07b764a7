/* Folds over runs and over rows, of f32, f64 and bf16 (into f32): what a
   reduction is made of (cpu/reduce.c). NaN among what a TOP or BOTTOM sees comes
   through. */
#ifndef RP_CPU_FOLD_H
#define RP_CPU_FOLD_H

#include <stddef.h>

#include "cpu/lanes.h"
#include "cpu/reduce.h"

/* What a pass leaves is turned into the value: */
typedef enum rp_finish {
  RP_AS_IS,
  RP_DIVIDE, /* v / divisor */
  RP_LOG     /* log(v) + shift; shift where it is no number to subtract */
} rp_finish;

/* A fold that gets its run in pieces. */
typedef struct rp_running {
  double total, lane[RP_F64_LANES];
  bool odd; /* a NaN was among them */
} rp_running;

typedef struct rp_folder {
  size_t size, x_size; /* of an element of y and the partials, and of x */
  /* Of x[0..n). */
  double (*run)(rp_fold fold, const void *x, int64_t n, double shift);
  /* The same of a run in pieces, each but the last a multiple of
     RP_LANE_BLOCK; folds without a shift. */
  void (*begin)(rp_fold fold, rp_running *so_far);
  void (*more)(rp_fold fold, rp_running *so_far, const void *x, int64_t n);
  double (*end)(rp_fold fold, rp_running *so_far);
  /* y[j] joined with the fold of n <= RP_FOLD_ROWS rows' entries j < m. */
  void (*rows)(rp_fold fold, void *y, const void *const *row, int n,
               int64_t m, const void *shift);
  /* total[j] joined with partial[j]. */
  void (*add_partial)(rp_fold fold, double *total, const void *partial,
                      int64_t m);
  void (*store)(void *y, const double *total, int64_t m);
  void (*finish)(rp_finish how, void *y, int64_t m, double divisor,
                 const void *shift);
  double (*load)(const void *x, int64_t i);
} rp_folder;

/* A step that lets NaN through, and two partial results as one. */
RP_INLINE double rp_nan_step_f64(rp_fold fold, double a, double x,
                                 double shift) {
  const double y = rp_fold_step_f64(fold, a, x, shift);
  return rp_fold_is_extreme(fold) && x != x ? x : y;
}
RP_INLINE double rp_nan_join_f64(rp_fold fold, double a, double b) {
  return rp_fold_is_extreme(fold) ? rp_nan_step_f64(fold, a, b, 0) : a + b;
}

extern const rp_folder rp_folder_f32, rp_folder_f64, rp_folder_bf16;

#endif
