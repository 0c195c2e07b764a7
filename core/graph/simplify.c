/* Common subexpressions and dead nodes. See rp_graph_simplify.

   Invariant of the sweep: replaced[v] is set for every value of an earlier
   node; a node's operands are rewritten before it is compared. */
#include <string.h>

#include "base/context.h"
#include "base/map.h"
#include "graph/passes.h"

static uint64_t mix(uint64_t h, uint64_t x) {
  h = (h ^ x) * 0x9E3779B97F4A7C15u;
  return h ^ h >> 31;
}

static uint64_t node_hash(const rp_graph *graph, const rp_graph_node *node) {
  uint64_t h = rp_address(node->op);
  for (int32_t i = 0; i < node->n_operands; i++) {
    const rp_operand *in = rp_graph_in(graph, node, i);
    h = mix(h, (uint64_t)(int64_t)in->value);
    h = mix(h, (uint64_t)in->strides.offset);
  }
  for (int32_t i = 0; i < node->n_ints; i++) h = mix(h, (uint64_t)node->ints[i]);
  return h;
}

static bool same_place(const rp_place *a, const rp_place *b) {
  return a->layer == b->layer && a->entry == b->entry &&
         a->segment == b->segment;
}

static bool same_node(const rp_graph *graph, int32_t i, int32_t j) {
  const rp_graph_node *a = &graph->nodes.at[i], *b = &graph->nodes.at[j];
  if (a->op != b->op || a->n_operands != b->n_operands ||
      a->n_ints != b->n_ints || a->n_reals != b->n_reals ||
      a->n_values != b->n_values ||
      (i < graph->n_forward) != (j < graph->n_forward) ||
      !same_place(&a->place, &b->place))
    return false;
  for (int32_t k = 0; k < a->n_operands; k++)
    if (!rp_operand_equal(rp_graph_in(graph, a, k), rp_graph_in(graph, b, k)))
      return false;
  for (int32_t k = 0; k < a->n_values; k++)
    if (graph->values.at[a->first_value + k].keep !=
        graph->values.at[b->first_value + k].keep)
      return false;
  return memcmp(a->ints, b->ints, (size_t)a->n_ints * sizeof *a->ints) == 0 &&
         memcmp(a->reals, b->reals, (size_t)a->n_reals * sizeof *a->reals) == 0;
}

/* Constants of one dtype and value are one leaf. */
static void merge_constants(rp_graph *graph) {
  for (int32_t o = 0; o < graph->operands.n; o++) {
    rp_operand *in = &graph->operands.at[o];
    const int32_t leaf = rp_operand_leaf(in);
    if (leaf < 0 || graph->leaves.at[leaf].binding >= 0) continue;
    const rp_graph_leaf *a = &graph->leaves.at[leaf];
    for (int32_t j = 0; j < leaf; j++) {
      const rp_graph_leaf *b = &graph->leaves.at[j];
      if (b->binding < 0 && b->type.dtype == a->type.dtype &&
          memcmp(a->constant, b->constant, sizeof a->constant) == 0) {
        in->value = -1 - j;
        break;
      }
    }
  }
}

static bool is_target(const rp_graph *graph, const rp_graph_node *node) {
  for (int32_t k = 0; k < node->n_values; k++)
    if (graph->values.at[node->first_value + k].target) return true;
  return false;
}

/* Moves the nodes that are needed together; values and operands keep their
   indices, so only node numbers change. */
static rp_status drop_dead(rp_graph *graph, rp_context *ctx) {
  const size_t size = (size_t)graph->nodes.n * sizeof(int32_t);
  int32_t *moved = rp_alloc(ctx, size);
  if (moved == NULL) return RP_NOMEM;
  for (int32_t i = graph->nodes.n - 1; i >= 0; i--) {
    const rp_graph_node *node = &graph->nodes.at[i];
    if (!moved[i] && !(node->op->flags & RP_EFFECT) && !is_target(graph, node))
      continue;
    moved[i] = 1;
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t value = rp_graph_in(graph, node, k)->value;
      if (value >= 0) moved[graph->values.at[value].node] = 1;
    }
  }
  int32_t n = 0, n_forward = 0;
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    const rp_graph_node node = graph->nodes.at[i];
    if (!moved[i]) {
      rp_free(ctx, node.ints, (size_t)node.n_ints * sizeof *node.ints);
      rp_free(ctx, node.reals, (size_t)node.n_reals * sizeof *node.reals);
      moved[i] = -1;
      continue;
    }
    moved[i] = n;
    graph->nodes.at[n++] = node;
    if (i < graph->n_forward) n_forward = n;
  }
  graph->nodes.n = n;
  graph->n_forward = n_forward;
  rp_graph_renumber(graph, moved);
  rp_free(ctx, moved, size);
  return RP_OK;
}

static bool is_constant(const rp_graph *graph, const rp_operand *in,
                        double value) {
  const int32_t l = rp_operand_leaf(in);
  if (l < 0 || graph->leaves.at[l].binding >= 0) return false;
  const rp_graph_leaf *leaf = &graph->leaves.at[l];
  float single;
  double wide;
  memcpy(&single, leaf->constant, sizeof single);
  memcpy(&wide, leaf->constant, sizeof wide);
  return leaf->type.dtype == RP_F32   ? single == (float)value
         : leaf->type.dtype == RP_F64 ? wide == value
                                      : false;
}

/* The value that node i hands on as it is (rp_op.units), or -1: never across
   the border or out of a layer or a mark, see same_node. */
static int32_t passed_on(const rp_graph *graph, int32_t i) {
  const rp_graph_node *node = &graph->nodes.at[i];
  const rp_graph_value *made = &graph->values.at[node->first_value];
  for (int32_t k = 0; k < 2 && node->op->units >> k; k++) {
    const rp_operand *other = rp_graph_in(graph, node, 1 - k);
    if (!(node->op->units >> k & 1u) || other->value < 0 || made->keep ||
        !is_constant(graph, rp_graph_in(graph, node, k), node->op->unit))
      continue;
    const rp_graph_value *value = &graph->values.at[other->value];
    if (rp_type_equal(&value->type, &made->type) &&
        rp_type_equal(&other->type, &made->type) &&
        rp_strides_are_contiguous(&other->type, &other->strides) &&
        (i < graph->n_forward) == (value->node < graph->n_forward) &&
        same_place(&node->place, &graph->nodes.at[value->node].place))
      return other->value;
  }
  return -1;
}

static rp_status merge_nodes(rp_graph *graph, rp_context *ctx,
                             int32_t *replaced, rp_map *seen) {
  for (int32_t v = 0; v < graph->values.n; v++) replaced[v] = v;
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_operands; k++) {
      rp_operand *in = &graph->operands.at[node->first_operand + k];
      if (in->value >= 0) in->value = replaced[in->value];
    }
    if (node->op->flags & (RP_RANDOM | RP_EFFECT)) continue;
    const int32_t same =
        ctx->fuses && node->op->units ? passed_on(graph, i) : -1;
    if (same >= 0) {
      replaced[node->first_value] = same;
      continue;
    }
    /* Equal hashes of unequal nodes only hide a merge: the newest wins. */
    const uint64_t hash = node_hash(graph, node);
    const int32_t earlier = rp_map_get(seen, hash);
    if (earlier >= 0 && same_node(graph, earlier, i)) {
      const int32_t first = graph->nodes.at[earlier].first_value;
      for (int32_t k = 0; k < node->n_values; k++)
        replaced[node->first_value + k] = first + k;
    } else if (!rp_map_put(seen, ctx, hash, i)) {
      return RP_NOMEM;
    }
  }
  for (int32_t t = 0; t < graph->targets.n; t++) {
    int32_t *target = &graph->targets.at[t];
    if (*target < 0) continue;
    graph->values.at[*target].target = false;
    *target = replaced[*target];
  }
  for (int32_t t = 0; t < graph->targets.n; t++)
    if (graph->targets.at[t] >= 0)
      graph->values.at[graph->targets.at[t]].target = true;
  return RP_OK;
}

rp_status rp_graph_simplify(rp_graph *graph, rp_context *ctx) {
  const size_t size = (size_t)graph->values.n * sizeof(int32_t);
  int32_t *replaced = rp_alloc(ctx, size);
  if (replaced == NULL) return RP_NOMEM;
  rp_map seen = {0};
  merge_constants(graph);
  rp_status status = merge_nodes(graph, ctx, replaced, &seen);
  if (status == RP_OK) rp_graph_join(graph);
  if (status == RP_OK) status = drop_dead(graph, ctx);
  rp_map_free(&seen, ctx);
  rp_free(ctx, replaced, size);
  return status;
}
