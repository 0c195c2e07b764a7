/* Kernels of core/ops/cast.c. */
#include "kernels/elementwise.h"

namespace rp {
namespace {

/* To and From are dtypes; bf16 comes and goes as f32. */
template <typename To> struct cast_function {
  template <typename T>
  __device__ __forceinline__ wide<To> operator()(T x) const {
    return scalar::cast<wide<To>>(x);
  }
};

template <typename From, typename To>
rp_status convert(const rp_kernel_args *args) {
  const rp_array *const in[] = {&args->in[0]};
  return map<To, From>(args, "cast", cast_function<To>(), in);
}

/* From f32 or bf16, in packs between the two. */
rp_status cast_float(const rp_kernel_args *args) {
  const int32_t from = args->in[0].type.dtype, to = args->out[0].type.dtype;
  if (from == RP_F32 && to == RP_BF16) return convert<float, bf16>(args);
  if (from == RP_BF16 && to == RP_F32) return convert<bf16, float>(args);
  switch (to) {
    case RP_F32: case RP_BF16: return convert<either, either>(args);
    case RP_F64: return convert<either, double>(args);
    case RP_I32: return convert<either, int32_t>(args);
    case RP_I64: return convert<either, int64_t>(args);
    default: return convert<either, uint8_t>(args);
  }
}

rp_status cast_double(const rp_kernel_args *args) {
  switch (args->out[0].type.dtype) {
    case RP_F32: case RP_BF16: return convert<double, either>(args);
    case RP_F64: return convert<double, double>(args);
    case RP_I32: return convert<double, int32_t>(args);
    case RP_I64: return convert<double, int64_t>(args);
    default: return convert<double, uint8_t>(args);
  }
}

/* Also from bools. */
rp_status cast_integer(const rp_kernel_args *args) {
  switch (args->out[0].type.dtype) {
    case RP_F32: case RP_BF16: return convert<integer, either>(args);
    case RP_F64: return convert<integer, double>(args);
    case RP_BOOL: return convert<integer, uint8_t>(args);
    default: return convert<integer, integer>(args);
  }
}

} // namespace

RP_ROWS(cast,
        row("cast", RP_F32, cast_float), row("cast", RP_BF16, cast_float),
        row("cast", RP_F64, cast_double), row("cast", RP_I32, cast_integer),
        row("cast", RP_I64, cast_integer), row("cast", RP_BOOL, cast_integer));

} // namespace rp
