/* Reading and adding at indices (i32 or i64, in 0..size-1).

   embedding(w:(V, C), idx:(...)) -> (..., C)        y[i] = w[idx[i]]
   embedding_grad(dy, idx) {V} -> (V, C)             dw[idx[i]] += dy[i]
   embedding_grad_add(dw, dy, idx) {V} -> (V, C)     the same, onto dw
   index_select(x, idx:(k)) {dim}                    y[.., i, ..] =
                                                       x[.., idx[i], ..]
   index_select_grad(dy, idx) {dim, size}            its transpose
   gather(x, idx) {dim}   idx of x's dims but for dim:
                          y[.., i, ..] = x[.., idx[.., i, ..], ..]
   gather_grad(dy, idx) {dim, size}                  its transpose

   All are linear in their first input, and each pair is one another's
   transpose: gradients of any order need only the indices. */
#include "graph/op.h"

extern const rp_op rp_op_embedding, rp_op_embedding_grad,
    rp_op_embedding_grad_add, rp_op_index_select, rp_op_index_select_grad,
    rp_op_gather, rp_op_gather_grad;

/* ---- what they share ---------------------------------------------------- */

static rp_status check_indices(const rp_node *node) {
  const rp_dtype dtype = (rp_dtype)rp_in(node, 1)->dtype;
  if (rp_dtype_is_index(dtype)) return RP_OK;
  return rp_node_fail(node, RP_DTYPE, "indices are %s; cast them with :to'i64'",
                      rp_dtype_name(dtype));
}

static rp_status check_dim(const rp_node *node) {
  const rp_type *x = rp_in(node, 0);
  const int64_t dim = rp_int(node, 0, -1);
  if (dim >= 0 && dim < x->rank) return RP_OK;
  char text[RP_DIMS_TEXT];
  return rp_node_fail(node, RP_VALUE, "dim %lld of %s: from 1 to %d",
                      (long long)dim + 1, rp_dims_text(x, text),
                      (int)x->rank);
}

static rp_status check_size(const rp_node *node, int at) {
  const int64_t size = rp_int(node, at, -1);
  if (size >= 0) return RP_OK;
  return rp_node_fail(node, RP_VALUE, "size %lld: it must be >= 0",
                      (long long)size);
}

static int range_of(rp_index_range *out, int64_t limit) {
  *out = (rp_index_range){.input = 1, .limit = limit, .what = "index"};
  return 1;
}

/* Output read (once more where it is added to) and written, indices read:
   not the whole table. */
static rp_cost read_cost(const rp_node *node) {
  rp_cost cost = {0, 0};
  cost.bytes = 2 * (double)rp_type_bytes(&node->outputs[0].type) +
               (double)rp_type_bytes(rp_in(node, 1));
  return cost;
}

static rp_cost add_cost(const rp_node *node) {
  const double dy_bytes = (double)rp_type_bytes(rp_in(node, 0));
  rp_cost cost = {(double)rp_type_count(rp_in(node, 0)), 0};
  cost.bytes = 3 * dy_bytes + (double)rp_type_bytes(rp_in(node, 1)) +
               (double)rp_type_bytes(&node->outputs[0].type);
  return cost;
}

static rp_tensor *transpose(rp_tape *tape, const rp_node *node,
                            const rp_op *op, rp_tensor *dy,
                            const int64_t *ints, int n_ints) {
  rp_tensor *in[2] = {dy, rp_input(node, 1)};
  return rp_emit(tape, op, in, 2, ints, n_ints, NULL, 0);
}

/* ---- embedding ---------------------------------------------------------- */

static rp_status embedding_type(const rp_node *node, rp_type *out) {
  const rp_type *w = rp_in(node, 0), *idx = rp_in(node, 1);
  const rp_status status = check_indices(node);
  if (status != RP_OK) return status;
  if (w->rank != 2) {
    char text[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE, "the table is %s, not (entries, width)",
                        rp_dims_text(w, text));
  }
  if (idx->rank == RP_RANK)
    return rp_node_fail(node, RP_SHAPE, "indices have %d dims: at most %d",
                        RP_RANK, RP_RANK - 1);
  *out = *idx;
  out->dtype = w->dtype;
  out->dims[out->rank++] = w->dims[1];
  return RP_OK;
}

static int embedding_ranges(const rp_node *node, rp_index_range *out) {
  return range_of(out, rp_in(node, 0)->dims[0]);
}

static void embedding_grad(rp_tape *tape, const rp_node *node,
                           rp_tensor *const *dy, rp_tensor **dx) {
  const int64_t entries = rp_in(node, 0)->dims[0];
  dx[0] = transpose(tape, node, &rp_op_embedding_grad, dy[0], &entries, 1);
}

const rp_op rp_op_embedding = {
    .name = "embedding", .inputs = 2, .outputs = 1,
    .type = embedding_type, .grad = embedding_grad, .cost = read_cost,
    .ranges = embedding_ranges,
};

static rp_status embedding_grad_type(const rp_node *node, rp_type *out) {
  const rp_type *dy = rp_in(node, 0), *idx = rp_in(node, 1);
  rp_status status = check_indices(node);
  if (status == RP_OK) status = check_size(node, 0);
  if (status != RP_OK) return status;
  bool fits = dy->rank == idx->rank + 1;
  for (int i = 0; fits && i < idx->rank; i++)
    fits = dy->dims[i] == idx->dims[i];
  if (!fits) {
    char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE, "gradient %s of indices %s",
                        rp_dims_text(dy, a), rp_dims_text(idx, b));
  }
  *out = (rp_type){.dtype = dy->dtype, .rank = 2,
                   .dims = {node->ints[0], dy->dims[dy->rank - 1]}};
  return RP_OK;
}

static int first_int_range(const rp_node *node, rp_index_range *out) {
  return range_of(out, node->ints[0]);
}

static void embedding_grad_grad(rp_tape *tape, const rp_node *node,
                                rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = transpose(tape, node, &rp_op_embedding, dy[0], NULL, 0);
}

const rp_op rp_op_embedding_grad = {
    .name = "embedding_grad", .inputs = 2, .outputs = 1,
    .adds = &rp_op_embedding_grad_add,
    .type = embedding_grad_type, .grad = embedding_grad_grad,
    .cost = add_cost, .ranges = first_int_range,
};

static rp_status embedding_grad_add_type(const rp_node *node, rp_type *out) {
  const rp_type *dw = rp_in(node, 0), *dy = rp_in(node, 1),
                *idx = rp_in(node, 2);
  bool fits = dw->rank == 2 && dw->dtype == dy->dtype &&
              rp_dtype_is_index((rp_dtype)idx->dtype) &&
              dy->rank == idx->rank + 1 &&
              dy->dims[dy->rank - 1] == dw->dims[1];
  for (int i = 0; fits && i < idx->rank; i++)
    fits = dy->dims[i] == idx->dims[i];
  if (!fits) {
    char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT], c[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE, "gradient %s of indices %s onto %s",
                        rp_dims_text(dy, b), rp_dims_text(idx, c),
                        rp_dims_text(dw, a));
  }
  *out = *dw;
  return RP_OK;
}

/* In place: the table is not passed over. */
static rp_cost embedding_grad_add_cost(const rp_node *node) {
  rp_cost cost = {(double)rp_type_count(rp_in(node, 1)), 0};
  cost.bytes = 3 * (double)rp_type_bytes(rp_in(node, 1)) +
               (double)rp_type_bytes(rp_in(node, 2));
  return cost;
}

static int embedding_grad_add_ranges(const rp_node *node,
                                     rp_index_range *out) {
  *out = (rp_index_range){.input = 2, .limit = rp_in(node, 0)->dims[0],
                          .what = "index"};
  return 1;
}

static void embedding_grad_add_grad(rp_tape *tape, const rp_node *node,
                                    rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *in[2] = {dy[0], rp_input(node, 2)};
  dx[0] = dy[0];
  if (rp_tape_needs(tape, 1))
    dx[1] = rp_emit(tape, &rp_op_embedding, in, 2, NULL, 0, NULL, 0);
}

const rp_op rp_op_embedding_grad_add = {
    .name = "embedding_grad_add", .inputs = 3, .outputs = 1, .in_place = 1,
    .type = embedding_grad_add_type, .grad = embedding_grad_add_grad,
    .cost = embedding_grad_add_cost, .ranges = embedding_grad_add_ranges,
};

/* ---- index_select ------------------------------------------------------- */

static rp_status select_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0), *idx = rp_in(node, 1);
  rp_status status = check_indices(node);
  if (status == RP_OK) status = check_dim(node);
  if (status != RP_OK) return status;
  if (idx->rank != 1) {
    char text[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE, "indices are %s, not a vector",
                        rp_dims_text(idx, text));
  }
  *out = *x;
  out->dims[node->ints[0]] = idx->dims[0];
  return RP_OK;
}

static int dim_range(const rp_node *node, rp_index_range *out) {
  return range_of(out, rp_in(node, 0)->dims[node->ints[0]]);
}

static int second_int_range(const rp_node *node, rp_index_range *out) {
  return range_of(out, node->ints[1]);
}

static void select_grad(rp_tape *tape, const rp_node *node,
                        rp_tensor *const *dy, rp_tensor **dx) {
  const int64_t dim = node->ints[0];
  const int64_t ints[2] = {dim, rp_in(node, 0)->dims[dim]};
  dx[0] = transpose(tape, node, &rp_op_index_select_grad, dy[0], ints, 2);
}

const rp_op rp_op_index_select = {
    .name = "index_select", .inputs = 2, .outputs = 1,
    .type = select_type, .grad = select_grad, .cost = read_cost,
    .ranges = dim_range,
};

static rp_status select_grad_type(const rp_node *node, rp_type *out) {
  const rp_type *dy = rp_in(node, 0), *idx = rp_in(node, 1);
  rp_status status = check_indices(node);
  if (status == RP_OK) status = check_dim(node);
  if (status == RP_OK) status = check_size(node, 1);
  if (status != RP_OK) return status;
  if (idx->rank != 1 || idx->dims[0] != dy->dims[node->ints[0]]) {
    char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE, "gradient %s of indices %s",
                        rp_dims_text(dy, a), rp_dims_text(idx, b));
  }
  *out = *dy;
  out->dims[node->ints[0]] = node->ints[1];
  return RP_OK;
}

static void select_grad_grad(rp_tape *tape, const rp_node *node,
                             rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = transpose(tape, node, &rp_op_index_select, dy[0], node->ints, 1);
}

const rp_op rp_op_index_select_grad = {
    .name = "index_select_grad", .inputs = 2, .outputs = 1,
    .type = select_grad_type, .grad = select_grad_grad, .cost = add_cost,
    .ranges = second_int_range,
};

/* ---- gather ------------------------------------------------------------- */

static rp_status gather_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0), *idx = rp_in(node, 1);
  rp_status status = check_indices(node);
  if (status == RP_OK) status = check_dim(node);
  if (status != RP_OK) return status;
  bool fits = x->rank == idx->rank;
  for (int i = 0; fits && i < x->rank; i++)
    fits = i == node->ints[0] || x->dims[i] == idx->dims[i];
  if (!fits) {
    char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE,
                        "indices %s for %s: only dim %lld may differ",
                        rp_dims_text(idx, a), rp_dims_text(x, b),
                        (long long)node->ints[0] + 1);
  }
  *out = *idx;
  out->dtype = x->dtype;
  return RP_OK;
}

static void gather_grad(rp_tape *tape, const rp_node *node,
                        rp_tensor *const *dy, rp_tensor **dx) {
  const int64_t dim = node->ints[0];
  const int64_t ints[2] = {dim, rp_in(node, 0)->dims[dim]};
  dx[0] = transpose(tape, node, &rp_op_gather_grad, dy[0], ints, 2);
}

const rp_op rp_op_gather = {
    .name = "gather", .inputs = 2, .outputs = 1,
    .type = gather_type, .grad = gather_grad, .cost = read_cost,
    .ranges = dim_range,
};

static rp_status gather_grad_type(const rp_node *node, rp_type *out) {
  const rp_type *dy = rp_in(node, 0), *idx = rp_in(node, 1);
  rp_status status = check_indices(node);
  if (status == RP_OK) status = check_dim(node);
  if (status == RP_OK) status = check_size(node, 1);
  if (status != RP_OK) return status;
  if (!rp_dims_equal(dy, idx)) {
    char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE, "gradient %s of indices %s",
                        rp_dims_text(dy, a), rp_dims_text(idx, b));
  }
  *out = *dy;
  out->dims[node->ints[0]] = node->ints[1];
  return RP_OK;
}

static void gather_grad_grad(rp_tape *tape, const rp_node *node,
                             rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = transpose(tape, node, &rp_op_gather, dy[0], node->ints, 1);
}

const rp_op rp_op_gather_grad = {
    .name = "gather_grad", .inputs = 2, .outputs = 1,
    .type = gather_grad_type, .grad = gather_grad_grad, .cost = add_cost,
    .ranges = second_int_range,
};
