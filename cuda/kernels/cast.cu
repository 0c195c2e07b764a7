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

template <typename From> rp_status cast(const rp_kernel_args *args) {
  switch (args->out[0].type.dtype) {
    case RP_F32: return convert<From, float>(args);
    case RP_F64: return convert<From, double>(args);
    case RP_BF16: return convert<From, bf16>(args);
    case RP_I32: return convert<From, int32_t>(args);
    case RP_I64: return convert<From, int64_t>(args);
    default: return convert<From, uint8_t>(args);
  }
}

} // namespace

RP_ROWS(cast,
        row("cast", RP_F32, cast<float>), row("cast", RP_F64, cast<double>),
        row("cast", RP_BF16, cast<bf16>), row("cast", RP_I32, cast<int32_t>),
        row("cast", RP_I64, cast<int64_t>),
        row("cast", RP_BOOL, cast<uint8_t>));

} // namespace rp
