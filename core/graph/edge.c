/* Reductions at the edge of what they reduce. See rp_graph_fold.

   A reduction has one operand alone, so it may run as early as that is there:
   the node that does both is at the maker's place, and no operand lives longer
   for it. What it leaves is smaller than what the maker left.

   Invariant of the walk: moved[i] is the node that i went into, -1 where it
   stays; replaced[v] is the value that stands for v. */
#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "graph/graph.h"

const rp_op rp_op_fused_fold = {
    .name = "fused_fold", .inputs = 1, .outputs = 1,
    .flags = RP_STRIDED | RP_VARIADIC,
};

/* `in` reads the value's elements in their order, whatever it takes its dims
   to be. */
static bool is_linear(const rp_graph *graph, const rp_operand *in) {
  const rp_type *made = &graph->values.at[in->value].type;
  return in->strides.offset == 0 && in->type.dtype == made->dtype &&
         rp_type_count(&in->type) == rp_type_count(made) &&
         rp_strides_are_contiguous(&in->type, &in->strides);
}

bool rp_graph_may_fold(const rp_graph *graph, const rp_graph_node *maker,
                       const rp_graph_node *node, rp_runs *runs,
                       const void *user) {
  if (!(node->op->flags & RP_FOLDS) || node->n_operands != 1) return false;
  const rp_operand *in = rp_graph_in(graph, node, 0);
  return (maker->op == &rp_op_fused || rp_graph_node_fuses(maker)) &&
         is_linear(graph, in) && rp_graph_same_stretch(graph, maker, node) &&
         rp_dtype_is_float((rp_dtype)in->type.dtype) &&
         runs(user, &rp_op_fused_fold,
              (rp_dtype)rp_graph_in(graph, maker, 0)->type.dtype);
}

/* The node that node i goes into, or -1. */
static int32_t maker_of(const rp_graph *graph, const int32_t *readers,
                        int32_t i, rp_runs *runs, const void *user) {
  const rp_graph_node *node = &graph->nodes.at[i];
  const int32_t v =
      node->n_operands == 1 ? rp_graph_in(graph, node, 0)->value : -1;
  if (v < 0 || readers[v] != 1) return -1;
  const rp_graph_value *value = &graph->values.at[v];
  const bool fits =
      !value->keep && !value->target &&
      (value->node < graph->n_forward) == (i < graph->n_forward) &&
      rp_graph_may_fold(graph, &graph->nodes.at[value->node], node, runs,
                        user);
  return fits ? value->node : -1;
}

/* Leaves node i without attributes, its value without a node. */
static rp_status fold_into(rp_graph *graph, rp_context *ctx, int32_t at,
                           int32_t i) {
  rp_graph_node *maker = &graph->nodes.at[at], *node = &graph->nodes.at[i];
  if (maker->fusion == NULL) {
    const rp_status status = rp_graph_make_fused(graph, ctx, at, at);
    if (status != RP_OK) return status;
  }
  rp_fusion *fusion = maker->fusion;
  rp_graph_value *made = &graph->values.at[maker->first_value];
  rp_graph_value *result = &graph->values.at[node->first_value];
  fusion->fold = (rp_part){.op = node->op, .ints = node->ints,
                           .reals = node->reals, .n_ints = node->n_ints,
                           .n_reals = node->n_reals, .n_in = 1,
                           .in = {-fusion->n}, .type = result->type};
  fusion->folded = rp_graph_in(graph, node, 0)->type;
  const size_t used = strlen(fusion->name);
  snprintf(fusion->name + used, sizeof fusion->name - used, "+%s",
           node->op->name);
  node->ints = NULL;
  node->reals = NULL;
  node->n_ints = node->n_reals = 0;
  maker->bytes += node->bytes - 2 * (double)rp_type_bytes(&made->type);
  maker->flops += node->flops;
  maker->op = &rp_op_fused_fold;
  maker->in_place = 0;
  made->type = result->type;
  made->keep = result->keep;
  made->target = result->target;
  result->keep = result->target = false;
  if (i < graph->n_forward) maker->place = node->place;
  return RP_OK;
}

static void read_replaced(rp_graph *graph, const int32_t *replaced) {
  for (int32_t o = 0; o < graph->operands.n; o++) {
    int32_t *value = &graph->operands.at[o].value;
    if (*value >= 0) *value = replaced[*value];
  }
  for (int32_t t = 0; t < graph->targets.n; t++) {
    int32_t *value = &graph->targets.at[t];
    if (*value >= 0) *value = replaced[*value];
  }
}

rp_status rp_graph_fold(rp_graph *graph, rp_context *ctx, rp_runs *runs,
                        const void *user) {
  const size_t values = (size_t)graph->values.n * sizeof(int32_t);
  const size_t nodes = (size_t)graph->nodes.n * sizeof(int32_t);
  int32_t *readers = rp_alloc(ctx, values), *replaced = rp_alloc(ctx, values);
  int32_t *moved = rp_alloc(ctx, nodes);
  rp_status status = readers && replaced && moved ? RP_OK : RP_NOMEM;
  if (status == RP_OK) rp_graph_count_readers(graph, readers);
  for (int32_t v = 0; v < graph->values.n && status == RP_OK; v++)
    replaced[v] = v;
  for (int32_t i = 0; i < graph->nodes.n && status == RP_OK; i++) {
    moved[i] = -1;
    const int32_t at = maker_of(graph, readers, i, runs, user);
    if (at < 0) continue;
    status = fold_into(graph, ctx, at, i);
    moved[i] = at;
    replaced[graph->nodes.at[i].first_value] =
        graph->nodes.at[at].first_value;
  }
  if (status == RP_OK) {
    read_replaced(graph, replaced);
    rp_graph_drop_moved(graph, moved);
  }
  rp_free(ctx, readers, values);
  rp_free(ctx, replaced, values);
  rp_free(ctx, moved, nodes);
  return status;
}
