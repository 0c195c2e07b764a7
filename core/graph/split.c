/* Ops that are two (rp_op.parts), told apart. See rp_graph_split. */
#include <string.h>

#include "base/context.h"
#include "graph/passes.h"

static bool splits(const rp_graph *graph, int32_t i) {
  return i < graph->n_forward && graph->nodes.at[i].op->parts[0] != NULL;
}

static rp_status copy_attributes(rp_context *ctx, rp_graph_node *node) {
  const size_t ints = (size_t)node->n_ints * sizeof *node->ints;
  const size_t reals = (size_t)node->n_reals * sizeof *node->reals;
  int64_t *own_ints = rp_alloc(ctx, ints);
  double *own_reals = rp_alloc(ctx, reals);
  if (own_ints == NULL || own_reals == NULL) {
    rp_free(ctx, own_ints, ints);
    rp_free(ctx, own_reals, reals);
    return RP_NOMEM;
  }
  if (ints) memcpy(own_ints, node->ints, ints);
  if (reals) memcpy(own_reals, node->reals, reals);
  node->ints = own_ints;
  node->reals = own_reals;
  return RP_OK;
}

/* Makes `rest` of the node's outputs 1.. and returns output 0's own node, which
   reads them behind the node's operands. Room for the operands is there. */
static rp_graph_node take_first(rp_graph *graph, rp_graph_node *rest) {
  rp_graph_node first = *rest;
  first.op = rest->op->parts[1];
  first.in_place = first.op->in_place;
  first.first_operand = graph->operands.n;
  for (int32_t k = 0; k < rest->n_operands; k++)
    graph->operands.at[graph->operands.n++] = *rp_graph_in(graph, rest, k);
  for (int32_t k = 1; k < rest->n_values; k++) {
    rp_operand in = {.value = rest->first_value + k};
    in.type = graph->values.at[in.value].type;
    rp_strides_contiguous(&in.type, &in.strides);
    graph->operands.at[graph->operands.n++] = in;
    graph->values.at[in.value].output = k - 1;
  }
  first.n_operands = graph->operands.n - first.first_operand;
  first.n_values = 1;
  const double written = (double)rp_value_bytes(graph, rest->first_value);
  rest->op = rest->op->parts[0];
  rest->in_place = rest->op->in_place;
  rest->first_value++;
  rest->n_values--;
  rest->bytes -= written;
  rest->flops /= 2;
  first.flops /= 2;
  return first;
}

rp_status rp_graph_split(rp_graph *graph, rp_context *ctx) {
  int32_t extra = 0, operands = 0;
  for (int32_t i = 0; i < graph->n_forward; i++)
    if (splits(graph, i)) {
      extra++;
      operands += graph->nodes.at[i].n_operands + graph->nodes.at[i].n_values;
    }
  if (extra == 0 || graph->n_forward == graph->nodes.n) return RP_OK;
  const int32_t n = graph->nodes.n;
  const size_t size = (size_t)n * sizeof(int32_t);
  int32_t *moved = rp_alloc(ctx, size); /* to where the last part is */
  if (moved == NULL || !rp_array_room(ctx, &graph->operands,
                                      sizeof(rp_operand), operands) ||
      !rp_array_room(ctx, &graph->nodes, sizeof(rp_graph_node), extra)) {
    rp_free(ctx, moved, size);
    return RP_NOMEM;
  }
  /* Attributes first: nothing can fail once nodes have moved. The copies wait
     at the end of the nodes, in order. */
  rp_status status = RP_OK;
  for (int32_t i = 0; i < graph->n_forward && status == RP_OK; i++) {
    if (!splits(graph, i)) continue;
    rp_graph_node copy = graph->nodes.at[i];
    copy.first_operand = copy.n_operands = copy.first_value = 0;
    copy.n_values = 0;
    status = copy_attributes(ctx, &copy);
    if (status == RP_OK) graph->nodes.at[graph->nodes.n++] = copy;
  }
  if (status != RP_OK) { /* the copies go with the graph */
    rp_free(ctx, moved, size);
    return status;
  }
  RP_ARRAY(rp_graph_node) made = {0};
  if (!rp_array_room(ctx, &made, sizeof(rp_graph_node), n + extra)) {
    rp_free(ctx, moved, size);
    return RP_NOMEM;
  }
  int32_t copy = n;
  for (int32_t i = 0; i < n; i++) {
    rp_graph_node node = graph->nodes.at[i];
    if (splits(graph, i)) {
      rp_graph_node first = take_first(graph, &node);
      first.ints = graph->nodes.at[copy].ints;
      first.reals = graph->nodes.at[copy].reals;
      copy++;
      made.at[made.n++] = node;
      made.at[made.n++] = first;
    } else {
      made.at[made.n++] = node;
    }
    moved[i] = made.n - 1;
  }
  rp_array_free(ctx, &graph->nodes, sizeof(rp_graph_node));
  graph->nodes.at = made.at;
  graph->nodes.n = made.n;
  graph->nodes.capacity = made.capacity;
  graph->n_forward += extra;
  rp_graph_renumber(graph, moved);
  rp_free(ctx, moved, size);
  return RP_OK;
}
