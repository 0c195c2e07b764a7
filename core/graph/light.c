/* Values that need not be kept for backward: it does not read them, or a few
   cheap ops make them again from what it reads in any case. See
   rp_graph_find_light.

   Invariant of the sweep: both marks are decided for every value of an earlier
   node, and a light value is made by cheap ops alone from leaves and from
   values that have neither mark. */
#include "base/context.h"
#include "graph/passes.h"

/* CHAIN: how many bytes may be read and written again for each byte that need
   not be kept: about eight elementwise ops in a row, of which readers on the
   way share most, so that it is less time than a product takes to make the
   value. LEAST: what is smaller is not worth an instruction, and no
   instruction counts for less. */
enum { CHAIN = 16, LEAST = 256 };

static bool is_cheap(const rp_graph_node *node) {
  return !(node->op->flags & (RP_COSTLY | RP_EFFECT)) &&
         node->op->effects == NULL;
}

/* The traffic of making v again, or more than `limit` where that is more or
   not possible. Each node on the way takes its bytes off the limit, so the
   recursion is bounded by it. */
static double remake_bytes(const rp_graph *graph, int32_t v, double limit) {
  const rp_graph_node *node = &graph->nodes.at[graph->values.at[v].node];
  if (!is_cheap(node)) return limit + 1;
  double bytes = node->bytes > LEAST ? node->bytes : LEAST;
  for (int32_t k = 0; k < node->n_operands && bytes <= limit; k++) {
    const int32_t w = rp_graph_in(graph, node, k)->value;
    if (w < 0 || !(graph->values.at[w].light || graph->values.at[w].unread))
      continue;
    bytes += remake_bytes(graph, w, limit - bytes);
  }
  return bytes;
}

rp_status rp_graph_find_light(rp_graph *graph, rp_context *ctx) {
  const size_t size = (size_t)graph->values.n * sizeof(bool);
  /* By backward; and before it, else a value is made at the border and there is
     nothing to gain. */
  bool *is_read = rp_alloc(ctx, size), *is_passed = rp_alloc(ctx, size);
  if (is_read == NULL || is_passed == NULL) {
    rp_free(ctx, is_read, size);
    rp_free(ctx, is_passed, size);
    return RP_NOMEM;
  }
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t v = rp_graph_in(graph, node, k)->value;
      if (v >= 0) (i < graph->n_forward ? is_passed : is_read)[v] = true;
    }
  }
  for (int32_t i = 0; i < graph->n_forward; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_values; k++) {
      const int32_t v = node->first_value + k;
      rp_graph_value *value = &graph->values.at[v];
      const double bytes = (double)rp_value_bytes(graph, v);
      const bool held = value->keep || value->target;
      value->unread = !held && !is_read[v];
      value->light = !held && is_read[v] && is_passed[v] && bytes >= LEAST &&
                     remake_bytes(graph, v, CHAIN * bytes) <= CHAIN * bytes;
    }
  }
  rp_free(ctx, is_read, size);
  rp_free(ctx, is_passed, size);
  return RP_OK;
}
