/* Kernels of core/ops/unary.c. */
#include "kernels/elementwise.h"

namespace rp {
namespace {

RP_FUNCTION(neg);
RP_FUNCTION(abs);
RP_FUNCTION(sign);
RP_FUNCTION(square);
RP_FUNCTION(exp);
RP_FUNCTION(log);
RP_FUNCTION(erf);
RP_FUNCTION(sqrt);
RP_FUNCTION(rsqrt);
RP_FUNCTION(reciprocal);
RP_FUNCTION(sin);
RP_FUNCTION(cos);

struct pow_scalar_function {
  double exponent;
  explicit pow_scalar_function(const rp_kernel_args *args)
      : exponent(args->reals[0]) {}
  static constexpr const char *name = "pow_scalar";
  template <typename T> __device__ __forceinline__ T operator()(T x) const {
    return scalar::pow_scalar(x, exponent);
  }
};

struct clamp_function {
  double lo, hi;
  explicit clamp_function(const rp_kernel_args *args)
      : lo(args->reals[0]), hi(args->reals[1]) {}
  static constexpr const char *name = "clamp";
  template <typename T> __device__ __forceinline__ T operator()(T x) const {
    return scalar::clamp(x, lo, hi);
  }
};

struct clamp_grad_function {
  double lo, hi;
  explicit clamp_grad_function(const rp_kernel_args *args)
      : lo(args->reals[0]), hi(args->reals[1]) {}
  static constexpr const char *name = "clamp_grad";
  template <typename T>
  __device__ __forceinline__ T operator()(T dy, T x) const {
    return scalar::clamp_grad(dy, x, lo, hi);
  }
};

} // namespace

RP_ROWS(unary,
        RP_FLOATS(unary, neg), RP_INTEGERS(unary, neg),
        RP_FLOATS(unary, abs), RP_INTEGERS(unary, abs),
        RP_FLOATS(unary, sign), RP_INTEGERS(unary, sign),
        RP_FLOATS(unary, square), RP_INTEGERS(unary, square),
        RP_FLOATS(unary, exp), RP_FLOATS(unary, log), RP_FLOATS(unary, erf),
        RP_FLOATS(unary, sqrt), RP_FLOATS(unary, rsqrt),
        RP_FLOATS(unary, reciprocal),
        RP_FLOATS(unary, sin), RP_FLOATS(unary, cos),
        RP_FLOATS(unary, pow_scalar), RP_INTEGERS(unary, pow_scalar),
        RP_FLOATS(unary, clamp),
        row("clamp", RP_I32, unary<clamp_function, int32_t>),
        row("clamp", RP_I64, unary<clamp_function, int64_t>),
        RP_FLOATS(binary, clamp_grad));

} // namespace rp
