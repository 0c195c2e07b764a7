/* Forward ops whose gradient makes their outputs too (op.h, makes): where a
   graph has both, the gradient takes the forward node's place.

   Invariant: the two have the same operands, so where the one could run the
   other can; readers of the forward node's values come after it and thus
   after the node that now stands there. */
#include <string.h>

#include "graph/graph.h"

static bool same_operands(const rp_graph *graph, const rp_graph_node *a,
                          const rp_graph_node *b) {
  if (a->n_operands != b->n_operands) return false;
  for (int32_t i = 0; i < a->n_operands; i++)
    if (!rp_operand_equal(rp_graph_in(graph, a, i), rp_graph_in(graph, b, i)))
      return false;
  return true;
}

static bool is_made_by(const rp_graph *graph, const rp_graph_node *forward,
                       const rp_graph_node *gradient) {
  return forward->op == gradient->op->makes &&
         gradient->n_ints > forward->n_ints &&
         memcmp(forward->ints, gradient->ints + 1,
                (size_t)forward->n_ints * sizeof *forward->ints) == 0 &&
         same_operands(graph, forward, gradient);
}

static void swap_nodes(rp_graph *graph, int32_t i, int32_t j) {
  rp_graph_node *a = &graph->nodes.at[i], *b = &graph->nodes.at[j];
  const rp_graph_node node = *a;
  *a = *b;
  *b = node;
  for (int32_t k = 0; k < a->n_values; k++)
    graph->values.at[a->first_value + k].node = i;
  for (int32_t k = 0; k < b->n_values; k++)
    graph->values.at[b->first_value + k].node = j;
}

/* Everything that reads values from..from+n-1 reads those from `to` on. */
static void redirect(rp_graph *graph, int32_t from, int32_t n, int32_t to) {
  for (int32_t o = 0; o < graph->operands.n; o++) {
    int32_t *value = &graph->operands.at[o].value;
    if (*value >= from && *value < from + n) *value += to - from;
  }
  for (int32_t t = 0; t < graph->targets.n; t++) {
    int32_t *value = &graph->targets.at[t];
    if (*value >= from && *value < from + n) *value += to - from;
  }
  for (int32_t k = 0; k < n; k++) {
    rp_graph_value *old = &graph->values.at[from + k];
    rp_graph_value *made = &graph->values.at[to + k];
    made->keep |= old->keep;
    made->target |= old->target;
    old->keep = old->target = false;
  }
}

/* Node `gradient` runs as node `forward`, which is left without a reader. */
static void join(rp_graph *graph, int32_t forward, int32_t gradient) {
  rp_graph_node *a = &graph->nodes.at[forward];
  rp_graph_node *b = &graph->nodes.at[gradient];
  b->place = a->place;
  b->origin = a->origin;
  redirect(graph, a->first_value, a->n_values, b->first_value);
  swap_nodes(graph, forward, gradient);
  for (int32_t i = 0; i < graph->ranges.n; i++)
    if (graph->ranges.at[i].node == gradient)
      graph->ranges.at[i].node = forward;
}

void rp_graph_join(rp_graph *graph) {
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    if (graph->nodes.at[i].op->makes == NULL) continue;
    for (int32_t j = 0; j < i; j++)
      if (is_made_by(graph, &graph->nodes.at[j], &graph->nodes.at[i])) {
        join(graph, j, i);
        break;
      }
  }
}
