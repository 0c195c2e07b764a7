/* Elementwise kernels: one contiguous output over inputs of any strides.

   A kernel is a row function: it computes n consecutive elements of the
   output, from inputs that advance by one stride each. rp_rows_run cuts the
   output into rows and hands them to threads. Element i depends on element i
   of each input alone, so the output may lie exactly over a contiguous input,
   and how rows are cut changes no bit.

   rp_map_* make row functions out of functions of scalars. They are always
   inlined, the scalar function with them, so that each row function is loops
   of its own which the compiler vectorises:

     static void exp_f32(const rp_row *row) { rp_map_f32(row, rp_exp_f32); } */
#ifndef RP_CPU_ELEMENTWISE_H
#define RP_CPU_ELEMENTWISE_H

#include "base/vecmath.h"
#include "exec/backend.h"

enum { RP_ROW_INPUTS = 3 };

typedef struct rp_row {
  int64_t n;
  int64_t first; /* index of the row's first element in the whole output */
  void *out;
  const void *in[RP_ROW_INPUTS];
  int64_t strides[RP_ROW_INPUTS]; /* in elements */
  const rp_kernel_args *args;
} rp_row;

typedef void rp_row_function(const rp_row *row);

/* A row function and what it is for: bytes of the arrays' elements, and
   whether those in bf16 are f32 to it. Its inputs are the op's, in order. */
typedef struct rp_row_kernel {
  rp_row_function *function;
  int32_t n_in;
  bool widens, narrow[RP_ROW_INPUTS], out_narrow; /* narrow: bf16 */
  int64_t size[RP_ROW_INPUTS], out_size;
} rp_row_kernel;
void rp_row_run(const rp_row_kernel *kernel, const rp_row *row);

/* Runs one row function over the output. Rows start at multiples of RP_TILE
   where every input is contiguous (or there is none). */
rp_status rp_rows_run(const rp_kernel_args *args, rp_row_function *function);

/* The same for a function of f32 where some of inputs and output are bf16:
   those inputs are widened, the result is rounded once, to nearest even. */
rp_status rp_rows_run_narrow(const rp_kernel_args *args,
                             rp_row_function *function);

/* The row function for the dtype of input 0; that of f32 where any array is
   bf16. */
typedef struct rp_rows {
  rp_row_function *f32, *f64, *i32, *i64, *boolean;
} rp_rows;
rp_status rp_rows_run_typed(const rp_kernel_args *args, const rp_rows *rows);

/* ---- y = f(x) ----------------------------------------------------------- */

RP_INLINE void rp_map_f32(const rp_row *row, float (*f)(float)) {
  const float *x = row->in[0];
  float *y = row->out;
  const int64_t n = row->n, s = row->strides[0];
  if (s == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) y[i] = f(x[i]);
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) y[i] = f(x[i * s]);
  }
}
RP_INLINE void rp_map_f64(const rp_row *row, double (*f)(double)) {
  const double *x = row->in[0];
  double *y = row->out;
  const int64_t n = row->n, s = row->strides[0];
  if (s == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) y[i] = f(x[i]);
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) y[i] = f(x[i * s]);
  }
}
RP_INLINE void rp_map_i32(const rp_row *row, int32_t (*f)(int32_t)) {
  const int32_t *x = row->in[0];
  int32_t *y = row->out;
  const int64_t n = row->n, s = row->strides[0];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) y[i] = f(x[i * s]);
}
RP_INLINE void rp_map_i64(const rp_row *row, int64_t (*f)(int64_t)) {
  const int64_t *x = row->in[0];
  int64_t *y = row->out;
  const int64_t n = row->n, s = row->strides[0];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) y[i] = f(x[i * s]);
}

/* ---- y = f(a, b) -------------------------------------------------------- */

/* What the strides of two inputs allow: constants in the inlined loops. */
typedef enum rp_pair {
  RP_BOTH, RP_FIRST_FIXED, RP_SECOND_FIXED, RP_ANY_PAIR
} rp_pair;

static inline rp_pair rp_row_pair(const rp_row *row) {
  const int64_t a = row->strides[0], b = row->strides[1];
  if (a == 1 && b == 1) return RP_BOTH;
  if (a == 0 && b == 1) return RP_FIRST_FIXED;
  if (a == 1 && b == 0) return RP_SECOND_FIXED;
  return RP_ANY_PAIR;
}

RP_INLINE void rp_loop2_f32(const rp_row *row, int64_t sa, int64_t sb,
                            float (*f)(float, float)) {
  const float *a = row->in[0], *b = row->in[1];
  float *y = row->out;
  const int64_t n = row->n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) y[i] = f(a[i * sa], b[i * sb]);
}
RP_INLINE void rp_map2_f32(const rp_row *row, float (*f)(float, float)) {
  switch (rp_row_pair(row)) {
    case RP_BOTH: rp_loop2_f32(row, 1, 1, f); break;
    case RP_FIRST_FIXED: rp_loop2_f32(row, 0, 1, f); break;
    case RP_SECOND_FIXED: rp_loop2_f32(row, 1, 0, f); break;
    default: rp_loop2_f32(row, row->strides[0], row->strides[1], f);
  }
}
RP_INLINE void rp_loop2_f64(const rp_row *row, int64_t sa, int64_t sb,
                            double (*f)(double, double)) {
  const double *a = row->in[0], *b = row->in[1];
  double *y = row->out;
  const int64_t n = row->n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) y[i] = f(a[i * sa], b[i * sb]);
}
RP_INLINE void rp_map2_f64(const rp_row *row, double (*f)(double, double)) {
  switch (rp_row_pair(row)) {
    case RP_BOTH: rp_loop2_f64(row, 1, 1, f); break;
    case RP_FIRST_FIXED: rp_loop2_f64(row, 0, 1, f); break;
    case RP_SECOND_FIXED: rp_loop2_f64(row, 1, 0, f); break;
    default: rp_loop2_f64(row, row->strides[0], row->strides[1], f);
  }
}
RP_INLINE void rp_loop2_i32(const rp_row *row, int64_t sa, int64_t sb,
                            int32_t (*f)(int32_t, int32_t)) {
  const int32_t *a = row->in[0], *b = row->in[1];
  int32_t *y = row->out;
  const int64_t n = row->n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) y[i] = f(a[i * sa], b[i * sb]);
}
RP_INLINE void rp_map2_i32(const rp_row *row, int32_t (*f)(int32_t, int32_t)) {
  switch (rp_row_pair(row)) {
    case RP_BOTH: rp_loop2_i32(row, 1, 1, f); break;
    case RP_FIRST_FIXED: rp_loop2_i32(row, 0, 1, f); break;
    case RP_SECOND_FIXED: rp_loop2_i32(row, 1, 0, f); break;
    default: rp_loop2_i32(row, row->strides[0], row->strides[1], f);
  }
}
RP_INLINE void rp_loop2_i64(const rp_row *row, int64_t sa, int64_t sb,
                            int64_t (*f)(int64_t, int64_t)) {
  const int64_t *a = row->in[0], *b = row->in[1];
  int64_t *y = row->out;
  const int64_t n = row->n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) y[i] = f(a[i * sa], b[i * sb]);
}
RP_INLINE void rp_map2_i64(const rp_row *row, int64_t (*f)(int64_t, int64_t)) {
  switch (rp_row_pair(row)) {
    case RP_BOTH: rp_loop2_i64(row, 1, 1, f); break;
    case RP_FIRST_FIXED: rp_loop2_i64(row, 0, 1, f); break;
    case RP_SECOND_FIXED: rp_loop2_i64(row, 1, 0, f); break;
    default: rp_loop2_i64(row, row->strides[0], row->strides[1], f);
  }
}

/* x^n, wrapping; n < 0 gives 1/x^n truncated, which is 0 but for x = 1, -1. */
static inline int64_t rp_power_i64(int64_t x, int64_t n) {
  if (n < 0) return x == 1 ? 1 : x == -1 ? (n & 1 ? -1 : 1) : 0;
  uint64_t y = 1, square = (uint64_t)x;
  for (; n; n >>= 1, square *= square)
    if (n & 1) y *= square;
  return (int64_t)y;
}
static inline int32_t rp_power_i32(int32_t x, int32_t n) {
  return (int32_t)(uint32_t)(uint64_t)rp_power_i64(x, n);
}

#endif
