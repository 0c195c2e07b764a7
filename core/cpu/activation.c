/* Kernels of core/ops/activation.c. A gradient's row reads dy, then what the
   record says. */
#include "cpu/elementwise.h"

/* ---- relu ---------------------------------------------------------------- */

/* NaN stays NaN. */
static inline float rectified_f32(float x) { return x < 0.0f ? 0.0f : x; }
static inline double rectified_f64(double x) { return x < 0.0 ? 0.0 : x; }
static inline int32_t rectified_i32(int32_t x) { return x < 0 ? 0 : x; }
static inline int64_t rectified_i64(int64_t x) { return x < 0 ? 0 : x; }

static void relu_f32(const rp_row *row) { rp_map_f32(row, rectified_f32); }
static void relu_f64(const rp_row *row) { rp_map_f64(row, rectified_f64); }
static void relu_i32(const rp_row *row) { rp_map_i32(row, rectified_i32); }
static void relu_i64(const rp_row *row) { rp_map_i64(row, rectified_i64); }
static rp_status run_relu(const rp_kernel_args *args) {
  static const rp_rows rows = {relu_f32, relu_f64, relu_i32, relu_i64, NULL};
  return rp_rows_run_typed(args, &rows);
}

static inline float relu_slope_f32(float dy, float y) {
  return y > 0.0f ? dy : 0.0f;
}
static inline double relu_slope_f64(double dy, double y) {
  return y > 0.0 ? dy : 0.0;
}

static void relu_grad_f32(const rp_row *row) {
  rp_map2_f32(row, relu_slope_f32);
}
static void relu_grad_f64(const rp_row *row) {
  rp_map2_f64(row, relu_slope_f64);
}
static rp_status run_relu_grad(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = relu_grad_f32, .f64 = relu_grad_f64};
  return rp_rows_run_typed(args, &rows);
}

/* ---- tanh, sigmoid ------------------------------------------------------- */

static void tanh_f32(const rp_row *row) { rp_map_f32(row, rp_tanh_f32); }
static void tanh_f64(const rp_row *row) { rp_map_f64(row, rp_tanh_f64); }
static rp_status run_tanh(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = tanh_f32, .f64 = tanh_f64};
  return rp_rows_run_typed(args, &rows);
}

static inline float tanh_slope_f32(float dy, float y) {
  return dy * (1.0f - y * y);
}
static inline double tanh_slope_f64(double dy, double y) {
  return dy * (1.0 - y * y);
}

static void tanh_grad_f32(const rp_row *row) {
  rp_map2_f32(row, tanh_slope_f32);
}
static void tanh_grad_f64(const rp_row *row) {
  rp_map2_f64(row, tanh_slope_f64);
}
static rp_status run_tanh_grad(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = tanh_grad_f32, .f64 = tanh_grad_f64};
  return rp_rows_run_typed(args, &rows);
}

static void sigmoid_f32(const rp_row *row) { rp_map_f32(row, rp_sigmoid_f32); }
static void sigmoid_f64(const rp_row *row) { rp_map_f64(row, rp_sigmoid_f64); }
static rp_status run_sigmoid(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = sigmoid_f32, .f64 = sigmoid_f64};
  return rp_rows_run_typed(args, &rows);
}

static inline float sigmoid_slope_f32(float dy, float y) {
  return dy * (y * (1.0f - y));
}
static inline double sigmoid_slope_f64(double dy, double y) {
  return dy * (y * (1.0 - y));
}

static void sigmoid_grad_f32(const rp_row *row) {
  rp_map2_f32(row, sigmoid_slope_f32);
}
static void sigmoid_grad_f64(const rp_row *row) {
  rp_map2_f64(row, sigmoid_slope_f64);
}
static rp_status run_sigmoid_grad(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = sigmoid_grad_f32,
                               .f64 = sigmoid_grad_f64};
  return rp_rows_run_typed(args, &rows);
}

/* ---- silu ---------------------------------------------------------------- */

static inline float swish_f32(float x) { return x / (1.0f + rp_exp_f32(-x)); }
static inline double swish_f64(double x) { return x / (1.0 + rp_exp_f64(-x)); }

static void silu_f32(const rp_row *row) { rp_map_f32(row, swish_f32); }
static void silu_f64(const rp_row *row) { rp_map_f64(row, swish_f64); }
static rp_status run_silu(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = silu_f32, .f64 = silu_f64};
  return rp_rows_run_typed(args, &rows);
}

static inline float silu_slope_f32(float dy, float x) {
  const float s = rp_sigmoid_f32(x);
  return dy * (s * (1.0f + x * (1.0f - s)));
}
static inline double silu_slope_f64(double dy, double x) {
  const double s = rp_sigmoid_f64(x);
  return dy * (s * (1.0 + x * (1.0 - s)));
}

static void silu_grad_f32(const rp_row *row) {
  rp_map2_f32(row, silu_slope_f32);
}
static void silu_grad_f64(const rp_row *row) {
  rp_map2_f64(row, silu_slope_f64);
}
static rp_status run_silu_grad(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = silu_grad_f32, .f64 = silu_grad_f64};
  return rp_rows_run_typed(args, &rows);
}

/* ---- gelu: x P(x), P the normal distribution function -------------------- */

static inline float normal_cdf_f32(float x) {
  return 0.5f * (1.0f + rp_erf_f32(x * 0x1.6a09e6p-1f));
}
static inline double normal_cdf_f64(double x) {
  return 0.5 * (1.0 + rp_erf_f64(x * 0x1.6a09e667f3bcdp-1));
}
static inline float gelu_one_f32(float x) { return x * normal_cdf_f32(x); }
static inline double gelu_one_f64(double x) { return x * normal_cdf_f64(x); }

static void gelu_f32(const rp_row *row) { rp_map_f32(row, gelu_one_f32); }
static void gelu_f64(const rp_row *row) { rp_map_f64(row, gelu_one_f64); }
static rp_status run_gelu(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = gelu_f32, .f64 = gelu_f64};
  return rp_rows_run_typed(args, &rows);
}

/* P(x) + x p(x), p(x) = exp(-x^2/2) / sqrt(2 pi). */
static inline float gelu_slope_f32(float dy, float x) {
  const float density = 0x1.988454p-2f * rp_exp_f32(-0.5f * x * x);
  return dy * (normal_cdf_f32(x) + x * density);
}
static inline double gelu_slope_f64(double dy, double x) {
  const double density = 0x1.9884533d43651p-2 * rp_exp_f64(-0.5 * x * x);
  return dy * (normal_cdf_f64(x) + x * density);
}

static void gelu_grad_f32(const rp_row *row) {
  rp_map2_f32(row, gelu_slope_f32);
}
static void gelu_grad_f64(const rp_row *row) {
  rp_map2_f64(row, gelu_slope_f64);
}
static rp_status run_gelu_grad(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = gelu_grad_f32, .f64 = gelu_grad_f64};
  return rp_rows_run_typed(args, &rows);
}

/* ---- gelu_tanh ----------------------------------------------------------- */

/* (1 + tanh u)/2 = sigmoid(2u): shorter, and no cancellation where u < 0.
   2u = 2 sqrt(2/pi) (x + 0.044715 x^3) and its derivative. */
static inline float twice_u_f32(float x) {
  return 0x1.988454p+0f * (x + 0.044715f * (x * x * x));
}
static inline double twice_u_f64(double x) {
  return 0x1.9884533d43651p+0 * (x + 0.044715 * (x * x * x));
}
static inline float gelu_tanh_one_f32(float x) {
  return x * rp_sigmoid_f32(twice_u_f32(x));
}
static inline double gelu_tanh_one_f64(double x) {
  return x * rp_sigmoid_f64(twice_u_f64(x));
}

static void gelu_tanh_f32(const rp_row *row) {
  rp_map_f32(row, gelu_tanh_one_f32);
}
static void gelu_tanh_f64(const rp_row *row) {
  rp_map_f64(row, gelu_tanh_one_f64);
}
static rp_status run_gelu_tanh(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = gelu_tanh_f32, .f64 = gelu_tanh_f64};
  return rp_rows_run_typed(args, &rows);
}

static inline float gelu_tanh_slope_f32(float dy, float x) {
  const float s = rp_sigmoid_f32(twice_u_f32(x));
  const float du = 0x1.988454p+0f * (1.0f + 0.134145f * (x * x));
  return dy * (s + x * (s * (1.0f - s)) * du);
}
static inline double gelu_tanh_slope_f64(double dy, double x) {
  const double s = rp_sigmoid_f64(twice_u_f64(x));
  const double du = 0x1.9884533d43651p+0 * (1.0 + 0.134145 * (x * x));
  return dy * (s + x * (s * (1.0 - s)) * du);
}

static void gelu_tanh_grad_f32(const rp_row *row) {
  rp_map2_f32(row, gelu_tanh_slope_f32);
}
static void gelu_tanh_grad_f64(const rp_row *row) {
  rp_map2_f64(row, gelu_tanh_slope_f64);
}
static rp_status run_gelu_tanh_grad(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = gelu_tanh_grad_f32,
                               .f64 = gelu_tanh_grad_f64};
  return rp_rows_run_typed(args, &rows);
}

/* ---- rows ---------------------------------------------------------------- */

extern const rp_op rp_op_relu, rp_op_relu_grad, rp_op_tanh, rp_op_tanh_grad,
    rp_op_sigmoid, rp_op_sigmoid_grad, rp_op_silu, rp_op_silu_grad, rp_op_gelu,
    rp_op_gelu_grad, rp_op_gelu_tanh, rp_op_gelu_tanh_grad;

static const rp_kernel rows[] = {
    {&rp_op_relu, RP_F32, run_relu, NULL, NULL},
    {&rp_op_relu, RP_F64, run_relu, NULL, NULL},
    {&rp_op_relu, RP_BF16, run_relu, NULL, NULL},
    {&rp_op_relu, RP_I32, run_relu, NULL, NULL},
    {&rp_op_relu, RP_I64, run_relu, NULL, NULL},
    {&rp_op_relu_grad, RP_F32, run_relu_grad, NULL, NULL},
    {&rp_op_relu_grad, RP_F64, run_relu_grad, NULL, NULL},
    {&rp_op_relu_grad, RP_BF16, run_relu_grad, NULL, NULL},
    {&rp_op_tanh, RP_F32, run_tanh, NULL, NULL},
    {&rp_op_tanh, RP_F64, run_tanh, NULL, NULL},
    {&rp_op_tanh, RP_BF16, run_tanh, NULL, NULL},
    {&rp_op_tanh_grad, RP_F32, run_tanh_grad, NULL, NULL},
    {&rp_op_tanh_grad, RP_F64, run_tanh_grad, NULL, NULL},
    {&rp_op_tanh_grad, RP_BF16, run_tanh_grad, NULL, NULL},
    {&rp_op_sigmoid, RP_F32, run_sigmoid, NULL, NULL},
    {&rp_op_sigmoid, RP_F64, run_sigmoid, NULL, NULL},
    {&rp_op_sigmoid, RP_BF16, run_sigmoid, NULL, NULL},
    {&rp_op_sigmoid_grad, RP_F32, run_sigmoid_grad, NULL, NULL},
    {&rp_op_sigmoid_grad, RP_F64, run_sigmoid_grad, NULL, NULL},
    {&rp_op_sigmoid_grad, RP_BF16, run_sigmoid_grad, NULL, NULL},
    {&rp_op_silu, RP_F32, run_silu, NULL, NULL},
    {&rp_op_silu, RP_F64, run_silu, NULL, NULL},
    {&rp_op_silu, RP_BF16, run_silu, NULL, NULL},
    {&rp_op_silu_grad, RP_F32, run_silu_grad, NULL, NULL},
    {&rp_op_silu_grad, RP_F64, run_silu_grad, NULL, NULL},
    {&rp_op_silu_grad, RP_BF16, run_silu_grad, NULL, NULL},
    {&rp_op_gelu, RP_F32, run_gelu, NULL, NULL},
    {&rp_op_gelu, RP_F64, run_gelu, NULL, NULL},
    {&rp_op_gelu, RP_BF16, run_gelu, NULL, NULL},
    {&rp_op_gelu_grad, RP_F32, run_gelu_grad, NULL, NULL},
    {&rp_op_gelu_grad, RP_F64, run_gelu_grad, NULL, NULL},
    {&rp_op_gelu_grad, RP_BF16, run_gelu_grad, NULL, NULL},
    {&rp_op_gelu_tanh, RP_F32, run_gelu_tanh, NULL, NULL},
    {&rp_op_gelu_tanh, RP_F64, run_gelu_tanh, NULL, NULL},
    {&rp_op_gelu_tanh, RP_BF16, run_gelu_tanh, NULL, NULL},
    {&rp_op_gelu_tanh_grad, RP_F32, run_gelu_tanh_grad, NULL, NULL},
    {&rp_op_gelu_tanh_grad, RP_F64, run_gelu_tanh_grad, NULL, NULL},
    {&rp_op_gelu_tanh_grad, RP_BF16, run_gelu_tanh_grad, NULL, NULL},
};
const rp_kernel_table rp_cpu_activation = {rows, sizeof rows / sizeof *rows};
