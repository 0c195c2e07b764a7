/* Kernels of core/ops/binary.c. */
#include "cpu/elementwise.h"

/* ---- add, sub, mul, div -------------------------------------------------- */

/* Integers wrap around. */
static inline float sum_f32(float a, float b) { return a + b; }
static inline double sum_f64(double a, double b) { return a + b; }
static inline int32_t sum_i32(int32_t a, int32_t b) {
  return (int32_t)((uint32_t)a + (uint32_t)b);
}
static inline int64_t sum_i64(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a + (uint64_t)b);
}

static void add_f32(const rp_row *row) { rp_map2_f32(row, sum_f32); }
static void add_f64(const rp_row *row) { rp_map2_f64(row, sum_f64); }
static void add_i32(const rp_row *row) { rp_map2_i32(row, sum_i32); }
static void add_i64(const rp_row *row) { rp_map2_i64(row, sum_i64); }
static rp_status run_add(const rp_kernel_args *args) {
  static const rp_rows rows = {add_f32, add_f64, add_i32, add_i64, NULL};
  return rp_rows_run_typed(args, &rows);
}

static inline float difference_f32(float a, float b) { return a - b; }
static inline double difference_f64(double a, double b) { return a - b; }
static inline int32_t difference_i32(int32_t a, int32_t b) {
  return (int32_t)((uint32_t)a - (uint32_t)b);
}
static inline int64_t difference_i64(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a - (uint64_t)b);
}

static void sub_f32(const rp_row *row) { rp_map2_f32(row, difference_f32); }
static void sub_f64(const rp_row *row) { rp_map2_f64(row, difference_f64); }
static void sub_i32(const rp_row *row) { rp_map2_i32(row, difference_i32); }
static void sub_i64(const rp_row *row) { rp_map2_i64(row, difference_i64); }
static rp_status run_sub(const rp_kernel_args *args) {
  static const rp_rows rows = {sub_f32, sub_f64, sub_i32, sub_i64, NULL};
  return rp_rows_run_typed(args, &rows);
}

static inline float product_f32(float a, float b) { return a * b; }
static inline double product_f64(double a, double b) { return a * b; }
static inline int32_t product_i32(int32_t a, int32_t b) {
  return (int32_t)((uint32_t)a * (uint32_t)b);
}
static inline int64_t product_i64(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a * (uint64_t)b);
}

static void mul_f32(const rp_row *row) { rp_map2_f32(row, product_f32); }
static void mul_f64(const rp_row *row) { rp_map2_f64(row, product_f64); }
static void mul_i32(const rp_row *row) { rp_map2_i32(row, product_i32); }
static void mul_i64(const rp_row *row) { rp_map2_i64(row, product_i64); }
static rp_status run_mul(const rp_kernel_args *args) {
  static const rp_rows rows = {mul_f32, mul_f64, mul_i32, mul_i64, NULL};
  return rp_rows_run_typed(args, &rows);
}

/* Integers truncate; a divisor of 0 gives 0, and one of -1 wraps around. */
static inline float quotient_f32(float a, float b) { return a / b; }
static inline double quotient_f64(double a, double b) { return a / b; }
static inline int32_t quotient_i32(int32_t a, int32_t b) {
  if (b == 0) return 0;
  return b == -1 ? (int32_t)(0u - (uint32_t)a) : a / b;
}
static inline int64_t quotient_i64(int64_t a, int64_t b) {
  if (b == 0) return 0;
  return b == -1 ? (int64_t)(0u - (uint64_t)a) : a / b;
}

static void div_f32(const rp_row *row) { rp_map2_f32(row, quotient_f32); }
static void div_f64(const rp_row *row) { rp_map2_f64(row, quotient_f64); }
static void div_i32(const rp_row *row) { rp_map2_i32(row, quotient_i32); }
static void div_i64(const rp_row *row) { rp_map2_i64(row, quotient_i64); }
static rp_status run_div(const rp_kernel_args *args) {
  static const rp_rows rows = {div_f32, div_f64, div_i32, div_i64, NULL};
  return rp_rows_run_typed(args, &rows);
}

/* ---- pow, maximum, minimum ----------------------------------------------- */

static void pow_f32(const rp_row *row) { rp_map2_f32(row, rp_pow_f32); }
static void pow_f64(const rp_row *row) { rp_map2_f64(row, rp_pow_f64); }
static void pow_i32(const rp_row *row) { rp_map2_i32(row, rp_power_i32); }
static void pow_i64(const rp_row *row) { rp_map2_i64(row, rp_power_i64); }
static rp_status run_pow(const rp_kernel_args *args) {
  static const rp_rows rows = {pow_f32, pow_f64, pow_i32, pow_i64, NULL};
  return rp_rows_run_typed(args, &rows);
}

/* A NaN on either side comes through. */
static inline float larger_f32(float a, float b) {
  return (a > b) | (a != a) ? a : b;
}
static inline double larger_f64(double a, double b) {
  return (a > b) | (a != a) ? a : b;
}
static inline int32_t larger_i32(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int64_t larger_i64(int64_t a, int64_t b) { return a > b ? a : b; }

static void maximum_f32(const rp_row *row) { rp_map2_f32(row, larger_f32); }
static void maximum_f64(const rp_row *row) { rp_map2_f64(row, larger_f64); }
static void maximum_i32(const rp_row *row) { rp_map2_i32(row, larger_i32); }
static void maximum_i64(const rp_row *row) { rp_map2_i64(row, larger_i64); }
static rp_status run_maximum(const rp_kernel_args *args) {
    static const rp_rows rows = {maximum_f32, maximum_f64, maximum_i32,
                               maximum_i64, NULL};
  return rp_rows_run_typed(args, &rows);
}

static inline float smaller_f32(float a, float b) {
  return (a < b) | (a != a) ? a : b;
}
static inline double smaller_f64(double a, double b) {
  return (a < b) | (a != a) ? a : b;
}
static inline int32_t smaller_i32(int32_t a, int32_t b) {
  return a < b ? a : b;
}
static inline int64_t smaller_i64(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static void minimum_f32(const rp_row *row) { rp_map2_f32(row, smaller_f32); }
static void minimum_f64(const rp_row *row) { rp_map2_f64(row, smaller_f64); }
static void minimum_i32(const rp_row *row) { rp_map2_i32(row, smaller_i32); }
static void minimum_i64(const rp_row *row) { rp_map2_i64(row, smaller_i64); }
static rp_status run_minimum(const rp_kernel_args *args) {
    static const rp_rows rows = {minimum_f32, minimum_f64, minimum_i32,
                               minimum_i64, NULL};
  return rp_rows_run_typed(args, &rows);
}

/* ---- bce_with_logits ----------------------------------------------------- */

static inline float logistic_loss_f32(float x, float target) {
  const float positive = x < 0.0f ? 0.0f : x;
  return positive - x * target + rp_log1p_f32(rp_exp_f32(-rp_abs_f32(x)));
}
static inline double logistic_loss_f64(double x, double target) {
  const double positive = x < 0.0 ? 0.0 : x;
  return positive - x * target + rp_log1p_f64(rp_exp_f64(-rp_abs_f64(x)));
}

static void bce_f32(const rp_row *row) { rp_map2_f32(row, logistic_loss_f32); }
static void bce_f64(const rp_row *row) { rp_map2_f64(row, logistic_loss_f64); }
static rp_status run_bce_with_logits(const rp_kernel_args *args) {
  static const rp_rows rows = {.f32 = bce_f32, .f64 = bce_f64};
  return rp_rows_run_typed(args, &rows);
}

/* ---- rows ---------------------------------------------------------------- */

extern const rp_op rp_op_add, rp_op_sub, rp_op_mul, rp_op_div, rp_op_pow,
    rp_op_maximum, rp_op_minimum, rp_op_bce_with_logits;

static const rp_kernel rows[] = {
    {&rp_op_add, RP_F32, run_add, NULL, NULL},
    {&rp_op_add, RP_F64, run_add, NULL, NULL},
    {&rp_op_add, RP_BF16, run_add, NULL, NULL},
    {&rp_op_add, RP_I32, run_add, NULL, NULL},
    {&rp_op_add, RP_I64, run_add, NULL, NULL},
    {&rp_op_sub, RP_F32, run_sub, NULL, NULL},
    {&rp_op_sub, RP_F64, run_sub, NULL, NULL},
    {&rp_op_sub, RP_BF16, run_sub, NULL, NULL},
    {&rp_op_sub, RP_I32, run_sub, NULL, NULL},
    {&rp_op_sub, RP_I64, run_sub, NULL, NULL},
    {&rp_op_mul, RP_F32, run_mul, NULL, NULL},
    {&rp_op_mul, RP_F64, run_mul, NULL, NULL},
    {&rp_op_mul, RP_BF16, run_mul, NULL, NULL},
    {&rp_op_mul, RP_I32, run_mul, NULL, NULL},
    {&rp_op_mul, RP_I64, run_mul, NULL, NULL},
    {&rp_op_div, RP_F32, run_div, NULL, NULL},
    {&rp_op_div, RP_F64, run_div, NULL, NULL},
    {&rp_op_div, RP_BF16, run_div, NULL, NULL},
    {&rp_op_div, RP_I32, run_div, NULL, NULL},
    {&rp_op_div, RP_I64, run_div, NULL, NULL},
    {&rp_op_pow, RP_F32, run_pow, NULL, NULL},
    {&rp_op_pow, RP_F64, run_pow, NULL, NULL},
    {&rp_op_pow, RP_BF16, run_pow, NULL, NULL},
    {&rp_op_pow, RP_I32, run_pow, NULL, NULL},
    {&rp_op_pow, RP_I64, run_pow, NULL, NULL},
    {&rp_op_maximum, RP_F32, run_maximum, NULL, NULL},
    {&rp_op_maximum, RP_F64, run_maximum, NULL, NULL},
    {&rp_op_maximum, RP_BF16, run_maximum, NULL, NULL},
    {&rp_op_maximum, RP_I32, run_maximum, NULL, NULL},
    {&rp_op_maximum, RP_I64, run_maximum, NULL, NULL},
    {&rp_op_minimum, RP_F32, run_minimum, NULL, NULL},
    {&rp_op_minimum, RP_F64, run_minimum, NULL, NULL},
    {&rp_op_minimum, RP_BF16, run_minimum, NULL, NULL},
    {&rp_op_minimum, RP_I32, run_minimum, NULL, NULL},
    {&rp_op_minimum, RP_I64, run_minimum, NULL, NULL},
    {&rp_op_bce_with_logits, RP_F32, run_bce_with_logits, NULL, NULL},
    {&rp_op_bce_with_logits, RP_F64, run_bce_with_logits, NULL, NULL},
    {&rp_op_bce_with_logits, RP_BF16, run_bce_with_logits, NULL, NULL},
};
const rp_kernel_table rp_cpu_binary = {rows, sizeof rows / sizeof *rows};
