/* Light values that both halves make in passing. See rp_graph_repeat.

   A value that one forward group reads and backward, too, must be written, for
   two groups read it; and it is light: backward has it made again. As two
   nodes, one a half, each is a part of its half's group and nothing is
   written.

   position[v] >= 0: value v is to be made again, in front of that node.
   Invariant of the walk from the last forward node: positions are final for
   the values of the nodes behind it. */
#include <string.h>

#include "base/context.h"
#include "graph/graph.h"

typedef struct repeat {
  rp_graph *graph;
  rp_context *ctx;
  rp_runs *runs;
  const void *user;
  bool *apart;       /* somebody reads the value who joins no group with it */
  int32_t *position;
  int32_t *again;    /* the value that backward reads in its place, -1 */
  int32_t n;
} repeat;

static bool joins(const repeat *r, const rp_graph_node *node,
                  const rp_operand *in) {
  const rp_graph *graph = r->graph;
  const rp_graph_value *value = &graph->values.at[in->value];
  const rp_graph_node *maker = &graph->nodes.at[value->node];
  if (!rp_graph_same_stretch(graph, maker, node)) return false;
  if (rp_graph_node_fuses(node))
    return rp_operand_is_whole(graph, in) &&
           rp_dims_equal(&graph->values.at[node->first_value].type,
                         &value->type);
  return rp_graph_may_fold(graph, maker, node, r->runs, r->user);
}

static void find_readers(repeat *r) {
  const rp_graph *graph = r->graph;
  for (int32_t v = 0; v < graph->values.n; v++)
    r->position[v] = r->again[v] = -1;
  for (int32_t i = graph->nodes.n - 1; i >= 0; i--) {
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_operands; k++) {
      const rp_operand *in = rp_graph_in(graph, node, k);
      if (in->value < 0) continue;
      if (!joins(r, node, in)) r->apart[in->value] = true;
      if (i >= graph->n_forward) r->position[in->value] = i;
    }
  }
}

/* Whether v can be made again from what backward reads or makes again in any
   case, by a group that it belongs to. */
static bool may_repeat(const repeat *r, int32_t v, int depth) {
  const rp_graph *graph = r->graph;
  const rp_graph_value *value = &graph->values.at[v];
  const rp_graph_node *node = &graph->nodes.at[value->node];
  if (depth == RP_PARTS || !rp_graph_node_fuses(node)) return false;
  for (int32_t k = 0; k < node->n_operands; k++) {
    const rp_operand *in = rp_graph_in(graph, node, k);
    if (in->value < 0 || !graph->values.at[in->value].unread) continue;
    if (!joins(r, node, in) || !may_repeat(r, in->value, depth + 1))
      return false;
  }
  return true;
}

/* Leaves positions where a value is made again, and only there. */
static void choose(repeat *r) {
  const rp_graph *graph = r->graph;
  for (int32_t i = graph->n_forward - 1; i >= 0; i--) {
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_values; k++) {
      const int32_t v = node->first_value + k;
      const rp_graph_value *value = &graph->values.at[v];
      const bool wanted = value->unread || (value->light && !r->apart[v]);
      if (r->position[v] >= 0 && !(wanted && may_repeat(r, v, 0)))
        r->position[v] = -1;
    }
    const int32_t at = r->position[node->first_value];
    if (node->n_values != 1 || at < 0) continue;
    r->n++;
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t w = rp_graph_in(graph, node, k)->value;
      if (w < 0) continue;
      const bool unread = graph->values.at[w].unread;
      int32_t *position = &r->position[w];
      if ((unread && *position < 0) || (*position >= 0 && at < *position))
        *position = at;
    }
  }
}

static void *copy_of(repeat *r, const void *from, size_t size,
                     rp_status *status) {
  if (size == 0) return NULL;
  void *to = rp_alloc(r->ctx, size);
  if (to) memcpy(to, from, size);
  else *status = RP_NOMEM;
  return to;
}

/* Backward's node for what forward's node `from` makes. There is room. */
static rp_graph_node make_again(repeat *r, int32_t from, rp_place place,
                                rp_status *status) {
  rp_graph *graph = r->graph;
  rp_graph_node node = graph->nodes.at[from];
  rp_graph_value made = graph->values.at[node.first_value];
  node.ints = copy_of(r, node.ints, (size_t)node.n_ints * sizeof *node.ints,
                      status);
  node.reals = copy_of(r, node.reals,
                       (size_t)node.n_reals * sizeof *node.reals, status);
  if (node.ints == NULL) node.n_ints = 0;
  if (node.reals == NULL) node.n_reals = 0;
  node.origin = from;
  node.place = place;
  const int32_t first = graph->operands.n;
  for (int32_t k = 0; k < node.n_operands; k++)
    graph->operands.at[graph->operands.n++] = *rp_graph_in(graph, &node, k);
  node.first_operand = first;
  r->again[node.first_value] = graph->values.n;
  node.first_value = graph->values.n;
  made.light = made.unread = false;
  graph->values.at[graph->values.n++] = made;
  return node;
}

/* How many operands the nodes to be made again have. */
static int32_t count_operands(const repeat *r) {
  int32_t n = 0;
  for (int32_t i = 0; i < r->graph->n_forward; i++) {
    const rp_graph_node *node = &r->graph->nodes.at[i];
    if (node->n_values == 1 && r->position[node->first_value] >= 0)
      n += node->n_operands;
  }
  return n;
}

static rp_status insert(repeat *r) {
  rp_graph *graph = r->graph;
  const int32_t old = graph->nodes.n;
  const size_t size = (size_t)old * sizeof(int32_t);
  int32_t *moved = rp_alloc(r->ctx, size);
  if (moved == NULL ||
      !rp_array_room(r->ctx, &graph->nodes, sizeof(rp_graph_node), r->n) ||
      !rp_array_room(r->ctx, &graph->values, sizeof(rp_graph_value), r->n) ||
      !rp_array_room(r->ctx, &graph->operands, sizeof(rp_operand),
                     count_operands(r))) {
    rp_free(r->ctx, moved, size);
    return RP_NOMEM;
  }
  rp_status status = RP_OK;
  int32_t to = old + r->n, left = r->n;
  for (int32_t i = old - 1; i >= 0; i--) {
    const rp_graph_node node = graph->nodes.at[i];
    graph->nodes.at[--to] = node;
    moved[i] = to;
    for (int32_t j = graph->n_forward - 1;
         i >= graph->n_forward && left > 0 && j >= 0; j--) {
      const rp_graph_node *from = &graph->nodes.at[j];
      if (from->n_values != 1 || r->position[from->first_value] != i) continue;
      graph->nodes.at[--to] = make_again(r, j, node.place, &status);
      left--;
    }
  }
  graph->nodes.n = old + r->n;
  for (int32_t i = graph->n_forward; i < graph->nodes.n; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_operands; k++) {
      int32_t *value = &graph->operands.at[node->first_operand + k].value;
      if (*value >= 0 && *value < graph->values.n - r->n &&
          r->again[*value] >= 0)
        *value = r->again[*value];
    }
  }
  rp_graph_renumber(graph, moved);
  rp_free(r->ctx, moved, size);
  return status;
}

rp_status rp_graph_repeat(rp_graph *graph, rp_context *ctx, rp_runs *runs,
                          const void *user) {
  const size_t numbers = (size_t)graph->values.n * sizeof(int32_t);
  const size_t flags = (size_t)graph->values.n * sizeof(bool);
  repeat r = {.graph = graph, .ctx = ctx, .runs = runs, .user = user};
  rp_status status = rp_graph_find_light(graph, ctx);
  if (status != RP_OK) return status;
  r.apart = rp_alloc(ctx, flags);
  r.position = rp_alloc(ctx, numbers);
  r.again = rp_alloc(ctx, numbers);
  if (r.apart == NULL || r.position == NULL || r.again == NULL)
    status = RP_NOMEM;
  if (status == RP_OK) {
    find_readers(&r);
    choose(&r);
    if (r.n > 0) status = insert(&r);
  }
  rp_free(ctx, r.apart, flags);
  rp_free(ctx, r.position, numbers);
  rp_free(ctx, r.again, numbers);
  return status;
}
