/* Forward ops whose gradient makes their outputs too (op.h, makes): where a
   graph has both, the gradient alone runs. It stays in the backward pass,
   where no strategy can have it dropped and run again, unless somebody reads
   the forward node's values before; then it takes the forward node's place.

   Invariant: the two have the same operands, so where the one could run the
   other can; what reads the forward node's values comes after the node that
   makes them now. */
#include <string.h>

#include "graph/passes.h"

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

static bool is_read_before(const rp_graph *graph, const rp_graph_node *node,
                           int32_t before) {
  for (int32_t i = 0; i < before; i++) {
    const rp_graph_node *reader = &graph->nodes.at[i];
    for (int32_t k = 0; k < reader->n_operands; k++) {
      const int32_t value = rp_graph_in(graph, reader, k)->value;
      if (value >= node->first_value &&
          value < node->first_value + node->n_values)
        return true;
    }
  }
  return false;
}

/* Leaves node `forward` without a reader. */
static void join(rp_graph *graph, int32_t forward, int32_t gradient) {
  rp_graph_node *a = &graph->nodes.at[forward];
  rp_graph_node *b = &graph->nodes.at[gradient];
  int32_t place = gradient;
  if (is_read_before(graph, a, gradient)) {
    b->place = a->place;
    b->origin = a->origin;
    place = forward;
  }
  redirect(graph, a->first_value, a->n_values, b->first_value);
  if (place == forward) swap_nodes(graph, forward, gradient);
  for (int32_t i = 0; i < graph->ranges.n; i++) {
    int32_t *node = &graph->ranges.at[i].node;
    if (*node == forward || *node == gradient) *node = place;
  }
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
