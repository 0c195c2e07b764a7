/* layer_norm and rms_norm. y may be written over x: the same array or another
   one, so that loops have no dependence between iterations (ivdep). */
#include "cpu/norm.h"
#include "graph/op.h"

enum { BLOCK = 256 }; /* of a row, to be narrowed or widened */

static double eps_of(const rp_kernel_args *args) {
  return args->n_reals > 0 ? args->reals[0] : 1e-5;
}

/* narrow: y is bf16. */
RP_INLINE void norm_row_f32(bool centred, bool narrow, const float *x,
                            const float *w, const float *b, void *y, int64_t n,
                            double eps, float *mean_out, float *rstd_out) {
  float mean = 0;
  double square;
  if (centred) {
    mean = (float)(rp_fold_f32(RP_FOLD_SUM, x, n, 0) / (double)n);
    square = rp_fold_f32(RP_FOLD_DEVIATION, x, n, mean);
    *mean_out = mean;
  } else {
    square = rp_fold_f32(RP_FOLD_SQUARES, x, n, 0);
  }
  const float rstd = (float)(1 / sqrt(square / (double)n + eps));
  *rstd_out = rstd;
  if (!narrow) {
    float *to = y;
#pragma GCC ivdep
    for (int64_t j = 0; j < n; j++)
      to[j] = centred ? (x[j] - mean) * rstd * w[j] + b[j] : x[j] * rstd * w[j];
    return;
  }
  float wide[BLOCK];
  for (int64_t at = 0; at < n; at += BLOCK) {
    const int64_t m = n - at < BLOCK ? n - at : BLOCK;
    for (int64_t j = 0; j < m; j++)
      wide[j] = centred ? (x[at + j] - mean) * rstd * w[at + j] + b[at + j]
                        : x[at + j] * rstd * w[at + j];
    rp_bf16_round((uint16_t *)y + at, wide, m);
  }
}

RP_INLINE void norm_row_bf16(bool centred, const uint16_t *x, const float *w,
                             const float *b, uint16_t *y, int64_t n,
                             double eps, float *mean_out, float *rstd_out) {
  float mean = 0;
  double square;
  if (centred) {
    mean = (float)(rp_fold_bf16(RP_FOLD_SUM, x, n, 0) / (double)n);
    square = rp_fold_bf16(RP_FOLD_DEVIATION, x, n, mean);
    *mean_out = mean;
  } else {
    square = rp_fold_bf16(RP_FOLD_SQUARES, x, n, 0);
  }
  const float rstd = (float)(1 / sqrt(square / (double)n + eps));
  *rstd_out = rstd;
  float wide[BLOCK];
  for (int64_t at = 0; at < n; at += BLOCK) {
    const int64_t m = n - at < BLOCK ? n - at : BLOCK;
    rp_bf16_widen(wide, x + at, 1, m);
    for (int64_t j = 0; j < m; j++)
      wide[j] = centred ? (wide[j] - mean) * rstd * w[at + j] + b[at + j]
                        : wide[j] * rstd * w[at + j];
    rp_bf16_round(y + at, wide, m);
  }
}

RP_INLINE void norm_row_f64(bool centred, const double *x, const double *w,
                            const double *b, double *y, int64_t n, double eps,
                            double *mean_out, double *rstd_out) {
  double mean = 0, square;
  if (centred) {
    mean = rp_fold_f64(RP_FOLD_SUM, x, n, 0) / (double)n;
    square = rp_fold_f64(RP_FOLD_DEVIATION, x, n, mean);
    *mean_out = mean;
  } else {
    square = rp_fold_f64(RP_FOLD_SQUARES, x, n, 0);
  }
  const double rstd = 1 / sqrt(square / (double)n + eps);
  *rstd_out = rstd;
#pragma GCC ivdep
  for (int64_t j = 0; j < n; j++)
    y[j] = centred ? (x[j] - mean) * rstd * w[j] + b[j] : x[j] * rstd * w[j];
}

RP_INLINE rp_status norm_f32(bool centred, bool narrow,
                             const rp_kernel_args *args) {
  const rp_array *in = args->in, *out = args->out;
  const shape s = shape_of(&in[0].type, &in[1].type);
  const float *x = in[0].data, *w = in[1].data;
  const float *b = centred ? in[2].data : NULL;
  char *y = out[0].data;
  float *mean = centred ? out[1].data : NULL, *rstd = out[centred ? 2 : 1].data;
  const int64_t row = s.width * (narrow ? 2 : 4);
#pragma omp parallel for schedule(static) if (rp_worth(s.rows * s.width))
  for (int64_t i = 0; i < s.rows; i++)
    norm_row_f32(centred, narrow, x + i * s.width, w, b, y + i * row, s.width,
                 eps_of(args), centred ? mean + i : NULL, rstd + i);
  return RP_OK;
}

static rp_status layer_norm_f32(const rp_kernel_args *args) {
  return norm_f32(true, false, args);
}
static rp_status layer_norm_cast(const rp_kernel_args *args) {
  return norm_f32(true, true, args);
}
static rp_status rms_norm_f32(const rp_kernel_args *args) {
  return norm_f32(false, false, args);
}
static rp_status rms_norm_cast(const rp_kernel_args *args) {
  return norm_f32(false, true, args);
}

static rp_status layer_norm_f64(const rp_kernel_args *args) {
  const rp_array *in = args->in, *out = args->out;
  const shape s = shape_of(&in[0].type, &in[1].type);
  const double *x = in[0].data, *w = in[1].data, *b = in[2].data;
  double *y = out[0].data, *mean = out[1].data, *rstd = out[2].data;
#pragma omp parallel for schedule(static) if (rp_worth(s.rows * s.width))
  for (int64_t i = 0; i < s.rows; i++)
    norm_row_f64(true, x + i * s.width, w, b, y + i * s.width, s.width,
                 eps_of(args), mean + i, rstd + i);
  return RP_OK;
}

static rp_status layer_norm_bf16(const rp_kernel_args *args) {
  const rp_array *in = args->in, *out = args->out;
  const shape s = shape_of(&in[0].type, &in[1].type);
  const uint16_t *x = in[0].data;
  const float *w = in[1].data, *b = in[2].data;
  uint16_t *y = out[0].data;
  float *mean = out[1].data, *rstd = out[2].data;
#pragma omp parallel for schedule(static) if (rp_worth(s.rows * s.width))
  for (int64_t i = 0; i < s.rows; i++)
    norm_row_bf16(true, x + i * s.width, w, b, y + i * s.width, s.width,
                  eps_of(args), mean + i, rstd + i);
  return RP_OK;
}

static rp_status rms_norm_bf16(const rp_kernel_args *args) {
  const rp_array *in = args->in, *out = args->out;
  const shape s = shape_of(&in[0].type, &in[1].type);
  const uint16_t *x = in[0].data;
  const float *w = in[1].data;
  uint16_t *y = out[0].data;
  float *rstd = out[1].data;
#pragma omp parallel for schedule(static) if (rp_worth(s.rows * s.width))
  for (int64_t i = 0; i < s.rows; i++)
    norm_row_bf16(false, x + i * s.width, w, NULL, y + i * s.width, s.width,
                  eps_of(args), NULL, rstd + i);
  return RP_OK;
}

static rp_status rms_norm_f64(const rp_kernel_args *args) {
  const rp_array *in = args->in, *out = args->out;
  const shape s = shape_of(&in[0].type, &in[1].type);
  const double *x = in[0].data, *w = in[1].data;
  double *y = out[0].data, *rstd = out[1].data;
#pragma omp parallel for schedule(static) if (rp_worth(s.rows * s.width))
  for (int64_t i = 0; i < s.rows; i++)
    norm_row_f64(false, x + i * s.width, w, NULL, y + i * s.width, s.width,
                 eps_of(args), NULL, rstd + i);
  return RP_OK;
}

extern const rp_op rp_op_layer_norm, rp_op_rms_norm, rp_op_layer_norm_cast,
    rp_op_rms_norm_cast;

static const rp_kernel rows[] = {
    {&rp_op_layer_norm, RP_F32, layer_norm_f32, NULL, NULL},
    {&rp_op_layer_norm, RP_F64, layer_norm_f64, NULL, NULL},
    {&rp_op_layer_norm, RP_BF16, layer_norm_bf16, NULL, NULL},
    {&rp_op_rms_norm, RP_BF16, rms_norm_bf16, NULL, NULL},
    {&rp_op_rms_norm, RP_F32, rms_norm_f32, NULL, NULL},
    {&rp_op_rms_norm, RP_F64, rms_norm_f64, NULL, NULL},
    {&rp_op_layer_norm_cast, RP_F32, layer_norm_cast, NULL, NULL},
    {&rp_op_rms_norm_cast, RP_F32, rms_norm_cast, NULL, NULL},
};
const rp_kernel_table rp_cpu_norm = {rows, sizeof rows / sizeof *rows};
