/* Copies.

   contiguous(x)          x's elements in row-major order, any dtype.
   cat(x0, x1, ...) {dim} joined along dim; the other dims are equal.
   pad(x) {before0, after0, before1, ...} reals {value}
                          x with `value` around it.
   narrow_grad(dy) {dim, start, length, step, size}
                          zeros of size entries in dim, dy in every step-th
                          from start: the gradient of narrow.

   All take any strides. Backward reads no value: it moves dy back, by views
   where the op copied. */
#include <string.h>

#include "graph/op.h"

static rp_cost copy_cost(const rp_node *node) {
  rp_cost cost = rp_cost_elementwise(node);
  cost.flops = 0;
  return cost;
}

/* ---- contiguous --------------------------------------------------------- */

static void contiguous_grad(rp_tape *tape, const rp_node *node,
                            rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = dy[0];
}

const rp_op rp_op_contiguous = {
    .name = "contiguous", .inputs = 1, .outputs = 1,
    .flags = RP_STRIDED | RP_WIDE_GRAD,
    .type = rp_type_like_first, .grad = contiguous_grad, .cost = copy_cost,
};

/* ---- cat ---------------------------------------------------------------- */

static rp_status cat_type(const rp_node *node, rp_type *out) {
  char first_text[RP_DIMS_TEXT], text[RP_DIMS_TEXT];
  const int64_t dim = rp_int(node, 0, -1);
  const rp_type *first = rp_in(node, 0);
  if (dim < 0 || dim >= first->rank)
    return rp_node_fail(node, RP_VALUE, "dim %lld of %s: from 1 to %d",
                        (long long)dim + 1, rp_dims_text(first, first_text),
                        (int)first->rank);
  *out = *first;
  for (int i = 1; i < node->n_inputs; i++) {
    const rp_type *x = rp_in(node, i);
    if (x->dtype != first->dtype)
      return rp_node_fail_dtypes(node, (rp_dtype)first->dtype,
                                 (rp_dtype)x->dtype);
    bool fits = x->rank == first->rank;
    for (int k = 0; fits && k < x->rank; k++)
      fits = k == dim || x->dims[k] == first->dims[k];
    if (!fits)
      return rp_node_fail(node, RP_SHAPE,
                          "tensor 1 is %s, tensor %d is %s: they may differ "
                          "in dim %lld alone",
                          rp_dims_text(first, first_text), i + 1,
                          rp_dims_text(x, text), (long long)dim + 1);
    if (__builtin_add_overflow(out->dims[dim], x->dims[dim], &out->dims[dim]))
      return rp_node_fail(node, RP_VALUE, "dim %lld would overflow",
                          (long long)dim + 1);
  }
  return RP_OK;
}

static void cat_grad(rp_tape *tape, const rp_node *node,
                     rp_tensor *const *dy, rp_tensor **dx) {
  const int dim = (int)node->ints[0];
  int64_t start = 0;
  for (int i = 0; i < node->n_inputs; i++) {
    const int64_t length = rp_in(node, i)->dims[dim];
    if (rp_tape_needs(tape, i))
      dx[i] = rp_narrow(tape, dy[0], dim, start, length);
    start += length;
  }
}

const rp_op rp_op_cat = {
    .name = "cat", .inputs = 1, .outputs = 1,
    .flags = RP_STRIDED | RP_VARIADIC,
    .type = cat_type, .grad = cat_grad, .cost = copy_cost,
};

/* ---- pad ---------------------------------------------------------------- */

static rp_status pad_type(const rp_node *node, rp_type *out) {
  char text[RP_DIMS_TEXT];
  const rp_type *x = rp_in(node, 0);
  if (node->n_ints != 2 * x->rank)
    return rp_node_fail(node, RP_VALUE,
                        "%s takes %d sizes, before and after for each dim, "
                        "not %d",
                        rp_dims_text(x, text), 2 * (int)x->rank, node->n_ints);
  *out = *x;
  for (int i = 0; i < x->rank; i++) {
    const int64_t before = node->ints[2 * i], after = node->ints[2 * i + 1];
    if (before < 0 || after < 0)
      return rp_node_fail(node, RP_VALUE,
                          "%lld before and %lld after dim %d: negative sizes "
                          "do not pad; take a part with narrow",
                          (long long)before, (long long)after, i + 1);
    if (__builtin_add_overflow(out->dims[i], before, &out->dims[i]) ||
        __builtin_add_overflow(out->dims[i], after, &out->dims[i]))
      return rp_node_fail(node, RP_VALUE, "dim %d would overflow", i + 1);
  }
  return RP_OK;
}

static void pad_grad(rp_tape *tape, const rp_node *node,
                     rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = dy[0];
  for (int i = 0; i < rp_in(node, 0)->rank; i++)
    if (node->ints[2 * i] || node->ints[2 * i + 1])
      dx[0] = rp_narrow(tape, dx[0], i, node->ints[2 * i],
                        rp_in(node, 0)->dims[i]);
}

const rp_op rp_op_pad = {
    .name = "pad", .inputs = 1, .outputs = 1, .flags = RP_STRIDED,
    .type = pad_type, .grad = pad_grad, .cost = copy_cost,
};

/* ---- narrow_grad -------------------------------------------------------- */

static rp_status narrow_grad_type(const rp_node *node, rp_type *out) {
  char text[RP_DIMS_TEXT];
  const rp_type *dy = rp_in(node, 0);
  if (node->n_ints != 5)
    return rp_node_fail(node, RP_VALUE,
                        "takes dim, start, length, step and size");
  const int64_t dim = node->ints[0], start = node->ints[1],
                length = node->ints[2], step = node->ints[3],
                size = node->ints[4];
  const bool fits = dim >= 0 && dim < dy->rank && start >= 0 && step >= 1 &&
                    size >= 0 && length == dy->dims[dim] && start <= size &&
                    (length == 0 || (start < size &&
                                     length - 1 <= (size - 1 - start) / step));
  if (!fits)
    return rp_node_fail(node, RP_VALUE,
                        "%s as %lld entries from position %lld by %lld of "
                        "%lld in dim %lld",
                        rp_dims_text(dy, text), (long long)length,
                        (long long)start + 1, (long long)step,
                        (long long)size, (long long)dim + 1);
  *out = *dy;
  out->dims[dim] = size;
  return RP_OK;
}

static void narrow_grad_grad(rp_tape *tape, const rp_node *node,
                             rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_emit(tape, rp_op_find("narrow"), dy, 1, node->ints, 4, NULL, 0);
}

const rp_op rp_op_narrow_grad = {
    .name = "narrow_grad", .inputs = 1, .outputs = 1, .flags = RP_STRIDED,
    .type = narrow_grad_type, .grad = narrow_grad_grad, .cost = copy_cost,
};
