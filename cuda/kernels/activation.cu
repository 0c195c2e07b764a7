/* Kernels of core/ops/activation.c. */
#include "kernels/elementwise.h"

namespace rp {

/* Behind products (product.h), which cannot be included beside packs. */
rp_status gelu_tanh(const rp_kernel_args *args);
rp_status gelu_tanh_grad(const rp_kernel_args *args);

namespace {

RP_FUNCTION(relu);
RP_FUNCTION(relu_grad);
RP_FUNCTION(tanh);
RP_FUNCTION(tanh_grad);
RP_FUNCTION(sigmoid);
RP_FUNCTION(sigmoid_grad);
RP_FUNCTION(silu);
RP_FUNCTION(silu_grad);
RP_FUNCTION(gelu);
RP_FUNCTION(gelu_grad);
RP_FUNCTION(gelu_tanh);
RP_FUNCTION(gelu_tanh_grad);

} // namespace

rp_status gelu_tanh(const rp_kernel_args *args) {
  return unary<gelu_tanh_function, either>(args);
}

rp_status gelu_tanh_grad(const rp_kernel_args *args) {
  return binary<gelu_tanh_grad_function, either>(args);
}

RP_ROWS(activation,
        RP_FLOATS(unary, relu), RP_INTEGERS(unary, relu),
        RP_FLOATS(binary, relu_grad),
        RP_FLOATS(unary, tanh), RP_FLOATS(binary, tanh_grad),
        RP_FLOATS(unary, sigmoid), RP_FLOATS(binary, sigmoid_grad),
        RP_FLOATS(unary, silu), RP_FLOATS(binary, silu_grad),
        RP_FLOATS(unary, gelu), RP_FLOATS(binary, gelu_grad),
        RP_FLOATS(unary, gelu_tanh), RP_FLOATS(binary, gelu_tanh_grad));

} // namespace rp
