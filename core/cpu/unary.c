/* Kernels of core/ops/unary.c. */
#include "cpu/elementwise.h"

/* ---- neg, abs, sign, square ---------------------------------------------- */

static inline float negated_f32(float x) { return -x; }
static inline double negated_f64(double x) { return -x; }
static inline int32_t negated_i32(int32_t x) {
  return (int32_t)(0u - (uint32_t)x);
}
static inline int64_t negated_i64(int64_t x) {
  return (int64_t)(0u - (uint64_t)x);
}

static void neg_f32(const rp_row *row) { rp_map_f32(row, negated_f32); }
static void neg_f64(const rp_row *row) { rp_map_f64(row, negated_f64); }
static void neg_i32(const rp_row *row) { rp_map_i32(row, negated_i32); }
static void neg_i64(const rp_row *row) { rp_map_i64(row, negated_i64); }
static rp_status run_neg(const rp_kernel_args *args) {
  static const rp_rows rows = {neg_f32, neg_f64, neg_i32, neg_i64, NULL};
  return rp_rows_run_typed(args, &rows);
}

static inline int32_t magnitude_i32(int32_t x) {
  return x < 0 ? negated_i32(x) : x;
}
static inline int64_t magnitude_i64(int64_t x) {
  return x < 0 ? negated_i64(x) : x;
}

static void abs_f32(const rp_row *row) { rp_map_f32(row, rp_abs_f32); }
static void abs_f64(const rp_row *row) { rp_map_f64(row, rp_abs_f64); }
static void abs_i32(const rp_row *row) { rp_map_i32(row, magnitude_i32); }
static void abs_i64(const rp_row *row) { rp_map_i64(row, magnitude_i64); }
static rp_status run_abs(const rp_kernel_args *args) {
  static const rp_rows rows = {abs_f32, abs_f64, abs_i32, abs_i64, NULL};
  return rp_rows_run_typed(args, &rows);
}

/* 0 for NaN, as PyTorch has it. */
static inline float signum_f32(float x) {
  return (float)((x > 0.0f) - (x < 0.0f));
}
static inline double signum_f64(double x) {
  return (double)((x > 0.0) - (x < 0.0));
}
static inline int32_t signum_i32(int32_t x) { return (x > 0) - (x < 0); }
static inline int64_t signum_i64(int64_t x) { return (x > 0) - (x < 0); }

static void sign_f32(const rp_row *row) { rp_map_f32(row, signum_f32); }
static void sign_f64(const rp_row *row) { rp_map_f64(row, signum_f64); }
static void sign_i32(const rp_row *row) { rp_map_i32(row, signum_i32); }
static void sign_i64(const rp_row *row) { rp_map_i64(row, signum_i64); }
static rp_status run_sign(const rp_kernel_args *args) {
  static const rp_rows rows = {sign_f32, sign_f64, sign_i32, sign_i64, NULL};
  return rp_rows_run_typed(args, &rows);
}

static inline float squared_f32(float x) { return x * x; }
static inline double squared_f64(double x) { return x * x; }
static inline int32_t squared_i32(int32_t x) {
  return (int32_t)((uint32_t)x * (uint32_t)x);
}
static inline int64_t squared_i64(int64_t x) {
  return (int64_t)((uint64_t)x * (uint64_t)x);
}

static void square_f32(const rp_row *row) { rp_map_f32(row, squared_f32); }
static void square_f64(const rp_row *row) { rp_map_f64(row, squared_f64); }
static void square_i32(const rp_row *row) { rp_map_i32(row, squared_i32); }
static void square_i64(const rp_row *row) { rp_map_i64(row, squared_i64); }
static rp_status run_square(const rp_kernel_args *args) {
  static const rp_rows rows = {square_f32, square_f64, square_i32, square_i64,
                               NULL};
  return rp_rows_run_typed(args, &rows);
}

/* ---- exp, log, erf ------------------------------------------------------- */

static void exp_f32(const rp_row *row) { rp_map_f32(row, rp_exp_f32); }
static void exp_f64(const rp_row *row) { rp_map_f64(row, rp_exp_f64); }
static rp_status run_exp(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = exp_f32, .f64 = exp_f64};
  return rp_rows_run_typed(args, &rows);
}

static void log_f32(const rp_row *row) { rp_map_f32(row, rp_log_f32); }
static void log_f64(const rp_row *row) { rp_map_f64(row, rp_log_f64); }
static rp_status run_log(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = log_f32, .f64 = log_f64};
  return rp_rows_run_typed(args, &rows);
}

static void erf_f32(const rp_row *row) { rp_map_f32(row, rp_erf_f32); }
static void erf_f64(const rp_row *row) { rp_map_f64(row, rp_erf_f64); }
static rp_status run_erf(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = erf_f32, .f64 = erf_f64};
  return rp_rows_run_typed(args, &rows);
}

/* ---- sqrt, rsqrt, reciprocal --------------------------------------------- */

static inline float root_f32(float x) { return sqrtf(x); }
static inline double root_f64(double x) { return sqrt(x); }
static inline float inverse_root_f32(float x) { return 1.0f / sqrtf(x); }
static inline double inverse_root_f64(double x) { return 1.0 / sqrt(x); }
static inline float inverse_f32(float x) { return 1.0f / x; }
static inline double inverse_f64(double x) { return 1.0 / x; }

static void sqrt_f32(const rp_row *row) { rp_map_f32(row, root_f32); }
static void sqrt_f64(const rp_row *row) { rp_map_f64(row, root_f64); }
static rp_status run_sqrt(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = sqrt_f32, .f64 = sqrt_f64};
  return rp_rows_run_typed(args, &rows);
}

static void rsqrt_f32(const rp_row *row) { rp_map_f32(row, inverse_root_f32); }
static void rsqrt_f64(const rp_row *row) { rp_map_f64(row, inverse_root_f64); }
static rp_status run_rsqrt(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = rsqrt_f32, .f64 = rsqrt_f64};
  return rp_rows_run_typed(args, &rows);
}

static void reciprocal_f32(const rp_row *row) { rp_map_f32(row, inverse_f32); }
static void reciprocal_f64(const rp_row *row) { rp_map_f64(row, inverse_f64); }
static rp_status run_reciprocal(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = reciprocal_f32, .f64 = reciprocal_f64};
  return rp_rows_run_typed(args, &rows);
}

/* ---- sin, cos ------------------------------------------------------------ */

/* Angles beyond RP_ANGLE_LIMIT are rare and slow: a row that has one takes
   the slow loop, whose bits are the fast one's everywhere else. */
static bool has_large_f32(const rp_row *row) {
  const float *x = row->in[0];
  const int64_t n = row->n, s = row->strides[0];
  int large = 0;
  for (int64_t i = 0; i < n; i++)
    large |= rp_abs_f32(x[i * s]) > (float)RP_ANGLE_LIMIT;
  return large;
}
static bool has_large_f64(const rp_row *row) {
  const double *x = row->in[0];
  const int64_t n = row->n, s = row->strides[0];
  int large = 0;
  for (int64_t i = 0; i < n; i++)
    large |= rp_abs_f64(x[i * s]) > RP_ANGLE_LIMIT;
  return large;
}

static void sin_f32(const rp_row *row) {
  if (has_large_f32(row)) rp_map_f32(row, rp_sin_any_f32);
  else rp_map_f32(row, rp_sin_f32);
}
static void sin_f64(const rp_row *row) {
  if (has_large_f64(row)) rp_map_f64(row, rp_sin_any_f64);
  else rp_map_f64(row, rp_sin_f64);
}
static rp_status run_sin(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = sin_f32, .f64 = sin_f64};
  return rp_rows_run_typed(args, &rows);
}

static void cos_f32(const rp_row *row) {
  if (has_large_f32(row)) rp_map_f32(row, rp_cos_any_f32);
  else rp_map_f32(row, rp_cos_f32);
}
static void cos_f64(const rp_row *row) {
  if (has_large_f64(row)) rp_map_f64(row, rp_cos_any_f64);
  else rp_map_f64(row, rp_cos_f64);
}
static rp_status run_cos(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = cos_f32, .f64 = cos_f64};
  return rp_rows_run_typed(args, &rows);
}

/* ---- pow_scalar ---------------------------------------------------------- */

static inline float identity_f32(float x) { return x; }
static inline double identity_f64(double x) { return x; }
static inline float one_f32(float x) { return (void)x, 1.0f; }
static inline double one_f64(double x) { return (void)x, 1.0; }
static inline float cubed_f32(float x) { return x * x * x; }
static inline double cubed_f64(double x) { return x * x * x; }
static inline float inverse_square_f32(float x) { return 1.0f / (x * x); }
static inline double inverse_square_f64(double x) { return 1.0 / (x * x); }

/* Exponents that have an exact or a shorter form take it, as in PyTorch. */
static void pow_scalar_f32(const rp_row *row) {
  const double p = row->args->reals[0];
  const float exponent = (float)p;
  if (p == 2.0) rp_map_f32(row, squared_f32);
  else if (p == 0.5) rp_map_f32(row, root_f32);
  else if (p == 3.0) rp_map_f32(row, cubed_f32);
  else if (p == -1.0) rp_map_f32(row, inverse_f32);
  else if (p == -2.0) rp_map_f32(row, inverse_square_f32);
  else if (p == -0.5) rp_map_f32(row, inverse_root_f32);
  else if (p == 1.0) rp_map_f32(row, identity_f32);
  else if (p == 0.0) rp_map_f32(row, one_f32);
  else {
    rp_row pair = *row;
    pair.in[1] = &exponent, pair.strides[1] = 0;
    rp_map2_f32(&pair, rp_pow_f32);
  }
}
static void pow_scalar_f64(const rp_row *row) {
  const double p = row->args->reals[0];
  if (p == 2.0) rp_map_f64(row, squared_f64);
  else if (p == 0.5) rp_map_f64(row, root_f64);
  else if (p == 3.0) rp_map_f64(row, cubed_f64);
  else if (p == -1.0) rp_map_f64(row, inverse_f64);
  else if (p == -2.0) rp_map_f64(row, inverse_square_f64);
  else if (p == -0.5) rp_map_f64(row, inverse_root_f64);
  else if (p == 1.0) rp_map_f64(row, identity_f64);
  else if (p == 0.0) rp_map_f64(row, one_f64);
  else {
    rp_row pair = *row;
    pair.in[1] = &p, pair.strides[1] = 0;
    rp_map2_f64(&pair, rp_pow_f64);
  }
}
static void pow_scalar_i32(const rp_row *row) {
  const int32_t exponent = (int32_t)row->args->reals[0];
  rp_row pair = *row;
  pair.in[1] = &exponent, pair.strides[1] = 0;
  rp_map2_i32(&pair, rp_power_i32);
}
static void pow_scalar_i64(const rp_row *row) {
  const int64_t exponent = (int64_t)row->args->reals[0];
  rp_row pair = *row;
  pair.in[1] = &exponent, pair.strides[1] = 0;
  rp_map2_i64(&pair, rp_power_i64);
}
static rp_status run_pow_scalar(const rp_kernel_args *args) {
  static const rp_rows rows = {pow_scalar_f32, pow_scalar_f64, pow_scalar_i32,
                               pow_scalar_i64, NULL};
  return rp_rows_run_typed(args, &rows);
}

/* ---- clamp --------------------------------------------------------------- */

/* The nearest integer inside the bound; infinities saturate. */
static int64_t bound_i64(double bound, int64_t low, int64_t high) {
  if (bound <= (double)low) return low;
  return bound >= (double)high ? high : (int64_t)bound;
}

/* NaN stays; hi wins where lo > hi. */
static void clamp_f32(const rp_row *row) {
  const float lo = (float)row->args->reals[0], hi = (float)row->args->reals[1];
  const float *x = row->in[0];
  float *y = row->out;
  const int64_t n = row->n, s = row->strides[0];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    const float v = x[i * s] < lo ? lo : x[i * s];
    y[i] = v > hi ? hi : v;
  }
}
static void clamp_f64(const rp_row *row) {
  const double lo = row->args->reals[0], hi = row->args->reals[1];
  const double *x = row->in[0];
  double *y = row->out;
  const int64_t n = row->n, s = row->strides[0];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    const double v = x[i * s] < lo ? lo : x[i * s];
    y[i] = v > hi ? hi : v;
  }
}
static void clamp_i32(const rp_row *row) {
  const double *bounds = row->args->reals;
  const int32_t lo =
      (int32_t)bound_i64(ceil(bounds[0]), INT32_MIN, INT32_MAX);
  const int32_t hi =
      (int32_t)bound_i64(floor(bounds[1]), INT32_MIN, INT32_MAX);
  const int32_t *x = row->in[0];
  int32_t *y = row->out;
  const int64_t n = row->n, s = row->strides[0];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    const int32_t v = x[i * s] < lo ? lo : x[i * s];
    y[i] = v > hi ? hi : v;
  }
}
static void clamp_i64(const rp_row *row) {
  const double *bounds = row->args->reals;
  const int64_t lo = bound_i64(ceil(bounds[0]), INT64_MIN, INT64_MAX);
  const int64_t hi = bound_i64(floor(bounds[1]), INT64_MIN, INT64_MAX);
  const int64_t *x = row->in[0];
  int64_t *y = row->out;
  const int64_t n = row->n, s = row->strides[0];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    const int64_t v = x[i * s] < lo ? lo : x[i * s];
    y[i] = v > hi ? hi : v;
  }
}
static rp_status run_clamp(const rp_kernel_args *args) {
  static const rp_rows rows = {clamp_f32, clamp_f64, clamp_i32, clamp_i64,
                               NULL};
  return rp_rows_run_typed(args, &rows);
}

static void clamp_grad_f32(const rp_row *row) {
  const float lo = (float)row->args->reals[0], hi = (float)row->args->reals[1];
  const float *dy = row->in[0], *x = row->in[1];
  float *dx = row->out;
  const int64_t n = row->n, s = row->strides[0], t = row->strides[1];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++)
    dx[i] = (x[i * t] >= lo) & (x[i * t] <= hi) ? dy[i * s] : 0.0f;
}
static void clamp_grad_f64(const rp_row *row) {
  const double lo = row->args->reals[0], hi = row->args->reals[1];
  const double *dy = row->in[0], *x = row->in[1];
  double *dx = row->out;
  const int64_t n = row->n, s = row->strides[0], t = row->strides[1];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++)
    dx[i] = (x[i * t] >= lo) & (x[i * t] <= hi) ? dy[i * s] : 0.0;
}
static rp_status run_clamp_grad(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = clamp_grad_f32, .f64 = clamp_grad_f64};
  return rp_rows_run_typed(args, &rows);
}

/* ---- rows ---------------------------------------------------------------- */

extern const rp_op rp_op_neg, rp_op_abs, rp_op_sign, rp_op_square, rp_op_exp,
    rp_op_log, rp_op_erf, rp_op_sqrt, rp_op_rsqrt, rp_op_reciprocal, rp_op_sin,
    rp_op_cos, rp_op_pow_scalar, rp_op_clamp, rp_op_clamp_grad;

static const rp_kernel rows[] = {
    {&rp_op_neg, RP_F32, run_neg, NULL, NULL},
    {&rp_op_neg, RP_F64, run_neg, NULL, NULL},
    {&rp_op_neg, RP_BF16, run_neg, NULL, NULL},
    {&rp_op_neg, RP_I32, run_neg, NULL, NULL},
    {&rp_op_neg, RP_I64, run_neg, NULL, NULL},
    {&rp_op_abs, RP_F32, run_abs, NULL, NULL},
    {&rp_op_abs, RP_F64, run_abs, NULL, NULL},
    {&rp_op_abs, RP_BF16, run_abs, NULL, NULL},
    {&rp_op_abs, RP_I32, run_abs, NULL, NULL},
    {&rp_op_abs, RP_I64, run_abs, NULL, NULL},
    {&rp_op_sign, RP_F32, run_sign, NULL, NULL},
    {&rp_op_sign, RP_F64, run_sign, NULL, NULL},
    {&rp_op_sign, RP_BF16, run_sign, NULL, NULL},
    {&rp_op_sign, RP_I32, run_sign, NULL, NULL},
    {&rp_op_sign, RP_I64, run_sign, NULL, NULL},
    {&rp_op_square, RP_F32, run_square, NULL, NULL},
    {&rp_op_square, RP_F64, run_square, NULL, NULL},
    {&rp_op_square, RP_BF16, run_square, NULL, NULL},
    {&rp_op_square, RP_I32, run_square, NULL, NULL},
    {&rp_op_square, RP_I64, run_square, NULL, NULL},
    {&rp_op_exp, RP_F32, run_exp, NULL, NULL},
    {&rp_op_exp, RP_F64, run_exp, NULL, NULL},
    {&rp_op_exp, RP_BF16, run_exp, NULL, NULL},
    {&rp_op_log, RP_F32, run_log, NULL, NULL},
    {&rp_op_log, RP_F64, run_log, NULL, NULL},
    {&rp_op_log, RP_BF16, run_log, NULL, NULL},
    {&rp_op_erf, RP_F32, run_erf, NULL, NULL},
    {&rp_op_erf, RP_F64, run_erf, NULL, NULL},
    {&rp_op_erf, RP_BF16, run_erf, NULL, NULL},
    {&rp_op_sqrt, RP_F32, run_sqrt, NULL, NULL},
    {&rp_op_sqrt, RP_F64, run_sqrt, NULL, NULL},
    {&rp_op_sqrt, RP_BF16, run_sqrt, NULL, NULL},
    {&rp_op_rsqrt, RP_F32, run_rsqrt, NULL, NULL},
    {&rp_op_rsqrt, RP_F64, run_rsqrt, NULL, NULL},
    {&rp_op_rsqrt, RP_BF16, run_rsqrt, NULL, NULL},
    {&rp_op_reciprocal, RP_F32, run_reciprocal, NULL, NULL},
    {&rp_op_reciprocal, RP_F64, run_reciprocal, NULL, NULL},
    {&rp_op_reciprocal, RP_BF16, run_reciprocal, NULL, NULL},
    {&rp_op_sin, RP_F32, run_sin, NULL, NULL},
    {&rp_op_sin, RP_F64, run_sin, NULL, NULL},
    {&rp_op_sin, RP_BF16, run_sin, NULL, NULL},
    {&rp_op_cos, RP_F32, run_cos, NULL, NULL},
    {&rp_op_cos, RP_F64, run_cos, NULL, NULL},
    {&rp_op_cos, RP_BF16, run_cos, NULL, NULL},
    {&rp_op_pow_scalar, RP_F32, run_pow_scalar, NULL, NULL},
    {&rp_op_pow_scalar, RP_F64, run_pow_scalar, NULL, NULL},
    {&rp_op_pow_scalar, RP_BF16, run_pow_scalar, NULL, NULL},
    {&rp_op_pow_scalar, RP_I32, run_pow_scalar, NULL, NULL},
    {&rp_op_pow_scalar, RP_I64, run_pow_scalar, NULL, NULL},
    {&rp_op_clamp, RP_F32, run_clamp, NULL, NULL},
    {&rp_op_clamp, RP_F64, run_clamp, NULL, NULL},
    {&rp_op_clamp, RP_BF16, run_clamp, NULL, NULL},
    {&rp_op_clamp, RP_I32, run_clamp, NULL, NULL},
    {&rp_op_clamp, RP_I64, run_clamp, NULL, NULL},
    {&rp_op_clamp_grad, RP_F32, run_clamp_grad, NULL, NULL},
    {&rp_op_clamp_grad, RP_F64, run_clamp_grad, NULL, NULL},
    {&rp_op_clamp_grad, RP_BF16, run_clamp_grad, NULL, NULL},
};
const rp_kernel_table rp_cpu_unary = {rows, sizeof rows / sizeof *rows};
