/* Chains and small trees of elementwise ops as one node. See rp_graph_fuse.

   A group is an interval of consecutive nodes, the last of them its root: what
   the others make is read inside the interval alone, so nobody misses it, and
   no operand lives longer than the root's own would. Groups grow downwards
   from their root while that holds.

   Invariant of the walk: nodes above `at` are in their final group;
   readers[v] counts all operands that read v. */
#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "graph/passes.h"

enum { OPERANDS = 12 };

const rp_op rp_op_fused = {
    .name = "fused", .inputs = 1, .outputs = 1,
    .flags = RP_ELEMENTWISE | RP_STRIDED | RP_VARIADIC,
};

bool rp_graph_node_fuses(const rp_graph_node *node) {
  return node->op->flags & RP_ELEMENTWISE && node->n_values == 1 &&
         node->n_operands >= 1 && node->n_operands <= RP_PART_INPUTS &&
         node->op->effects == NULL &&
         !(node->op->flags & (RP_EFFECT | RP_COSTLY));
}

/* Whether node `at` may join the group at + 1 .. root: its value has the
   root's dims, and only the group reads it, as it lies. */
static bool may_join(const rp_graph *graph, const int32_t *readers, int32_t at,
                     int32_t root) {
  const rp_graph_node *node = &graph->nodes.at[at];
  const rp_graph_node *last = &graph->nodes.at[root];
  const rp_graph_value *value = &graph->values.at[node->first_value];
  const rp_graph_value *made = &graph->values.at[last->first_value];
  if (!rp_graph_node_fuses(node) ||
      !rp_graph_same_stretch(graph, node, last) || value->keep ||
      value->target || !rp_dims_equal(&value->type, &made->type) ||
      (at < graph->n_forward) != (root < graph->n_forward))
    return false;
  int32_t inside = 0, random = node->stream >= 0;
  for (int32_t i = at + 1; i <= root; i++) {
    const rp_graph_node *reader = &graph->nodes.at[i];
    random += reader->stream >= 0;
    for (int32_t k = 0; k < reader->n_operands; k++) {
      const rp_operand *in = rp_graph_in(graph, reader, k);
      if (in->value != node->first_value) continue;
      if (!rp_operand_is_whole(graph, in)) return false;
      inside++;
    }
  }
  return inside > 0 && inside == readers[node->first_value] && random <= 1;
}

/* What a group reads from outside, each once; their number, or more than
   OPERANDS. */
static int32_t collect_operands(const rp_graph *graph, int32_t first,
                                int32_t root, rp_operand out[OPERANDS]) {
  int32_t n = 0;
  for (int32_t i = first; i <= root; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_operands; k++) {
      const rp_operand *in = rp_graph_in(graph, node, k);
      const int32_t maker =
          in->value >= 0 ? graph->values.at[in->value].node : -1;
      bool known = maker >= first;
      for (int32_t j = 0; j < n && !known; j++)
        known = rp_operand_equal(&out[j], in);
      if (known) continue;
      if (n == OPERANDS) return n + 1;
      out[n++] = *in;
    }
  }
  return n;
}

/* part.in of node's operand. */
static int32_t input_of(const rp_graph *graph, const rp_operand *in,
                        int32_t first, const rp_operand *operands, int32_t n) {
  const int32_t maker = in->value >= 0 ? graph->values.at[in->value].node : -1;
  if (maker >= first) return -1 - (maker - first);
  for (int32_t j = 0; j < n; j++)
    if (rp_operand_equal(&operands[j], in)) return j;
  return 0;
}

/* Operand j may be overwritten by the output: tile after tile, the parts before
   the last have read theirs by then, and the last allows it. */
static bool may_overwrite(const rp_fusion *fusion, int32_t j) {
  const rp_part *last = &fusion->parts[fusion->n - 1];
  for (int32_t k = 0; k < last->n_in; k++)
    if (last->in[k] == j && !(last->op->in_place >> k & 1u)) return false;
  return true;
}

/* The others lose their attributes to root. */
rp_status rp_graph_make_fused(rp_graph *graph, rp_context *ctx, int32_t first,
                              int32_t root) {
  rp_operand operands[OPERANDS];
  const int32_t n = collect_operands(graph, first, root, operands);
  rp_fusion *fusion = rp_alloc(ctx, sizeof *fusion);
  if (fusion == NULL ||
      !rp_array_room(ctx, &graph->operands, sizeof(rp_operand), n)) {
    rp_free(ctx, fusion, sizeof *fusion);
    return RP_NOMEM;
  }
  rp_graph_node *made = &graph->nodes.at[root];
  double bytes = (double)rp_value_bytes(graph, made->first_value), flops = 0;
  size_t used = 0;
  for (int32_t i = first; i <= root; i++) {
    rp_graph_node *node = &graph->nodes.at[i];
    rp_part *part = &fusion->parts[fusion->n++];
    *part = (rp_part){.op = node->op, .ints = node->ints, .reals = node->reals,
                      .n_ints = node->n_ints, .n_reals = node->n_reals,
                      .n_in = node->n_operands,
                      .type = graph->values.at[node->first_value].type};
    for (int32_t k = 0; k < node->n_operands; k++)
      part->in[k] = input_of(graph, rp_graph_in(graph, node, k), first,
                             operands, n);
    node->ints = NULL;
    node->reals = NULL;
    node->n_ints = node->n_reals = 0;
    if (node->stream >= 0) made->stream = node->stream;
    flops += node->flops;
    if (used < sizeof fusion->name)
      used += (size_t)snprintf(fusion->name + used,
                               sizeof fusion->name - used, "%s%s",
                               i > first ? "+" : "", node->op->name);
  }
  made->op = &rp_op_fused;
  made->fusion = fusion;
  made->first_operand = graph->operands.n;
  made->n_operands = n;
  made->in_place = 0;
  for (int32_t j = 0; j < n; j++) {
    graph->operands.at[graph->operands.n++] = operands[j];
    bytes += rp_operand_bytes(graph, &operands[j]);
    made->in_place |= (uint32_t)may_overwrite(fusion, j) << j;
  }
  made->bytes = bytes;
  made->flops = flops;
  return RP_OK;
}

/* The first node of root's group. */
static int32_t group_of(const rp_graph *graph, const int32_t *readers,
                        int32_t root) {
  if (!rp_graph_node_fuses(&graph->nodes.at[root])) return root;
  rp_operand operands[OPERANDS];
  int32_t first = root;
  while (first > 0 && root - first + 1 < RP_PARTS &&
         may_join(graph, readers, first - 1, root) &&
         collect_operands(graph, first - 1, root, operands) <= OPERANDS)
    first--;
  return first;
}

/* moved[i] < 0: its group's root, the next that stays, stands for it. */
static void drop_fused(rp_graph *graph, int32_t *moved) {
  int32_t n = 0, n_forward = 0;
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    const bool stays = moved[i] >= 0;
    moved[i] = n;
    if (!stays) continue;
    graph->nodes.at[n++] = graph->nodes.at[i];
    if (i < graph->n_forward) n_forward = n;
  }
  graph->nodes.n = n;
  graph->n_forward = n_forward;
  rp_graph_renumber(graph, moved);
}

rp_status rp_graph_fuse(rp_graph *graph, rp_context *ctx) {
  const size_t values = (size_t)graph->values.n * sizeof(int32_t);
  const size_t nodes = (size_t)graph->nodes.n * sizeof(int32_t);
  int32_t *readers = rp_alloc(ctx, values), *moved = rp_alloc(ctx, nodes);
  rp_status status = readers && moved ? RP_OK : RP_NOMEM;
  if (status == RP_OK) rp_graph_count_readers(graph, readers);
  for (int32_t root = graph->nodes.n - 1; root >= 0 && status == RP_OK;
       root--) {
    const int32_t first = group_of(graph, readers, root);
    if (first == root) continue;
    status = rp_graph_make_fused(graph, ctx, first, root);
    for (; status == RP_OK && root > first; root--) moved[root - 1] = -1;
  }
  if (status == RP_OK) drop_fused(graph, moved);
  rp_free(ctx, readers, values);
  rp_free(ctx, moved, nodes);
  return status;
}
