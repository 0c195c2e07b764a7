/* Rules that many records share. */
#include <string.h>

#include "graph/op.h"

rp_status rp_type_like_first(const rp_node *node, rp_type *out) {
  out[0] = *rp_in(node, 0);
  return RP_OK;
}

rp_status rp_type_one_dtype(const rp_node *node) {
  for (int i = 1; i < node->n_inputs; i++)
    if (rp_in(node, i)->dtype != rp_in(node, 0)->dtype)
      return rp_node_fail(node, RP_DTYPE, "%s and %s differ",
                          rp_dtype_name((rp_dtype)rp_in(node, 0)->dtype),
                          rp_dtype_name((rp_dtype)rp_in(node, i)->dtype));
  return RP_OK;
}

/* A number beside bf16 is f32 and leaves the result bf16: it is the result
   that is to be kept in 8 bits, not 0.1. */
static bool is_number(const rp_node *node, int i) {
  const rp_leaf_data *leaf = node->inputs[i]->node->leaf;
  return leaf && leaf->role == RP_NUMBER && rp_in(node, i)->rank == 0;
}

/* What a and b, values of inputs i and j, give together; RP_DTYPES: they do
   not go together. */
static rp_dtype common_dtype(const rp_node *node, rp_dtype a, int i,
                             rp_dtype b, int j) {
  if (a == b) return a;
  if (a == RP_BF16 && b == RP_F32) return is_number(node, j) ? a : b;
  if (a == RP_F32 && b == RP_BF16) return is_number(node, i) ? b : a;
  return RP_DTYPES;
}

rp_status rp_type_broadcast(const rp_node *node, rp_type *out) {
  *out = *rp_in(node, 0);
  for (int i = 1; i < node->n_inputs; i++) {
    const rp_type *b = rp_in(node, i);
    const rp_dtype dtype = common_dtype(node, (rp_dtype)out->dtype, 0,
                                        (rp_dtype)b->dtype, i);
    if (dtype == RP_DTYPES)
      return rp_node_fail_dtypes(node, (rp_dtype)out->dtype,
                                 (rp_dtype)b->dtype);
    out->dtype = dtype;
    const rp_type a = *out;
    out->rank = a.rank > b->rank ? a.rank : b->rank;
    for (int k = 0; k < out->rank; k++) {
      const int at = out->rank - 1 - k; /* from the last dim backwards */
      const int64_t m = k < a.rank ? a.dims[a.rank - 1 - k] : 1;
      const int64_t n = k < b->rank ? b->dims[b->rank - 1 - k] : 1;
      if (m != n && m != 1 && n != 1) {
        char first[RP_DIMS_TEXT], second[RP_DIMS_TEXT];
        return rp_node_fail(node, RP_SHAPE,
                            "%s and %s do not broadcast: %lld and %lld at dim "
                            "%d from the end",
                            rp_dims_text(&a, first), rp_dims_text(b, second),
                            (long long)m, (long long)n, k + 1);
      }
      out->dims[at] = m == 1 ? n : m;
    }
  }
  return RP_OK;
}

rp_cost rp_cost_elementwise(const rp_node *node) {
  rp_cost cost = {0, 0};
  for (int i = 0; i < node->n_inputs; i++)
    cost.bytes += (double)rp_type_bytes(rp_in(node, i));
  for (int k = 0; k < node->n_outputs; k++) {
    cost.bytes += (double)rp_type_bytes(&node->outputs[k].type);
    cost.flops += (double)rp_type_count(&node->outputs[k].type);
  }
  return cost;
}
