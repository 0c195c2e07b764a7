/* Folds over contiguous runs, in a fixed number of lanes that are joined by a
   fixed tree: the compiler vectorises them, and a fold's bits depend on the
   run alone, not on threads, alignment or the processor's vector width.

   f32 runs are folded in f32 inside blocks of LANE_BLOCK and in f64 across
   blocks: the error of a sum of n values is that of LANE_BLOCK / F32_LANES
   additions, whatever n is. */
#ifndef RP_CPU_LANES_H
#define RP_CPU_LANES_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/vecmath.h"
#include "cpu/bf16.h"

enum { RP_F32_LANES = 32, RP_F64_LANES = 16, RP_LANE_BLOCK = 2048 };

/* exp(x) for x <= 0 (a rounding above is no harm), 0 below -87 where a f32
   would be denormal: probabilities, a fifth cheaper than any x. */
RP_INLINE float rp_exp_down_f32(float x) {
  int32_t k;
  const float p = 1.0f + rp_exp_reduce_f32(x, &k);
  return x < -87.0f ? 0.0f : p * rp_power_of_two_f32(k);
}

/* What element x does to accumulator a; `shift` serves the middle two. TOP
   and BOTTOM pass over NaN; rp_extreme_* lets it through, as PyTorch does.
   A constant wherever a fold is inlined, so that each becomes a loop of its
   own. */
typedef enum rp_fold {
  RP_FOLD_SUM,       /* a + x */
  RP_FOLD_SQUARES,   /* a + x^2 */
  RP_FOLD_DEVIATION, /* a + (x - shift)^2 */
  RP_FOLD_EXP,       /* a + exp(x - shift), x <= shift */
  RP_FOLD_TOP,       /* the greater */
  RP_FOLD_BOTTOM
} rp_fold;

RP_INLINE double rp_fold_start(rp_fold fold) {
  return fold == RP_FOLD_TOP ? -INFINITY : fold == RP_FOLD_BOTTOM ? INFINITY
                                                                  : 0;
}

RP_INLINE bool rp_fold_is_extreme(rp_fold fold) {
  return fold == RP_FOLD_TOP || fold == RP_FOLD_BOTTOM;
}

RP_INLINE float rp_fold_step_f32(rp_fold fold, float a, float x,
                                 float shift) {
  switch (fold) {
    case RP_FOLD_SUM: return a + x;
    case RP_FOLD_SQUARES: return a + x * x;
    case RP_FOLD_DEVIATION: return a + (x - shift) * (x - shift);
    case RP_FOLD_EXP: return a + rp_exp_down_f32(x - shift);
    case RP_FOLD_TOP: return x > a ? x : a;
    default: return x < a ? x : a;
  }
}

RP_INLINE double rp_fold_step_f64(rp_fold fold, double a, double x,
                                  double shift) {
  switch (fold) {
    case RP_FOLD_SUM: return a + x;
    case RP_FOLD_SQUARES: return a + x * x;
    case RP_FOLD_DEVIATION: return a + (x - shift) * (x - shift);
    case RP_FOLD_EXP: return a + rp_exp_f64(x - shift);
    case RP_FOLD_TOP: return x > a ? x : a;
    default: return x < a ? x : a;
  }
}

/* Two partial results as one. */
RP_INLINE float rp_fold_join_f32(rp_fold fold, float a, float b) {
  return rp_fold_is_extreme(fold) ? rp_fold_step_f32(fold, a, b, 0) : a + b;
}
RP_INLINE double rp_fold_join_f64(rp_fold fold, double a, double b) {
  return rp_fold_is_extreme(fold) ? rp_fold_step_f64(fold, a, b, 0) : a + b;
}

RP_INLINE float rp_lanes_join_f32(rp_fold fold, float *lane) {
  for (int l = 0; l < 16; l++)
    lane[l] = rp_fold_join_f32(fold, lane[l], lane[l + 16]);
  for (int l = 0; l < 8; l++)
    lane[l] = rp_fold_join_f32(fold, lane[l], lane[l + 8]);
  for (int l = 0; l < 4; l++)
    lane[l] = rp_fold_join_f32(fold, lane[l], lane[l + 4]);
  lane[0] = rp_fold_join_f32(fold, lane[0], lane[2]);
  lane[1] = rp_fold_join_f32(fold, lane[1], lane[3]);
  return rp_fold_join_f32(fold, lane[0], lane[1]);
}

RP_INLINE double rp_lanes_join_f64(rp_fold fold, double *lane) {
  for (int l = 0; l < 8; l++)
    lane[l] = rp_fold_join_f64(fold, lane[l], lane[l + 8]);
  for (int l = 0; l < 4; l++)
    lane[l] = rp_fold_join_f64(fold, lane[l], lane[l + 4]);
  lane[0] = rp_fold_join_f64(fold, lane[0], lane[2]);
  lane[1] = rp_fold_join_f64(fold, lane[1], lane[3]);
  return rp_fold_join_f64(fold, lane[0], lane[1]);
}

/* fold of x[0..n). */
RP_INLINE double rp_fold_f32(rp_fold fold, const float *x, int64_t n,
                             float shift) {
  double total = rp_fold_start(fold);
  for (int64_t block = 0; block < n; block += RP_LANE_BLOCK) {
    const int64_t end = n - block < RP_LANE_BLOCK ? n : block + RP_LANE_BLOCK;
    float lane[RP_F32_LANES];
    for (int l = 0; l < RP_F32_LANES; l++) lane[l] = (float)rp_fold_start(fold);
    int64_t i = block;
    for (; i + RP_F32_LANES <= end; i += RP_F32_LANES)
      for (int l = 0; l < RP_F32_LANES; l++)
        lane[l] = rp_fold_step_f32(fold, lane[l], x[i + l], shift);
    for (int l = 0; i < end; i++, l++)
      lane[l] = rp_fold_step_f32(fold, lane[l], x[i], shift);
    total = rp_fold_join_f64(fold, total, rp_lanes_join_f32(fold, lane));
  }
  return total;
}

/* As rp_fold_f32 of x widened, a block of it at a time. */
RP_INLINE double rp_fold_bf16(rp_fold fold, const uint16_t *x, int64_t n,
                              float shift) {
  double total = rp_fold_start(fold);
  for (int64_t at = 0; at < n; at += RP_LANE_BLOCK) {
    const int64_t m = n - at < RP_LANE_BLOCK ? n - at : RP_LANE_BLOCK;
    float wide[RP_LANE_BLOCK];
    rp_bf16_widen(wide, x + at, 1, m);
    total = rp_fold_join_f64(fold, total, rp_fold_f32(fold, wide, m, shift));
  }
  return total;
}

/* Goes on with lanes behind a multiple of RP_F64_LANES elements. */
RP_INLINE void rp_fold_lanes_f64(rp_fold fold, double *lane, const double *x,
                                 int64_t n, double shift) {
  int64_t i = 0;
  for (; i + RP_F64_LANES <= n; i += RP_F64_LANES)
    for (int l = 0; l < RP_F64_LANES; l++)
      lane[l] = rp_fold_step_f64(fold, lane[l], x[i + l], shift);
  for (int l = 0; i < n; i++, l++)
    lane[l] = rp_fold_step_f64(fold, lane[l], x[i], shift);
}

RP_INLINE double rp_fold_f64(rp_fold fold, const double *x, int64_t n,
                             double shift) {
  double lane[RP_F64_LANES];
  for (int l = 0; l < RP_F64_LANES; l++) lane[l] = rp_fold_start(fold);
  rp_fold_lanes_f64(fold, lane, x, n, shift);
  return rp_lanes_join_f64(fold, lane);
}

/* sum of exp(x - shift), x <= shift, by way of a buffer: exponentials in lanes
   that stay in registers would be too many for the compiler. */
static inline double rp_sum_exp_f32(const float *x, int64_t n, float shift) {
  double total = 0;
  for (int64_t block = 0; block < n; block += RP_LANE_BLOCK) {
    const int64_t m = n - block < RP_LANE_BLOCK ? n - block : RP_LANE_BLOCK;
    float e[RP_LANE_BLOCK];
    for (int64_t j = 0; j < m; j++)
      e[j] = rp_exp_down_f32(x[block + j] - shift);
    total += rp_fold_f32(RP_FOLD_SUM, e, m, 0);
  }
  return total;
}
static inline double rp_sum_exp_f64(const double *x, int64_t n, double shift) {
  double total = 0;
  for (int64_t block = 0; block < n; block += RP_LANE_BLOCK) {
    const int64_t m = n - block < RP_LANE_BLOCK ? n - block : RP_LANE_BLOCK;
    double e[RP_LANE_BLOCK];
    for (int64_t j = 0; j < m; j++) e[j] = rp_exp_f64(x[block + j] - shift);
    total += rp_fold_f64(RP_FOLD_SUM, e, m, 0);
  }
  return total;
}

/* The greatest or least of x[0..n), NaN where one is: looked for beforehand,
   so that the chain of comparisons is no longer than it must be. */
RP_INLINE double rp_extreme_f32(rp_fold fold, const float *x, int64_t n) {
  uint32_t odd = 0;
  for (int64_t i = 0; i < n; i++) odd |= x[i] != x[i];
  return odd ? NAN : rp_fold_f32(fold, x, n, 0);
}

RP_INLINE double rp_extreme_f64(rp_fold fold, const double *x, int64_t n) {
  uint64_t odd = 0;
  for (int64_t i = 0; i < n; i++) odd |= x[i] != x[i];
  return odd ? NAN : rp_fold_f64(fold, x, n, 0);
}

/* sum of a[i] * b[i]. */
RP_INLINE double rp_dot_f32(const float *a, const float *b, int64_t n) {
  double total = 0;
  for (int64_t block = 0; block < n; block += RP_LANE_BLOCK) {
    const int64_t end = n - block < RP_LANE_BLOCK ? n : block + RP_LANE_BLOCK;
    float lane[RP_F32_LANES] = {0};
    int64_t i = block;
    for (; i + RP_F32_LANES <= end; i += RP_F32_LANES)
      for (int l = 0; l < RP_F32_LANES; l++) lane[l] += a[i + l] * b[i + l];
    for (int l = 0; i < end; i++, l++) lane[l] += a[i] * b[i];
    total += rp_lanes_join_f32(RP_FOLD_SUM, lane);
  }
  return total;
}

RP_INLINE double rp_dot_f64(const double *a, const double *b, int64_t n) {
  double lane[RP_F64_LANES] = {0};
  int64_t i = 0;
  for (; i + RP_F64_LANES <= n; i += RP_F64_LANES)
    for (int l = 0; l < RP_F64_LANES; l++) lane[l] += a[i + l] * b[i + l];
  for (int l = 0; i < n; i++, l++) lane[l] += a[i] * b[i];
  return rp_lanes_join_f64(RP_FOLD_SUM, lane);
}

#endif
