/* cast {dtype}: x in another dtype, any to any.

   Floating point rounds to nearest even, by way of f32 to bf16. Integers
   narrow by their low bits. Floating point to integers truncates, saturates,
   and takes NaN to 0. To bool: x != 0. */
#include "ops/elementwise.h"

static rp_status cast_type(const rp_node *node, rp_type *out) {
  const int64_t dtype = rp_int(node, 0, -1);
  if (dtype < 0 || dtype >= RP_DTYPES)
    return rp_node_fail(node, RP_VALUE, "%lld is no dtype", (long long)dtype);
  *out = *rp_in(node, 0);
  out->dtype = (int32_t)dtype;
  return RP_OK;
}

/* Reads nothing: dx is dy in x's dtype, and was never rounded where x and dy
   are f32: what a product gives its weight's master copy. */
static void cast_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                      rp_tensor **dx) {
  dx[0] = rp_cast(tape, dy[0], (rp_dtype)rp_in(node, 0)->dtype);
}

const rp_op rp_op_cast = {
    .name = "cast", .inputs = 1, .outputs = 1,
    .flags = RP_POINTWISE | RP_WIDE_GRAD,
    .in_place = RP_OVER_FIRST, .type = cast_type, .grad = cast_grad,
};
