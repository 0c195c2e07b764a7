/* Kernels of core/ops/cast.c. */
#include "cpu/bf16.h"
#include "cpu/elementwise.h"

/* Element i of a dtype, widened without loss: integers to i64, floating
   point to f64. The dtype is a constant wherever these are called, so the
   switch is gone and the loop around it vectorises. */
RP_INLINE int64_t load_integer(rp_dtype dtype, const void *x, int64_t i) {
  switch (dtype) {
    case RP_I32: return ((const int32_t *)x)[i];
    case RP_I64: return ((const int64_t *)x)[i];
    default: return ((const uint8_t *)x)[i];
  }
}
RP_INLINE double load_float(rp_dtype dtype, const void *x, int64_t i) {
  switch (dtype) {
    case RP_F32: return ((const float *)x)[i];
    case RP_F64: return ((const double *)x)[i];
    default: return rp_bf16_to_f32(((const uint16_t *)x)[i]);
  }
}

/* Integers narrow by their low bits; to floating point they round once (to
   bf16 by way of f32). */
RP_INLINE void store_integer(rp_dtype dtype, void *y, int64_t i, int64_t v) {
  switch (dtype) {
    case RP_F32: ((float *)y)[i] = (float)v; break;
    case RP_F64: ((double *)y)[i] = (double)v; break;
    case RP_BF16: ((uint16_t *)y)[i] = rp_f32_to_bf16((float)v); break;
    case RP_I32: ((int32_t *)y)[i] = (int32_t)v; break;
    case RP_I64: ((int64_t *)y)[i] = v; break;
    default: ((uint8_t *)y)[i] = v != 0;
  }
}
/* To integers: truncated, saturated, 0 for NaN. */
RP_INLINE void store_float(rp_dtype dtype, void *y, int64_t i, double v) {
  const double number = v == v ? v : 0.0;
  switch (dtype) {
    case RP_F32: ((float *)y)[i] = (float)v; break;
    case RP_F64: ((double *)y)[i] = v; break;
    case RP_BF16: ((uint16_t *)y)[i] = rp_f32_to_bf16((float)v); break;
    case RP_I32: {
      const double low = number < -0x1p31 ? -0x1p31 : number;
      ((int32_t *)y)[i] = (int32_t)(low > 0x1p31 - 1 ? 0x1p31 - 1 : low);
      break;
    }
    case RP_I64: {
      /* 2^63 - 1 is no double: the largest one below goes through, and what
         is above is chosen as an integer. */
      const double low = number < -0x1p63 ? -0x1p63 : number;
      const double inside = low < 0x1p63 ? low : 0.0;
      ((int64_t *)y)[i] = low < 0x1p63 ? (int64_t)inside : INT64_MAX;
      break;
    }
    default: ((uint8_t *)y)[i] = v != 0.0;
  }
}

RP_INLINE void loop(const rp_row *row, int64_t stride, rp_dtype from,
                    rp_dtype to) {
  const void *x = row->in[0];
  void *y = row->out;
  const int64_t n = row->n;
  const bool is_float = from == RP_F32 || from == RP_F64 || from == RP_BF16;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    if (is_float) store_float(to, y, i, load_float(from, x, i * stride));
    else store_integer(to, y, i, load_integer(from, x, i * stride));
  }
}
RP_INLINE void cast(const rp_row *row, rp_dtype from, rp_dtype to) {
  if (row->strides[0] == 1) loop(row, 1, from, to);
  else loop(row, row->strides[0], from, to);
}
/* What mixed precision does all the time: without the way through f64. */
static void narrow(const rp_row *row) {
  if (row->strides[0] == 1) {
    rp_bf16_round(row->out, row->in[0], row->n);
    return;
  }
  cast(row, RP_F32, RP_BF16);
}
static void widen(const rp_row *row) {
  rp_bf16_widen(row->out, row->in[0], row->strides[0], row->n);
}

RP_INLINE void cast_from(const rp_row *row, rp_dtype from) {
  switch (row->args->out->type.dtype) {
    case RP_F32: cast(row, from, RP_F32); break;
    case RP_F64: cast(row, from, RP_F64); break;
    case RP_BF16: cast(row, from, RP_BF16); break;
    case RP_I32: cast(row, from, RP_I32); break;
    case RP_I64: cast(row, from, RP_I64); break;
    default: cast(row, from, RP_BOOL);
  }
}

static void from_f32(const rp_row *row) { cast_from(row, RP_F32); }
static void from_f64(const rp_row *row) { cast_from(row, RP_F64); }
static void from_bf16(const rp_row *row) { cast_from(row, RP_BF16); }
static void from_i32(const rp_row *row) { cast_from(row, RP_I32); }
static void from_i64(const rp_row *row) { cast_from(row, RP_I64); }
static void from_bool(const rp_row *row) { cast_from(row, RP_BOOL); }
/* Not rp_rows_run_typed, which rounds a result to bf16 itself. */
static rp_status run_cast(const rp_kernel_args *args) {
  const rp_dtype to = (rp_dtype)args->out->type.dtype;
  switch (args->in[0].type.dtype) {
    case RP_F32:
      if (to == RP_BF16) return rp_rows_run(args, narrow);
      return rp_rows_run(args, from_f32);
    case RP_F64: return rp_rows_run(args, from_f64);
    case RP_BF16:
      if (to == RP_F32) return rp_rows_run(args, widen);
      return rp_rows_run(args, from_bf16);
    case RP_I32: return rp_rows_run(args, from_i32);
    case RP_I64: return rp_rows_run(args, from_i64);
    default: return rp_rows_run(args, from_bool);
  }
}

/* ---- rows ---------------------------------------------------------------- */

extern const rp_op rp_op_cast;

static const rp_kernel rows[] = {
    {&rp_op_cast, RP_F32, run_cast, NULL, NULL},
    {&rp_op_cast, RP_F64, run_cast, NULL, NULL},
    {&rp_op_cast, RP_BF16, run_cast, NULL, NULL},
    {&rp_op_cast, RP_I32, run_cast, NULL, NULL},
    {&rp_op_cast, RP_I64, run_cast, NULL, NULL},
    {&rp_op_cast, RP_BOOL, run_cast, NULL, NULL},
};
const rp_kernel_table rp_cpu_cast = {rows, sizeof rows / sizeof *rows};
