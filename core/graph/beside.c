/* Ops that write, beside their output, what an elementwise op makes of it. See
   rp_graph_beside.

   A product's epilogue applies a GELU to sums that are still in registers; a
   node of its own reads and writes all of them once more. The result may then
   be off by a rounding from what the node makes of the stored output, so that
   a value must never be one of them under one strategy and the other under
   another. What decides is the graph: forward readers get the epilogue's.
   Backward readers do where backward reads nothing else of the op's, and it is
   kept or the op runs again. Where backward reads the output too, they get the
   node's, which is a backward node then: it need not be kept, as it need not
   before (rp_graph_find_light).

   Invariant: until nodes move, their numbers are the old ones, and a node whose
   work is done by another is still among them. */
#include <string.h>

#include "base/context.h"
#include "graph/graph.h"

typedef struct step {
  int32_t front;   /* of an elementwise node that goes: who does its work; -1 */
  int32_t insert;  /* such a node that runs right before this one, -1 */
  int32_t another; /* of an inserted one: the next of those, -1 */
  bool again;      /* it does not go, it moves */
} step;

typedef struct builder {
  rp_graph *graph;
  rp_context *ctx;
  rp_runs *runs;
  const void *user;
  step *steps; /* by node */
} builder;

static const rp_graph_node *reader_at(const rp_graph *graph, int32_t i,
                                      int32_t v) {
  const rp_graph_node *node = &graph->nodes.at[i];
  for (int32_t k = 0; k < node->n_operands; k++)
    if (rp_graph_in(graph, node, k)->value == v) return node;
  return NULL;
}

/* The first node of first .. end - 1, not `but`, that reads v; -1. */
static int32_t find_reader(const rp_graph *graph, int32_t v, int32_t first,
                           int32_t end, int32_t but) {
  for (int32_t i = first; i < end; i++)
    if (i != but && reader_at(graph, i, v)) return i;
  return -1;
}

/* Elementwise readers are one node with it (rp_graph_fuse), which passes over
   the output once in any case. */
static bool is_read_otherwise(const rp_graph *graph, int32_t v, int32_t maker) {
  if (graph->values.at[v].target) return true;
  for (int32_t i = maker + 1; i < graph->n_forward; i++) {
    const rp_graph_node *node = reader_at(graph, i, v);
    if (node && !(node->op->flags & RP_ELEMENTWISE)) return true;
  }
  return false;
}

/* The node whose work includes forward node i's, or -1. */
static int32_t front_of(const builder *b, int32_t i) {
  const rp_graph *graph = b->graph;
  const rp_graph_node *node = &graph->nodes.at[i];
  if (!(node->op->flags & RP_ELEMENTWISE) || node->n_operands != 1 ||
      node->n_values != 1)
    return -1;
  const rp_operand *in = rp_graph_in(graph, node, 0);
  if (!rp_operand_is_whole(graph, in)) return -1;
  const rp_graph_value *value = &graph->values.at[in->value];
  const rp_graph_node *front = &graph->nodes.at[value->node];
  const rp_graph_value *made = &graph->values.at[node->first_value];
  const bool fits =
      front->op->beside.behind == node->op && front->n_values == 1 &&
      rp_graph_same_stretch(graph, front, node) && !made->keep &&
      rp_type_equal(&value->type, &made->type) &&
      rp_graph_in(graph, front, 0)->type.dtype == made->type.dtype &&
      is_read_otherwise(graph, node->first_value, i) &&
      b->runs(b->user, front->op->beside.whole, (rp_dtype)made->type.dtype);
  return fits ? value->node : -1;
}

/* Readers from node `first` on, and targets where that is 0, read `to`. */
static void redirect(rp_graph *graph, int32_t from, int32_t to,
                     int32_t first) {
  for (int32_t i = first; i < graph->nodes.n; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_operands; k++) {
      int32_t *value = &graph->operands.at[node->first_operand + k].value;
      if (*value == from) *value = to;
    }
  }
  for (int32_t t = 0; t < graph->targets.n && first == 0; t++)
    if (graph->targets.at[t] == from) graph->targets.at[t] = to;
}

/* Output k of a node that renumbering tells; there is room. */
static int32_t add_value(rp_graph *graph, int32_t like, int32_t k) {
  rp_graph_value value = graph->values.at[like];
  value.output = k;
  graph->values.at[graph->values.n] = value;
  return graph->values.n++;
}

/* Node i's work becomes its front's. */
static void join(builder *b, int32_t i) {
  rp_graph *graph = b->graph;
  rp_graph_node *node = &graph->nodes.at[i];
  rp_graph_node *front = &graph->nodes.at[b->steps[i].front];
  int32_t output = front->first_value, made = node->first_value;
  const int32_t n_forward = graph->n_forward, n = graph->nodes.n;
  const int32_t backward = find_reader(graph, made, n_forward, n, i);
  const bool again =
      backward >= 0 && find_reader(graph, output, n_forward, n, i) >= 0;
  const bool needs_output = graph->values.at[output].keep ||
                            graph->values.at[output].target ||
                            find_reader(graph, output, 0, n, i) >= 0;
  front->op = front->op->beside.whole;
  front->in_place = front->op->in_place;
  front->flops += node->flops;
  if (!needs_output) {
    front->first_value = made;
    return;
  }
  front->bytes += (double)rp_value_bytes(graph, made);
  front->first_value = add_value(graph, output, 0);
  front->n_values = 2;
  add_value(graph, made, 1);
  redirect(graph, output, front->first_value, 0);
  redirect(graph, made, front->first_value + 1, 0);
  if (!again) return;
  node->first_value = add_value(graph, made, 0);
  graph->values.at[node->first_value].target = false;
  redirect(graph, front->first_value + 1, node->first_value, n_forward);
  node->origin = b->steps[i].front;
  node->place = (rp_place){.scope = node->place.scope};
  b->steps[i].again = true;
  b->steps[i].another = b->steps[backward].insert;
  b->steps[backward].insert = i;
}

/* Where each node is then; room is there. */
static void move_nodes(builder *b, rp_graph_node *to, int32_t *moved) {
  rp_graph *graph = b->graph;
  int32_t n = 0, n_forward = 0;
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    rp_graph_node *node = &graph->nodes.at[i];
    const step *at = &b->steps[i];
    for (int32_t k = at->insert; k >= 0; k = b->steps[k].another)
      to[n++] = graph->nodes.at[k];
    moved[i] = at->front >= 0 ? moved[at->front] : n;
    if (at->front < 0) {
      to[n++] = *node;
    } else if (!at->again) {
      rp_free(b->ctx, node->ints, 0);
      rp_free(b->ctx, node->reals, 0);
    }
    if (i < graph->n_forward) n_forward = n;
  }
  graph->nodes.n = n;
  graph->n_forward = n_forward;
  memcpy(graph->nodes.at, to, (size_t)n * sizeof *to);
  rp_graph_renumber(graph, moved);
}

/* The number of nodes whose work another does. */
static int32_t find_all(builder *b) {
  int32_t n = 0;
  for (int32_t i = 0; i < b->graph->nodes.n; i++) {
    b->steps[i] = (step){-1, -1, -1, false};
    if (i >= b->graph->n_forward) continue;
    const int32_t front = front_of(b, i);
    bool is_taken = false; /* one a front */
    for (int32_t j = front + 1; j < i && front >= 0; j++)
      is_taken |= b->steps[j].front == front;
    if (front < 0 || is_taken) continue;
    b->steps[i].front = front;
    n++;
  }
  return n;
}

rp_status rp_graph_beside(rp_graph *graph, rp_context *ctx, rp_runs *runs,
                          const void *user) {
  const size_t n = (size_t)graph->nodes.n;
  builder b = {graph, ctx, runs, user, rp_alloc(ctx, n * sizeof(step))};
  if (b.steps == NULL) return RP_NOMEM;
  const int32_t found = find_all(&b);
  rp_status status = RP_OK;
  if (found > 0) {
    rp_graph_node *to = rp_alloc(ctx, n * sizeof *to);
    int32_t *moved = rp_alloc(ctx, n * sizeof *moved);
    if (to && moved && rp_array_room(ctx, &graph->values,
                                     sizeof(rp_graph_value), 3 * found)) {
      for (int32_t i = 0; i < (int32_t)n; i++)
        if (b.steps[i].front >= 0) join(&b, i);
      move_nodes(&b, to, moved);
    } else {
      status = RP_NOMEM;
    }
    rp_free(ctx, to, n * sizeof *to);
    rp_free(ctx, moved, n * sizeof *moved);
  }
  rp_free(ctx, b.steps, n * sizeof(step));
  return status;
}
