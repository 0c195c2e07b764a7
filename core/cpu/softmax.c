/* Softmax and its kin. Along the last dim, a row is one pass for the
   greatest, one for exponentials and their sum, one to scale, while it lies
   in the first-level cache. Every kernel may write over its inputs: arrays
   are the same or apart, so that the loops have no dependence between
   iterations (ivdep). */
#include <string.h>

#include "cpu/extent.h"
#include "cpu/lanes.h"
#include "cpu/parallel.h"
#include "graph/op.h"

enum { TILE = 64, SKIP_MIN = 512 };

/* ---- rows, f32 ---------------------------------------------------------- */

/* y = exp(scale * x - top); returns the sum. */
RP_INLINE double exp_row_f32(const float *x, float *y, int64_t n, float scale,
                             float top) {
  double total = 0;
  for (int64_t at = 0; at < n; at += RP_LANE_BLOCK) {
    const int64_t end = n - at < RP_LANE_BLOCK ? n : at + RP_LANE_BLOCK;
#pragma GCC ivdep
    for (int64_t j = at; j < end; j++)
      y[j] = rp_exp_down_f32(scale * x[j] - top);
    total += rp_fold_f32(RP_FOLD_SUM, y + at, end - at, 0);
  }
  return total;
}

/* The maximum passes over NaN, which is no -inf. */
static bool all_low_f32(const float *x, int64_t n, float scale) {
  for (int64_t j = 0; j < n; j++)
    if (!(scale * x[j] == -INFINITY)) return false;
  return true;
}

/* Softmax of scale * x over its first `limit` entries where mask (NULL: all)
   is true; 0 elsewhere, and everywhere where `lenient` and all of these are
   -inf: nothing is attended to. */
RP_INLINE void softmax_row_f32(const float *x, float *y, const uint8_t *mask,
                               int64_t limit, int64_t n, float scale,
                               bool lenient) {
  float top;
  if (mask) {
    uint8_t any = 0;
#pragma GCC ivdep
    for (int64_t j = 0; j < limit; j++) {
      any |= mask[j];
      y[j] = mask[j] ? scale * x[j] : -INFINITY;
    }
    if (!any) limit = 0;
    x = y;
    scale = 1;
  }
  if (scale >= 0) top = (float)rp_fold_f32(RP_FOLD_TOP, x, limit, 0) * scale;
  else top = (float)rp_fold_f32(RP_FOLD_BOTTOM, x, limit, 0) * scale;
  if (lenient && top == -INFINITY && all_low_f32(x, limit, scale)) limit = 0;
  const float factor = 1 / (float)exp_row_f32(x, y, limit, scale, top);
  for (int64_t j = 0; j < limit; j++) y[j] *= factor;
  if (limit < n) memset(y + limit, 0, (size_t)(n - limit) * sizeof *y);
}

static void log_softmax_row_f32(const float *x, float *y, int64_t n) {
  const float top = (float)rp_fold_f32(RP_FOLD_TOP, x, n, 0);
  const float rest =
      (float)rp_log_f64(rp_sum_exp_f32(x, n, top));
#pragma GCC ivdep
  for (int64_t j = 0; j < n; j++) y[j] = (x[j] - top) - rest;
}

RP_INLINE void softmax_grad_row_f32(const float *dy, const float *y, float *dx,
                                    int64_t limit, int64_t n, float scale) {
  /* y is 0 from limit on, and so is dx. Skipping little is slower than
     reading on: it breaks off the processor's prefetching. */
  const int64_t lanes = (limit + RP_F32_LANES - 1) / RP_F32_LANES;
  const int64_t reach =
      n - limit < SKIP_MIN ? n : lanes * RP_F32_LANES;
  const float along = (float)rp_dot_f32(dy, y, reach);
#pragma GCC ivdep
  for (int64_t j = 0; j < reach; j++)
    dx[j] = y[j] * (dy[j] - along) * scale;
  if (reach < n) memset(dx + reach, 0, (size_t)(n - reach) * sizeof *dx);
}

static void log_softmax_grad_row_f32(const float *dy, const float *y,
                                     float *dx, int64_t n) {
  const float total = (float)rp_fold_f32(RP_FOLD_SUM, dy, n, 0);
#pragma GCC ivdep
  for (int64_t j = 0; j < n; j++) dx[j] = dy[j] - rp_exp_down_f32(y[j]) * total;
}

/* ---- rows, f64 ---------------------------------------------------------- */

RP_INLINE double exp_row_f64(const double *x, double *y, int64_t n,
                             double scale, double top) {
#pragma GCC ivdep
  for (int64_t j = 0; j < n; j++) y[j] = rp_exp_f64(scale * x[j] - top);
  return rp_fold_f64(RP_FOLD_SUM, y, n, 0);
}

static bool all_low_f64(const double *x, int64_t n, double scale) {
  for (int64_t j = 0; j < n; j++)
    if (!(scale * x[j] == -INFINITY)) return false;
  return true;
}

RP_INLINE void softmax_row_f64(const double *x, double *y, const uint8_t *mask,
                               int64_t limit, int64_t n, double scale,
                               bool lenient) {
  double top;
  if (mask) {
    uint8_t any = 0;
#pragma GCC ivdep
    for (int64_t j = 0; j < limit; j++) {
      any |= mask[j];
      y[j] = mask[j] ? scale * x[j] : -INFINITY;
    }
    if (!any) limit = 0;
    x = y;
    scale = 1;
  }
  if (scale >= 0) top = rp_fold_f64(RP_FOLD_TOP, x, limit, 0) * scale;
  else top = rp_fold_f64(RP_FOLD_BOTTOM, x, limit, 0) * scale;
  if (lenient && top == -INFINITY && all_low_f64(x, limit, scale)) limit = 0;
  const double factor = 1 / exp_row_f64(x, y, limit, scale, top);
  for (int64_t j = 0; j < limit; j++) y[j] *= factor;
  if (limit < n) memset(y + limit, 0, (size_t)(n - limit) * sizeof *y);
}

static void log_softmax_row_f64(const double *x, double *y, int64_t n) {
  const double top = rp_fold_f64(RP_FOLD_TOP, x, n, 0);
  const double rest = rp_log_f64(rp_sum_exp_f64(x, n, top));
#pragma GCC ivdep
  for (int64_t j = 0; j < n; j++) y[j] = (x[j] - top) - rest;
}

RP_INLINE void softmax_grad_row_f64(const double *dy, const double *y,
                                    double *dx, int64_t limit, int64_t n,
                                    double scale) {
  const double along = rp_dot_f64(dy, y, limit);
#pragma GCC ivdep
  for (int64_t j = 0; j < limit; j++)
    dx[j] = y[j] * (dy[j] - along) * scale;
  if (limit < n) memset(dx + limit, 0, (size_t)(n - limit) * sizeof *dx);
}

static void log_softmax_grad_row_f64(const double *dy, const double *y,
                                     double *dx, int64_t n) {
  const double total = rp_fold_f64(RP_FOLD_SUM, dy, n, 0);
#pragma GCC ivdep
  for (int64_t j = 0; j < n; j++) dx[j] = dy[j] - rp_exp_f64(y[j]) * total;
}

/* ---- along an earlier dim ----------------------------------------------- */

typedef enum kin { SOFTMAX, LOG_SOFTMAX, SOFTMAX_GRAD, LOG_SOFTMAX_GRAD } kin;

RP_INLINE double load(const void *x, bool wide, int64_t i) {
  return wide ? ((const double *)x)[i] : ((const float *)x)[i];
}
RP_INLINE void store(void *y, bool wide, int64_t i, double value) {
  if (wide) ((double *)y)[i] = value;
  else ((float *)y)[i] = (float)value;
}

/* m neighbouring columns of n rows, `inner` apart, in f64. */
RP_INLINE void softmax_columns(bool wide, bool is_log, const void *x, void *y,
                               int64_t from, rp_extent e, int64_t m) {
  double top[TILE], sum[TILE] = {0};
  for (int64_t j = 0; j < m; j++) top[j] = -INFINITY;
  for (int64_t i = 0; i < e.n; i++)
    for (int64_t j = 0; j < m; j++) {
      const double v = load(x, wide, from + i * e.inner + j);
      top[j] = v > top[j] ? v : top[j];
    }
  for (int64_t i = 0; i < e.n; i++)
    for (int64_t j = 0; j < m; j++)
      sum[j] += rp_exp_f64(load(x, wide, from + i * e.inner + j) - top[j]);
  for (int64_t j = 0; j < m; j++)
    sum[j] = is_log ? rp_log_f64(sum[j]) : 1 / sum[j];
  for (int64_t i = 0; i < e.n; i++)
#pragma GCC ivdep
    for (int64_t j = 0; j < m; j++) {
      const int64_t at = from + i * e.inner + j;
      const double v = load(x, wide, at) - top[j];
      store(y, wide, at, is_log ? v - sum[j] : rp_exp_f64(v) * sum[j]);
    }
}

RP_INLINE void grad_columns(bool wide, bool is_log, const void *dy,
                            const void *y, void *dx, int64_t from,
                            rp_extent e, int64_t m) {
  double sum[TILE] = {0};
  for (int64_t i = 0; i < e.n; i++)
    for (int64_t j = 0; j < m; j++) {
      const int64_t at = from + i * e.inner + j;
      const double v = load(dy, wide, at);
      sum[j] += is_log ? v : v * load(y, wide, at);
    }
  for (int64_t i = 0; i < e.n; i++)
#pragma GCC ivdep
    for (int64_t j = 0; j < m; j++) {
      const int64_t at = from + i * e.inner + j;
      const double v = load(dy, wide, at), p = load(y, wide, at);
      store(dx, wide, at,
            is_log ? v - rp_exp_f64(p) * sum[j] : p * (v - sum[j]));
    }
}

static void run_columns(const rp_kernel_args *args, kin kind, rp_extent e) {
  const bool wide = args->in[0].type.dtype == RP_F64;
  const void *a = args->in[0].data;
  const void *b = args->n_in > 1 ? args->in[1].data : NULL;
  void *c = args->out[0].data;
  const int64_t tiles = (e.inner + TILE - 1) / TILE;
#pragma omp parallel for schedule(static) \
    if (rp_worth(e.outer * e.n * e.inner))
  for (int64_t item = 0; item < e.outer * tiles; item++) {
    const int64_t at = item % tiles * TILE;
    const int64_t from = item / tiles * e.n * e.inner + at;
    const int64_t m = e.inner - at < TILE ? e.inner - at : TILE;
    const bool is_log = kind == LOG_SOFTMAX || kind == LOG_SOFTMAX_GRAD;
    if (kind == SOFTMAX || kind == LOG_SOFTMAX) {
      if (wide && is_log) softmax_columns(true, true, a, c, from, e, m);
      else if (wide) softmax_columns(true, false, a, c, from, e, m);
      else if (is_log) softmax_columns(false, true, a, c, from, e, m);
      else softmax_columns(false, false, a, c, from, e, m);
    } else {
      if (wide && is_log) grad_columns(true, true, a, b, c, from, e, m);
      else if (wide) grad_columns(true, false, a, b, c, from, e, m);
      else if (is_log) grad_columns(false, true, a, b, c, from, e, m);
      else grad_columns(false, false, a, b, c, from, e, m);
    }
  }
}

/* ---- softmax, log_softmax and their gradients --------------------------- */

static void run_row_f32(const rp_kernel_args *args, kin kind, int64_t from,
                        int64_t n) {
  const float *a = (const float *)args->in[0].data + from;
  float *c = (float *)args->out[0].data + from;
  const float *b =
      args->n_in > 1 ? (const float *)args->in[1].data + from : NULL;
  switch (kind) {
    case SOFTMAX: softmax_row_f32(a, c, NULL, n, n, 1, false); break;
    case LOG_SOFTMAX: log_softmax_row_f32(a, c, n); break;
    case SOFTMAX_GRAD: softmax_grad_row_f32(a, b, c, n, n, 1); break;
    case LOG_SOFTMAX_GRAD: log_softmax_grad_row_f32(a, b, c, n); break;
  }
}

static void run_row_f64(const rp_kernel_args *args, kin kind, int64_t from,
                        int64_t n) {
  const double *a = (const double *)args->in[0].data + from;
  double *c = (double *)args->out[0].data + from;
  const double *b =
      args->n_in > 1 ? (const double *)args->in[1].data + from : NULL;
  switch (kind) {
    case SOFTMAX: softmax_row_f64(a, c, NULL, n, n, 1, false); break;
    case LOG_SOFTMAX: log_softmax_row_f64(a, c, n); break;
    case SOFTMAX_GRAD: softmax_grad_row_f64(a, b, c, n, n, 1); break;
    case LOG_SOFTMAX_GRAD: log_softmax_grad_row_f64(a, b, c, n); break;
  }
}

static rp_status run(const rp_kernel_args *args, kin kind) {
  const rp_extent e = rp_extent_of(&args->in[0].type, args->ints[0]);
  if (e.inner != 1) {
    run_columns(args, kind, e);
    return RP_OK;
  }
  const bool wide = args->in[0].type.dtype == RP_F64;
#pragma omp parallel for schedule(static) if (rp_worth(e.outer * e.n))
  for (int64_t i = 0; i < e.outer; i++) {
    if (wide) run_row_f64(args, kind, i * e.n, e.n);
    else run_row_f32(args, kind, i * e.n, e.n);
  }
  return RP_OK;
}

static rp_status run_softmax(const rp_kernel_args *args) {
  return run(args, SOFTMAX);
}
static rp_status run_log_softmax(const rp_kernel_args *args) {
  return run(args, LOG_SOFTMAX);
}
static rp_status run_softmax_grad(const rp_kernel_args *args) {
  return run(args, SOFTMAX_GRAD);
}
static rp_status run_log_softmax_grad(const rp_kernel_args *args) {
  return run(args, LOG_SOFTMAX_GRAD);
}

/* ---- attention ---------------------------------------------------------- */

/* Scores (..., queries, keys), row by row. */
typedef struct scores {
  int64_t rows, queries, keys;
  bool causal;
  double scale;
} scores;

static scores scores_of(const rp_kernel_args *args) {
  const rp_type *x = &args->in[0].type;
  scores s = {.rows = 1, .queries = 1, .keys = x->dims[x->rank - 1],
              .causal = args->n_ints > 0 && args->ints[0],
              .scale = args->n_reals > 0 ? args->reals[0] : 1};
  for (int i = 0; i < x->rank - 1; i++) s.rows *= x->dims[i];
  if (x->rank > 1) s.queries = x->dims[x->rank - 2];
  return s;
}

/* Keys that a row may attend to: the first so many. */
static int64_t keys_of(const scores *s, int64_t row) {
  if (!s->causal) return s->keys;
  const int64_t limit = row % s->queries + s->keys - s->queries + 1;
  return limit < 0 ? 0 : limit < s->keys ? limit : s->keys;
}

/* The mask's entries for a row, or NULL where all are true. `limit` becomes 0
   where one entry stands for the whole row and is false. */
static const uint8_t *mask_of(const rp_kernel_args *args, int64_t row,
                              int64_t *limit) {
  if (args->n_in < 2) return NULL;
  const rp_type *x = &args->in[0].type, *mask = &args->in[1].type;
  int64_t offset = 0, stride = 1;
  for (int k = 1; k <= mask->rank; k++) {
    const int64_t size = x->dims[x->rank - k];
    const int64_t m = mask->dims[mask->rank - k];
    if (k > 1) {
      offset += m == 1 ? 0 : row % size * stride;
      row /= size;
    }
    stride *= m;
  }
  const uint8_t *at = (const uint8_t *)args->in[1].data + offset;
  if (mask->rank > 0 && mask->dims[mask->rank - 1] != 1) return at;
  if (*at == 0) *limit = 0;
  return NULL;
}

static rp_status run_masked(const rp_kernel_args *args) {
  const scores s = scores_of(args);
  const bool wide = args->in[0].type.dtype == RP_F64;
#pragma omp parallel for schedule(static) if (rp_worth(s.rows * s.keys))
  for (int64_t row = 0; row < s.rows; row++) {
    int64_t limit = keys_of(&s, row);
    const int64_t from = row * s.keys;
    const uint8_t *mask = s.keys ? mask_of(args, row, &limit) : NULL;
    if (wide)
      softmax_row_f64((const double *)args->in[0].data + from,
                      (double *)args->out[0].data + from, mask, limit, s.keys,
                      s.scale, true);
    else
      softmax_row_f32((const float *)args->in[0].data + from,
                      (float *)args->out[0].data + from, mask, limit, s.keys,
                      (float)s.scale, true);
  }
  return RP_OK;
}

static rp_status run_masked_grad(const rp_kernel_args *args) {
  const scores s = scores_of(args);
  const bool wide = args->in[0].type.dtype == RP_F64;
#pragma omp parallel for schedule(static) if (rp_worth(s.rows * s.keys))
  for (int64_t row = 0; row < s.rows; row++) {
    const int64_t limit = keys_of(&s, row), from = row * s.keys;
    if (wide)
      softmax_grad_row_f64((const double *)args->in[0].data + from,
                           (const double *)args->in[1].data + from,
                           (double *)args->out[0].data + from, limit, s.keys,
                           s.scale);
    else
      softmax_grad_row_f32((const float *)args->in[0].data + from,
                           (const float *)args->in[1].data + from,
                           (float *)args->out[0].data + from, limit, s.keys,
                           (float)s.scale);
  }
  return RP_OK;
}

extern const rp_op rp_op_softmax, rp_op_softmax_grad, rp_op_log_softmax,
    rp_op_log_softmax_grad, rp_op_scaled_masked_softmax,
    rp_op_scaled_masked_softmax_grad;

static const rp_kernel rows[] = {
    {&rp_op_softmax, RP_F32, run_softmax, NULL, NULL},
    {&rp_op_softmax, RP_F64, run_softmax, NULL, NULL},
    {&rp_op_softmax_grad, RP_F32, run_softmax_grad, NULL, NULL},
    {&rp_op_softmax_grad, RP_F64, run_softmax_grad, NULL, NULL},
    {&rp_op_log_softmax, RP_F32, run_log_softmax, NULL, NULL},
    {&rp_op_log_softmax, RP_F64, run_log_softmax, NULL, NULL},
    {&rp_op_log_softmax_grad, RP_F32, run_log_softmax_grad, NULL, NULL},
    {&rp_op_log_softmax_grad, RP_F64, run_log_softmax_grad, NULL, NULL},
    {&rp_op_scaled_masked_softmax, RP_F32, run_masked, NULL, NULL},
    {&rp_op_scaled_masked_softmax, RP_F64, run_masked, NULL, NULL},
    {&rp_op_scaled_masked_softmax_grad, RP_F32, run_masked_grad, NULL, NULL},
    {&rp_op_scaled_masked_softmax_grad, RP_F64, run_masked_grad, NULL, NULL},
};
const rp_kernel_table rp_cpu_softmax = {rows, sizeof rows / sizeof *rows};
