/* argmax and cumsum: x is (outer, n, inner) around the dim that is walked. */
#include "cpu/extent.h"
#include "cpu/lanes.h"
#include "cpu/parallel.h"
#include "graph/op.h"

enum { TILE = 128 };

/* ---- argmax -------------------------------------------------------------- */
/* x[a] beats x[b]; NaN beats every number, as in PyTorch. */
RP_INLINE bool beats(const void *x, int32_t dtype, int64_t a, int64_t b) {
  switch (dtype) {
    case RP_F32: {
      const float p = ((const float *)x)[a], q = ((const float *)x)[b];
      return p > q || (p != p && q == q);
    }
    case RP_F64: {
      const double p = ((const double *)x)[a], q = ((const double *)x)[b];
      return p > q || (p != p && q == q);
    }
    case RP_I32: return ((const int32_t *)x)[a] > ((const int32_t *)x)[b];
    default: return ((const int64_t *)x)[a] > ((const int64_t *)x)[b];
  }
}

RP_INLINE void argmax_as(int32_t dtype, const rp_kernel_args *args,
                         rp_extent e) {
  const void *x = args->in[0].data;
  int64_t *y = args->out[0].data;
  const int64_t tiles = (e.inner + TILE - 1) / TILE;
#pragma omp parallel for schedule(static) \
    if (rp_worth(e.outer * e.n * e.inner))
  for (int64_t item = 0; item < e.outer * tiles; item++) {
    const int64_t o = item / tiles, at = item % tiles * TILE;
    const int64_t m = e.inner - at < TILE ? e.inner - at : TILE;
    const int64_t base = o * e.n * e.inner + at;
    int64_t best[TILE] = {0};
    for (int64_t i = 1; i < e.n; i++)
      for (int64_t j = 0; j < m; j++)
        if (beats(x, dtype, base + i * e.inner + j,
                  base + best[j] * e.inner + j))
          best[j] = i;
    for (int64_t j = 0; j < m; j++) y[o * e.inner + at + j] = best[j];
  }
}

/* Rows: the value in lanes, then the first that is it. */
static void argmax_rows_f32(const rp_kernel_args *args, rp_extent e) {
  int64_t *y = args->out[0].data;
#pragma omp parallel for schedule(static) if (rp_worth(e.outer * e.n))
  for (int64_t o = 0; o < e.outer; o++) {
    const float *x = (const float *)args->in[0].data + o * e.n;
    const float top = (float)rp_extreme_f32(RP_FOLD_TOP, x, e.n);
    int64_t i = 0;
    while (top == top ? x[i] != top : x[i] == x[i]) i++;
    y[o] = i;
  }
}

static rp_status run_argmax(const rp_kernel_args *args) {
  const rp_type *x = &args->in[0].type;
  const int64_t dim = args->n_ints > 1 ? args->ints[1] : -1;
  const rp_extent e = dim >= 0 ? rp_extent_of(x, dim)
                            : (rp_extent){1, rp_type_count(x), 1};
  if (e.n == 0) return RP_OK;
  if (x->dtype == RP_F32 && e.inner == 1) argmax_rows_f32(args, e);
  else if (x->dtype == RP_F32) argmax_as(RP_F32, args, e);
  else if (x->dtype == RP_F64) argmax_as(RP_F64, args, e);
  else if (x->dtype == RP_I32) argmax_as(RP_I32, args, e);
  else argmax_as(RP_I64, args, e);
  return RP_OK;
}

/* ---- cumsum -------------------------------------------------------------- */
/* Sums of f32 run in f64, sums of integers in i64. x and y may be one. */
static rp_status cumsum_f32(const rp_kernel_args *args) {
  const rp_extent e = rp_extent_of(&args->in[0].type, args->ints[0]);
  const bool reverse = args->n_ints > 1 && args->ints[1];
  const float *x = args->in[0].data;
  float *y = args->out[0].data;
  const int64_t tiles = (e.inner + TILE - 1) / TILE;
#pragma omp parallel for schedule(static) \
    if (rp_worth(e.outer * e.n * e.inner))
  for (int64_t item = 0; item < e.outer * tiles; item++) {
    const int64_t o = item / tiles, at = item % tiles * TILE;
    const int64_t m = e.inner - at < TILE ? e.inner - at : TILE;
    double sum[TILE] = {0};
    for (int64_t i = 0; i < e.n; i++) {
      const int64_t row = reverse ? e.n - 1 - i : i;
      const int64_t from = (o * e.n + row) * e.inner + at;
      for (int64_t j = 0; j < m; j++) {
        sum[j] += x[from + j];
        y[from + j] = (float)sum[j];
      }
    }
  }
  return RP_OK;
}

static rp_status cumsum_f64(const rp_kernel_args *args) {
  const rp_extent e = rp_extent_of(&args->in[0].type, args->ints[0]);
  const bool reverse = args->n_ints > 1 && args->ints[1];
  const double *x = args->in[0].data;
  double *y = args->out[0].data;
  const int64_t tiles = (e.inner + TILE - 1) / TILE;
#pragma omp parallel for schedule(static) \
    if (rp_worth(e.outer * e.n * e.inner))
  for (int64_t item = 0; item < e.outer * tiles; item++) {
    const int64_t o = item / tiles, at = item % tiles * TILE;
    const int64_t m = e.inner - at < TILE ? e.inner - at : TILE;
    double sum[TILE] = {0};
    for (int64_t i = 0; i < e.n; i++) {
      const int64_t row = reverse ? e.n - 1 - i : i;
      const int64_t from = (o * e.n + row) * e.inner + at;
      for (int64_t j = 0; j < m; j++) {
        sum[j] += x[from + j];
        y[from + j] = sum[j];
      }
    }
  }
  return RP_OK;
}

static rp_status cumsum_int(const rp_kernel_args *args) {
  const rp_extent e = rp_extent_of(&args->in[0].type, args->ints[0]);
  const bool reverse = args->n_ints > 1 && args->ints[1];
  const bool wide = args->in[0].type.dtype == RP_I64;
  const void *x = args->in[0].data;
  int64_t *y = args->out[0].data;
#pragma omp parallel for schedule(static) \
    if (rp_worth(e.outer * e.n * e.inner))
  for (int64_t item = 0; item < e.outer * e.inner; item++) {
    const int64_t o = item / e.inner, j = item % e.inner;
    uint64_t sum = 0;
    for (int64_t i = 0; i < e.n; i++) {
      const int64_t row = reverse ? e.n - 1 - i : i;
      const int64_t at = (o * e.n + row) * e.inner + j;
      sum += (uint64_t)(wide ? ((const int64_t *)x)[at]
                             : ((const int32_t *)x)[at]);
      y[at] = (int64_t)sum;
    }
  }
  return RP_OK;
}

extern const rp_op rp_op_argmax, rp_op_cumsum;

static const rp_kernel rows[] = {
    {&rp_op_argmax, RP_F32, run_argmax, NULL, NULL},
    {&rp_op_argmax, RP_F64, run_argmax, NULL, NULL},
    {&rp_op_argmax, RP_I32, run_argmax, NULL, NULL},
    {&rp_op_argmax, RP_I64, run_argmax, NULL, NULL},
    {&rp_op_cumsum, RP_F32, cumsum_f32, NULL, NULL},
    {&rp_op_cumsum, RP_F64, cumsum_f64, NULL, NULL},
    {&rp_op_cumsum, RP_I32, cumsum_int, NULL, NULL},
    {&rp_op_cumsum, RP_I64, cumsum_int, NULL, NULL},
};
const rp_kernel_table rp_cpu_scan = {rows, sizeof rows / sizeof *rows};
