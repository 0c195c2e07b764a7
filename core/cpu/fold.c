#include "cpu/fold.h"

#include <string.h>

#include "cpu/bf16.h"

static double run_f32(rp_fold fold, const void *x, int64_t n, double shift) {
  const float s = (float)shift;
  switch (fold) {
    case RP_FOLD_SUM: return rp_fold_f32(RP_FOLD_SUM, x, n, s);
    case RP_FOLD_SQUARES: return rp_fold_f32(RP_FOLD_SQUARES, x, n, s);
    case RP_FOLD_DEVIATION: return rp_fold_f32(RP_FOLD_DEVIATION, x, n, s);
    case RP_FOLD_EXP: return rp_sum_exp_f32(x, n, s);
    case RP_FOLD_TOP: return rp_extreme_f32(RP_FOLD_TOP, x, n);
    default: return rp_extreme_f32(RP_FOLD_BOTTOM, x, n);
  }
}

static double run_f64(rp_fold fold, const void *x, int64_t n, double shift) {
  switch (fold) {
    case RP_FOLD_SUM: return rp_fold_f64(RP_FOLD_SUM, x, n, shift);
    case RP_FOLD_SQUARES: return rp_fold_f64(RP_FOLD_SQUARES, x, n, shift);
    case RP_FOLD_DEVIATION: return rp_fold_f64(RP_FOLD_DEVIATION, x, n, shift);
    case RP_FOLD_EXP: return rp_sum_exp_f64(x, n, shift);
    case RP_FOLD_TOP: return rp_extreme_f64(RP_FOLD_TOP, x, n);
    default: return rp_extreme_f64(RP_FOLD_BOTTOM, x, n);
  }
}

RP_INLINE float nan_step_f32(rp_fold fold, float a, float x, float shift) {
  const float y = rp_fold_step_f32(fold, a, x, shift);
  return rp_fold_is_extreme(fold) && x != x ? x : y;
}
RP_INLINE float nan_join_f32(rp_fold fold, float a, float b) {
  return rp_fold_is_extreme(fold) ? nan_step_f32(fold, a, b, 0) : a + b;
}

RP_INLINE void fold_rows_f32(rp_fold fold, float *restrict y,
                             const void *const *row, int n, int64_t m,
                             const float *restrict shift) {
  const float start = (float)rp_fold_start(fold);
  if (n == RP_FOLD_ROWS) {
    const float *a = row[0], *b = row[1], *c = row[2], *d = row[3],
                *e = row[4], *f = row[5], *g = row[6], *h = row[7];
    for (int64_t j = 0; j < m; j++) {
      const float s = shift ? shift[j] : 0;
      float p = nan_step_f32(fold, start, a[j], s);
      float q = nan_step_f32(fold, start, e[j], s);
      p = nan_step_f32(fold, p, b[j], s);
      q = nan_step_f32(fold, q, f[j], s);
      p = nan_step_f32(fold, p, c[j], s);
      q = nan_step_f32(fold, q, g[j], s);
      p = nan_step_f32(fold, p, d[j], s);
      q = nan_step_f32(fold, q, h[j], s);
      y[j] = nan_join_f32(fold, y[j], nan_join_f32(fold, p, q));
    }
    return;
  }
  for (int i = 0; i < n; i++) {
    const float *x = row[i];
    for (int64_t j = 0; j < m; j++)
      y[j] = nan_step_f32(fold, y[j], x[j], shift ? shift[j] : 0);
  }
}

RP_INLINE void fold_rows_f64(rp_fold fold, double *restrict y,
                             const void *const *row, int n, int64_t m,
                             const double *restrict shift) {
  for (int i = 0; i < n; i++) {
    const double *x = row[i];
    for (int64_t j = 0; j < m; j++)
      y[j] = rp_nan_step_f64(fold, y[j], x[j], shift ? shift[j] : 0);
  }
}

static void rows_f32(rp_fold fold, void *y, const void *const *row, int n,
                     int64_t m, const void *shift) {
  switch (fold) {
    case RP_FOLD_SUM:
      fold_rows_f32(RP_FOLD_SUM, y, row, n, m, NULL); break;
    case RP_FOLD_SQUARES:
      fold_rows_f32(RP_FOLD_SQUARES, y, row, n, m, NULL); break;
    case RP_FOLD_DEVIATION:
      fold_rows_f32(RP_FOLD_DEVIATION, y, row, n, m, shift); break;
    case RP_FOLD_EXP:
      fold_rows_f32(RP_FOLD_EXP, y, row, n, m, shift); break;
    case RP_FOLD_TOP:
      fold_rows_f32(RP_FOLD_TOP, y, row, n, m, NULL); break;
    default:
      fold_rows_f32(RP_FOLD_BOTTOM, y, row, n, m, NULL); break;
  }
}

static void rows_f64(rp_fold fold, void *y, const void *const *row, int n,
                     int64_t m, const void *shift) {
  switch (fold) {
    case RP_FOLD_SUM:
      fold_rows_f64(RP_FOLD_SUM, y, row, n, m, NULL); break;
    case RP_FOLD_SQUARES:
      fold_rows_f64(RP_FOLD_SQUARES, y, row, n, m, NULL); break;
    case RP_FOLD_DEVIATION:
      fold_rows_f64(RP_FOLD_DEVIATION, y, row, n, m, shift); break;
    case RP_FOLD_EXP:
      fold_rows_f64(RP_FOLD_EXP, y, row, n, m, shift); break;
    case RP_FOLD_TOP:
      fold_rows_f64(RP_FOLD_TOP, y, row, n, m, NULL); break;
    default:
      fold_rows_f64(RP_FOLD_BOTTOM, y, row, n, m, NULL); break;
  }
}

static void add_partial_f32(rp_fold fold, double *total, const void *partial,
                            int64_t m) {
  const float *p = partial;
  for (int64_t j = 0; j < m; j++)
    total[j] = rp_nan_join_f64(fold, total[j], p[j]);
}

static void add_partial_f64(rp_fold fold, double *total, const void *partial,
                            int64_t m) {
  const double *p = partial;
  for (int64_t j = 0; j < m; j++)
    total[j] = rp_nan_join_f64(fold, total[j], p[j]);
}

static void store_f32(void *y, const double *total, int64_t m) {
  for (int64_t j = 0; j < m; j++) ((float *)y)[j] = (float)total[j];
}

static void store_f64(void *y, const double *total, int64_t m) {
  memcpy(y, total, (size_t)m * sizeof *total);
}

static void finish_f32(rp_finish how, void *y, int64_t m, double divisor,
                       const void *shift) {
  float *v = y;
  const float *s = shift, d = (float)divisor;
  if (how == RP_DIVIDE) {
    for (int64_t j = 0; j < m; j++) v[j] /= d;
  } else if (how == RP_LOG) {
    for (int64_t j = 0; j < m; j++)
      v[j] = isfinite(s[j]) ? rp_log_f32(v[j]) + s[j] : s[j];
  }
}

static void finish_f64(rp_finish how, void *y, int64_t m, double divisor,
                       const void *shift) {
  double *v = y;
  const double *s = shift;
  if (how == RP_DIVIDE) {
    for (int64_t j = 0; j < m; j++) v[j] /= divisor;
  } else if (how == RP_LOG) {
    for (int64_t j = 0; j < m; j++)
      v[j] = isfinite(s[j]) ? rp_log_f64(v[j]) + s[j] : s[j];
  }
}

static double load_f32(const void *x, int64_t i) { return ((float *)x)[i]; }
static double load_f64(const void *x, int64_t i) { return ((double *)x)[i]; }

/* ---- bf16: widened, then as f32 ------------------------------------------ */

static double run_bf16(rp_fold fold, const void *x, int64_t n, double shift) {
  const uint16_t *bits = x;
  double total = rp_fold_start(fold);
  for (int64_t at = 0; at < n; at += RP_LANE_BLOCK) {
    const int64_t m = n - at < RP_LANE_BLOCK ? n - at : RP_LANE_BLOCK;
    float wide[RP_LANE_BLOCK];
    rp_bf16_widen(wide, bits + at, 1, m);
    total = rp_nan_join_f64(fold, total, run_f32(fold, wide, m, shift));
  }
  return total;
}

static void rows_bf16(rp_fold fold, void *y, const void *const *row, int n,
                      int64_t m, const void *shift) {
  enum { PIECE = 512 };
  float wide[RP_FOLD_ROWS][PIECE];
  const void *pieces[RP_FOLD_ROWS];
  for (int64_t at = 0; at < m; at += PIECE) {
    const int64_t width = m - at < PIECE ? m - at : PIECE;
    for (int i = 0; i < n; i++) {
      rp_bf16_widen(wide[i], (const uint16_t *)row[i] + at, 1, width);
      pieces[i] = wide[i];
    }
    rows_f32(fold, (float *)y + at, pieces, n, width,
             shift ? (const float *)shift + at : NULL);
  }
}

/* ---- runs in pieces ------------------------------------------------------ */

static void begin(rp_fold fold, rp_running *so_far) {
  so_far->total = rp_fold_start(fold);
  for (int l = 0; l < RP_F64_LANES; l++)
    so_far->lane[l] = rp_fold_start(fold);
  so_far->odd = false;
}

/* f32 runs are joined block by block in any case. */
static void more_f32(rp_fold fold, rp_running *so_far, const void *x,
                     int64_t n) {
  so_far->total =
      rp_nan_join_f64(fold, so_far->total, run_f32(fold, x, n, 0));
}
static void more_bf16(rp_fold fold, rp_running *so_far, const void *x,
                      int64_t n) {
  so_far->total =
      rp_nan_join_f64(fold, so_far->total, run_bf16(fold, x, n, 0));
}
static double end_f32(rp_fold fold, rp_running *so_far) {
  (void)fold;
  return so_far->total;
}

static void more_f64(rp_fold fold, rp_running *so_far, const void *x,
                     int64_t n) {
  const double *v = x;
  double lane[RP_F64_LANES];
  memcpy(lane, so_far->lane, sizeof lane);
  switch (fold) {
    case RP_FOLD_SUM: rp_fold_lanes_f64(RP_FOLD_SUM, lane, v, n, 0); break;
    case RP_FOLD_SQUARES:
      rp_fold_lanes_f64(RP_FOLD_SQUARES, lane, v, n, 0);
      break;
    case RP_FOLD_TOP: rp_fold_lanes_f64(RP_FOLD_TOP, lane, v, n, 0); break;
    default: rp_fold_lanes_f64(RP_FOLD_BOTTOM, lane, v, n, 0); break;
  }
  memcpy(so_far->lane, lane, sizeof lane);
  uint64_t odd = 0;
  for (int64_t i = 0; rp_fold_is_extreme(fold) && i < n; i++)
    odd |= v[i] != v[i];
  so_far->odd |= odd != 0;
}
static double end_f64(rp_fold fold, rp_running *so_far) {
  return so_far->odd ? NAN : rp_lanes_join_f64(fold, so_far->lane);
}

const rp_folder rp_folder_f32 = {sizeof(float), sizeof(float), run_f32,
                                 begin, more_f32, end_f32, rows_f32,
                                 add_partial_f32, store_f32, finish_f32,
                                 load_f32};
const rp_folder rp_folder_f64 = {sizeof(double), sizeof(double), run_f64,
                                 begin, more_f64, end_f64, rows_f64,
                                 add_partial_f64, store_f64, finish_f64,
                                 load_f64};
const rp_folder rp_folder_bf16 = {sizeof(float), sizeof(uint16_t), run_bf16,
                                  begin, more_bf16, end_f32, rows_bf16,
                                  add_partial_f32, store_f32, finish_f32,
                                  load_f32};
