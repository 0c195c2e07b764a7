/* Views: other shapes over the same bytes. They never run.

   reshape {dims}                      same elements in row-major order
   permute {perm}                      y[i_perm...] = x[i...]
   expand {dims}                       size-1 dims repeated, new ones in front
   narrow {dim, start, length, step}   every step-th of length entries of dim
   detach                              x, without its gradient
   custom_vjp                          y with a gradient of the user's */
#include <string.h>

#include "graph/custom.h"
#include "graph/op.h"

extern const rp_op rp_op_permute;

static const rp_strides *in_strides(const rp_node *node) {
  return &node->inputs[0]->strides;
}

/* ---- reshape ------------------------------------------------------------ */

static rp_status reshape_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0);
  if (node->n_ints > RP_RANK)
    return rp_node_fail(node, RP_VALUE, "%d dims: at most %d are possible",
                        node->n_ints, RP_RANK);
  out->dtype = x->dtype;
  out->rank = node->n_ints;
  memcpy(out->dims, node->ints, node->n_ints * sizeof *node->ints);
  const rp_status status = rp_type_check(node->ctx, "reshape", out);
  if (status != RP_OK) return status;
  if (rp_type_count(out) != rp_type_count(x)) {
    char from[RP_DIMS_TEXT], to[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE,
                        "%s has %lld elements, %s would have %lld",
                        rp_dims_text(x, from), (long long)rp_type_count(x),
                        rp_dims_text(out, to), (long long)rp_type_count(out));
  }
  return RP_OK;
}

/* Runs of dims that lie one after the other in memory may be cut anew; the
   new dims must fill each run exactly. */
static rp_status reshape_view(const rp_node *node, int k, rp_strides *out) {
  (void)k;
  const rp_type *from = rp_in(node, 0), *to = &node->outputs[0].type;
  const rp_strides *s = in_strides(node);
  if (rp_type_count(from) <= 1 || rp_strides_are_contiguous(from, s)) {
    rp_strides_contiguous(to, out);
    out->offset = s->offset;
    return RP_OK;
  }
  int j = to->rank - 1;
  int64_t run = 1, base = 0;
  for (int i = from->rank - 1; i >= 0; i--) {
    if (run == 1) base = s->at[i];
    run *= from->dims[i];
    const bool ends = i == 0 || (from->dims[i - 1] != 1 &&
                                 s->at[i - 1] != run * base);
    if (!ends) continue;
    int64_t filled = 1;
    while (j >= 0 && (filled < run || to->dims[j] == 1)) {
      out->at[j] = base * filled;
      filled *= to->dims[j--];
    }
    if (filled != run) return RP_UNSUPPORTED;
    run = 1;
  }
  if (j >= 0) return RP_UNSUPPORTED;
  out->offset = s->offset;
  return RP_OK;
}

static void reshape_grad(rp_tape *tape, const rp_node *node,
                         rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_reshape(tape, dy[0], rp_in(node, 0));
}

const rp_op rp_op_reshape = {
    .name = "reshape", .inputs = 1, .outputs = 1,
    .flags = RP_VIEW | RP_WIDE_GRAD,
    .type = reshape_type, .view = reshape_view, .grad = reshape_grad,
};

/* ---- permute ------------------------------------------------------------ */

static rp_status permute_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0);
  uint32_t seen = 0;
  for (int i = 0; i < node->n_ints; i++)
    if (node->ints[i] >= 0 && node->ints[i] < x->rank)
      seen |= 1u << node->ints[i];
  if (node->n_ints != x->rank || seen != (1u << x->rank) - 1) {
    char text[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_VALUE,
                        "%s needs each of its %d dims once in the new order",
                        rp_dims_text(x, text), (int)x->rank);
  }
  *out = *x;
  for (int i = 0; i < x->rank; i++) out->dims[i] = x->dims[node->ints[i]];
  return RP_OK;
}

static rp_status permute_view(const rp_node *node, int k, rp_strides *out) {
  (void)k;
  const rp_strides *s = in_strides(node);
  for (int i = 0; i < node->n_ints; i++) out->at[i] = s->at[node->ints[i]];
  out->offset = s->offset;
  return RP_OK;
}

static void permute_grad(rp_tape *tape, const rp_node *node,
                         rp_tensor *const *dy, rp_tensor **dx) {
  int64_t inverse[RP_RANK];
  for (int i = 0; i < node->n_ints; i++) inverse[node->ints[i]] = i;
  dx[0] = rp_emit(tape, &rp_op_permute, dy, 1, inverse, node->n_ints, NULL, 0);
}

const rp_op rp_op_permute = {
    .name = "permute", .inputs = 1, .outputs = 1,
    .flags = RP_VIEW | RP_WIDE_GRAD,
    .type = permute_type, .view = permute_view, .grad = permute_grad,
};

/* ---- expand ------------------------------------------------------------- */

static rp_status expand_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0);
  const int added = node->n_ints - x->rank;
  bool fits = added >= 0 && node->n_ints <= RP_RANK;
  for (int i = 0; fits && i < x->rank; i++)
    fits = x->dims[i] == 1 || x->dims[i] == node->ints[added + i];
  out->dtype = x->dtype;
  out->rank = node->n_ints <= RP_RANK ? node->n_ints : RP_RANK;
  memcpy(out->dims, node->ints, (size_t)out->rank * sizeof *node->ints);
  if (!fits) {
    char from[RP_DIMS_TEXT], to[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE,
                        "%s cannot become %s: only dims of size 1 can be "
                        "repeated, new dims go in front",
                        rp_dims_text(x, from), rp_dims_text(out, to));
  }
  return RP_OK;
}

static rp_status expand_view(const rp_node *node, int k, rp_strides *out) {
  (void)k;
  const rp_type *x = rp_in(node, 0), *y = &node->outputs[0].type;
  const int added = y->rank - x->rank;
  for (int i = 0; i < y->rank; i++) {
    const bool same = i >= added && x->dims[i - added] == y->dims[i];
    out->at[i] = same ? in_strides(node)->at[i - added] : 0;
  }
  out->offset = in_strides(node)->offset;
  return RP_OK;
}

static void expand_grad(rp_tape *tape, const rp_node *node,
                        rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_sum_to(tape, dy[0], rp_in(node, 0));
}

const rp_op rp_op_expand = {
    .name = "expand", .inputs = 1, .outputs = 1,
    .flags = RP_VIEW | RP_WIDE_GRAD,
    .type = expand_type, .view = expand_view, .grad = expand_grad,
};

/* ---- narrow ------------------------------------------------------------- */

static rp_status narrow_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0);
  char text[RP_DIMS_TEXT];
  if (node->n_ints != 4)
    return rp_node_fail(node, RP_VALUE, "takes dim, start, length and step");
  const int64_t dim = node->ints[0], start = node->ints[1],
                length = node->ints[2], step = node->ints[3];
  if (dim < 0 || dim >= x->rank)
    return rp_node_fail(node, RP_VALUE, "dim %lld of %s: from 1 to %d",
                        (long long)dim + 1, rp_dims_text(x, text),
                        (int)x->rank);
  const int64_t size = x->dims[dim];
  const bool fits =
      start >= 0 && length >= 0 && step >= 1 && start <= size &&
      (length == 0 || (length - 1 <= (size - 1 - start) / step &&
                       start < size));
  if (!fits)
    return rp_node_fail(node, RP_VALUE,
                        "%lld entries from position %lld by %lld do not fit "
                        "in dim %lld of %s",
                        (long long)length, (long long)start + 1,
                        (long long)step, (long long)dim + 1,
                        rp_dims_text(x, text));
  *out = *x;
  out->dims[dim] = length;
  return RP_OK;
}

static rp_status narrow_view(const rp_node *node, int k, rp_strides *out) {
  (void)k;
  *out = *in_strides(node);
  out->offset += node->ints[1] * out->at[node->ints[0]];
  out->at[node->ints[0]] *= node->ints[3];
  return RP_OK;
}

/* dx is zero but for what was taken: narrow_grad {dim,start,length,step,
   size}. */
static void narrow_grad(rp_tape *tape, const rp_node *node,
                        rp_tensor *const *dy, rp_tensor **dx) {
  int64_t ints[5];
  memcpy(ints, node->ints, 4 * sizeof *ints);
  ints[4] = rp_in(node, 0)->dims[ints[0]];
  dx[0] = rp_emit(tape, rp_op_find("narrow_grad"), dy, 1, ints, 5, NULL, 0);
}

const rp_op rp_op_narrow = {
    .name = "narrow", .inputs = 1, .outputs = 1,
    .flags = RP_VIEW | RP_WIDE_GRAD,
    .type = narrow_type, .view = narrow_view, .grad = narrow_grad,
};

/* ---- detach, custom_vjp ------------------------------------------------- */

static rp_status alias_view(const rp_node *node, int k, rp_strides *out) {
  *out = node->inputs[k]->strides;
  return RP_OK;
}

const rp_op rp_op_detach = {
    .name = "detach", .inputs = 1, .outputs = 1,
    .flags = RP_VIEW | RP_NOT_DIFFERENTIABLE,
    .type = rp_type_like_first, .view = alias_view,
};

/* ints {n_y, n_x}; inputs y[n_y], d_y[n_y], xs[n_x], d_x[n_x] (d_x[j] is
   xs[j] where it has no gradient). Output k aliases y[k]; recorded by
   rp_custom_vjp (graph/custom.c), whose gradient rule it has. */
static rp_status custom_type(const rp_node *node, rp_type *out) {
  const int64_t n_y = rp_int(node, 0, 0), n_x = rp_int(node, 1, 0);
  if (n_y < 1 || n_x < 1 || node->n_inputs != 2 * (n_y + n_x))
    return rp_node_fail(node, RP_VALUE, "is recorded with rp_custom_vjp");
  for (int64_t k = 0; k < n_y; k++) out[k] = *rp_in(node, (int)k);
  return RP_OK;
}

const rp_op rp_op_custom_vjp = {
    .name = "custom_vjp", .inputs = 1, .outputs = -1,
    .flags = RP_VIEW | RP_VARIADIC,
    .type = custom_type, .view = alias_view, .grad = rp_custom_grad,
};
