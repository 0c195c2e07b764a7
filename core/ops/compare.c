/* Relations, logic and selection, element by element and broadcast.

   eq ne lt le gt ge            two tensors of one dtype -> bool; NaN is
                                unequal to all and neither less nor greater
   logical_and logical_or       bool x bool -> bool
   logical_not                  bool -> bool
   where(c, a, b)               a where c (bool), else b
   masked_fill(x, mask, value)  value (rank 0) where mask (bool), else x

   A bool is stored as 0 or 1. */
#include "ops/elementwise.h"

static rp_status relation_type(const rp_node *node, rp_type *out) {
  const rp_status status = rp_type_broadcast(node, out);
  out->dtype = RP_BOOL;
  return status;
}

const rp_op rp_op_eq = {
    .name = "eq", .inputs = 2, .outputs = 1,
    .flags = RP_POINTWISE | RP_NOT_DIFFERENTIABLE, .in_place = RP_OVER_BOTH,
    .type = relation_type,
};
const rp_op rp_op_ne = {
    .name = "ne", .inputs = 2, .outputs = 1,
    .flags = RP_POINTWISE | RP_NOT_DIFFERENTIABLE, .in_place = RP_OVER_BOTH,
    .type = relation_type,
};
const rp_op rp_op_lt = {
    .name = "lt", .inputs = 2, .outputs = 1,
    .flags = RP_POINTWISE | RP_NOT_DIFFERENTIABLE, .in_place = RP_OVER_BOTH,
    .type = relation_type,
};
const rp_op rp_op_le = {
    .name = "le", .inputs = 2, .outputs = 1,
    .flags = RP_POINTWISE | RP_NOT_DIFFERENTIABLE, .in_place = RP_OVER_BOTH,
    .type = relation_type,
};
const rp_op rp_op_gt = {
    .name = "gt", .inputs = 2, .outputs = 1,
    .flags = RP_POINTWISE | RP_NOT_DIFFERENTIABLE, .in_place = RP_OVER_BOTH,
    .type = relation_type,
};
const rp_op rp_op_ge = {
    .name = "ge", .inputs = 2, .outputs = 1,
    .flags = RP_POINTWISE | RP_NOT_DIFFERENTIABLE, .in_place = RP_OVER_BOTH,
    .type = relation_type,
};

/* ---- logic --------------------------------------------------------------- */

const rp_op rp_op_logical_and = {
    .name = "logical_and", .inputs = 2, .outputs = 1,
    .flags = RP_POINTWISE | RP_NOT_DIFFERENTIABLE, .in_place = RP_OVER_BOTH,
    .type = rp_type_broadcast,
};
const rp_op rp_op_logical_or = {
    .name = "logical_or", .inputs = 2, .outputs = 1,
    .flags = RP_POINTWISE | RP_NOT_DIFFERENTIABLE, .in_place = RP_OVER_BOTH,
    .type = rp_type_broadcast,
};
const rp_op rp_op_logical_not = {
    .name = "logical_not", .inputs = 1, .outputs = 1,
    .flags = RP_POINTWISE | RP_NOT_DIFFERENTIABLE, .in_place = RP_OVER_FIRST,
    .type = rp_type_like_first,
};

/* ---- where --------------------------------------------------------------- */

/* The dims that inputs first .. first + n - 1 broadcast to, whatever their
   dtypes. */
static rp_status broadcast_dims(const rp_node *node, int first, int n,
                                rp_type *out) {
  out->rank = 0;
  for (int i = first; i < first + n; i++)
    if (rp_in(node, i)->rank > out->rank) out->rank = rp_in(node, i)->rank;
  for (int d = 0; d < out->rank; d++) {
    out->dims[d] = 1;
    for (int i = first; i < first + n; i++) {
      const int at = d - (out->rank - rp_in(node, i)->rank);
      if (at < 0 || rp_in(node, i)->dims[at] == 1) continue;
      const int64_t size = rp_in(node, i)->dims[at];
      if (out->dims[d] != 1 && out->dims[d] != size) {
        char text[RP_DIMS_TEXT];
        return rp_node_fail(node, RP_SHAPE,
                            "input %d is %s: %lld at dim %d from the end does "
                            "not broadcast with %lld",
                            i + 1, rp_dims_text(rp_in(node, i), text),
                            (long long)size, out->rank - d,
                            (long long)out->dims[d]);
      }
      out->dims[d] = size;
    }
  }
  return RP_OK;
}

/* bf16 and f32 give f32. */
static rp_status pair_dtype(const rp_node *node, int i, int j, rp_type *out) {
  const rp_dtype a = (rp_dtype)rp_in(node, i)->dtype;
  const rp_dtype b = (rp_dtype)rp_in(node, j)->dtype;
  out->dtype = a == RP_BF16 ? b : a;
  if (a == b) return RP_OK;
  if ((a == RP_BF16 && b == RP_F32) || (a == RP_F32 && b == RP_BF16))
    return RP_OK;
  return rp_node_fail_dtypes(node, a, b);
}
static rp_status check_mask(const rp_node *node, int i) {
  const rp_dtype dtype = (rp_dtype)rp_in(node, i)->dtype;
  if (dtype == RP_BOOL) return RP_OK;
  return rp_node_fail(node, RP_DTYPE,
                      "the condition is %s, not bool; compare it with "
                      "something, or cast it with :to'bool'",
                      rp_dtype_name(dtype));
}

static rp_status where_type(const rp_node *node, rp_type *out) {
  rp_status status = check_mask(node, 0);
  if (status == RP_OK) status = pair_dtype(node, 1, 2, out);
  if (status != RP_OK) return status;
  return broadcast_dims(node, 0, 3, out);
}

/* da = dy where c, db = dy where not c: reads c, one byte an element. */
static void where_grad(rp_tape *tape, const rp_node *node,
                       rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *c = rp_input(node, 0), *zero = rp_constant(tape, 0, dy[0]);
  if (rp_tape_needs(tape, 1))
    dx[1] = rp_sum_to(tape, rp_where(tape, c, dy[0], zero), rp_in(node, 1));
  if (rp_tape_needs(tape, 2))
    dx[2] = rp_sum_to(tape, rp_where(tape, c, zero, dy[0]), rp_in(node, 2));
}
const rp_op rp_op_where = {
    .name = "where", .inputs = 3, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = 1u << 1 | 1u << 2, .type = where_type, .grad = where_grad,
};

/* ---- masked_fill --------------------------------------------------------- */

static rp_status masked_fill_type(const rp_node *node, rp_type *out) {
  rp_status status = check_mask(node, 1);
  if (status == RP_OK) status = pair_dtype(node, 0, 2, out);
  if (status != RP_OK) return status;
  if (rp_in(node, 2)->rank != 0) {
    char text[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE,
                        "the value is %s, not a scalar; `where` takes tensors",
                        rp_dims_text(rp_in(node, 2), text));
  }
  return broadcast_dims(node, 0, 2, out);
}

/* dx = dy where not mask, dvalue = the sum of dy where mask. */
static void masked_fill_grad(rp_tape *tape, const rp_node *node,
                             rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *mask = rp_input(node, 1), *zero = rp_constant(tape, 0, dy[0]);
  if (rp_tape_needs(tape, 0)) {
    rp_tensor *inputs[3] = {dy[0], mask, zero};
    rp_tensor *kept = rp_emit(tape, node->op, inputs, 3, NULL, 0, NULL, 0);
    dx[0] = rp_sum_to(tape, kept, rp_in(node, 0));
  }
  if (rp_tape_needs(tape, 2)) {
    rp_tensor *filled = rp_where(tape, mask, dy[0], zero);
    dx[2] = rp_sum_to(tape, filled, rp_in(node, 2));
  }
}
const rp_op rp_op_masked_fill = {
    .name = "masked_fill", .inputs = 3, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = masked_fill_type,
    .grad = masked_fill_grad,
};
