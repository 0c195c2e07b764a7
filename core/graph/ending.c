/* Ops that do the work of what is behind them, too. See rp_graph_end.

   An add or a cast behind a product or a norm is one more pass over what was
   just written. Where the two are one node, its other operands must be there
   when the first of them runs; the node stays at that one's place, under the
   last one's name.

   Invariant of the walk: nodes below i read values of nodes that stay, whose
   readers are counted; moved[j] is the node that j went into, -1 where it
   stays; replaced[v] is the value that stands for v. */
#include <string.h>

#include "base/context.h"
#include "graph/graph.h"

typedef struct pair {
  int32_t front, behind, operand; /* which of behind's is front's output */
  const rp_op *whole;
} pair;

static const rp_ending *ending_of(const rp_op *op, const rp_op *behind) {
  for (int i = 0; i < RP_ENDINGS && op->ends[i].behind; i++)
    if (op->ends[i].behind == behind) return &op->ends[i];
  return NULL;
}

/* Node i's other operands lie like what it reads from the node `front`, and are
   there before that. */
static bool others_fit(const rp_graph *graph, int32_t i, int32_t operand,
                       int32_t front) {
  const rp_graph_node *node = &graph->nodes.at[i];
  const rp_type *made = &rp_graph_in(graph, node, operand)->type;
  for (int32_t k = 0; k < node->n_operands; k++) {
    const rp_operand *in = rp_graph_in(graph, node, k);
    if (k != operand &&
        (!rp_type_equal(&in->type, made) || in->strides.offset != 0 ||
         !rp_strides_are_contiguous(&in->type, &in->strides) ||
         (in->value >= 0 && graph->values.at[in->value].node >= front)))
      return false;
  }
  return true;
}

static bool same_rows(const rp_type *a, const rp_type *b) {
  return a->rank > 0 && b->rank > 0 && rp_type_count(a) == rp_type_count(b) &&
         a->dims[a->rank - 1] == b->dims[b->rank - 1];
}

/* `in` has each element of a value once, in order, in whatever dims. */
static bool is_all(const rp_graph *graph, const rp_operand *in) {
  return in->value >= 0 && in->strides.offset == 0 &&
         rp_type_count(&in->type) ==
             rp_type_count(&graph->values.at[in->value].type) &&
         rp_strides_are_contiguous(&in->type, &in->strides);
}

typedef struct search {
  const rp_graph *graph;
  const int32_t *readers;
  rp_runs *runs;
  const void *user;
} search;

/* Whether node i may go into the node that makes its operand k, by `end`. */
static bool may_end(const search *s, const rp_ending *end, int32_t i,
                    int32_t k) {
  const rp_graph *graph = s->graph;
  const rp_graph_node *node = &graph->nodes.at[i];
  const rp_operand *in = rp_graph_in(graph, node, k);
  const rp_graph_value *value = &graph->values.at[in->value];
  const rp_graph_node *front = &graph->nodes.at[value->node];
  const rp_type *first = &rp_graph_in(graph, front, 0)->type;
  const rp_type *result = &graph->values.at[node->first_value].type;
  return value->output == 0 && s->readers[in->value] == 1 && !value->keep &&
         !value->target &&
         (value->node < graph->n_forward) == (i < graph->n_forward) &&
         rp_graph_same_stretch(graph, front, node) &&
         (end->rows ? k == 0 && same_rows(&value->type, result)
                    : rp_dims_equal(&value->type, result)) &&
         end->fits(first, &value->type, result) &&
         others_fit(graph, i, k, value->node) &&
         s->runs(s->user, end->whole, (rp_dtype)first->dtype);
}

static bool find_pair(const search *s, int32_t i, pair *out) {
  const rp_graph *graph = s->graph;
  const rp_graph_node *node = &graph->nodes.at[i];
  if (!(node->op->flags & RP_ELEMENTWISE) || node->n_values != 1) return false;
  for (int32_t k = 0; k < node->n_operands; k++) {
    const rp_operand *in = rp_graph_in(graph, node, k);
    if (!is_all(graph, in)) continue;
    const int32_t front = graph->values.at[in->value].node;
    const rp_ending *end = ending_of(graph->nodes.at[front].op, node->op);
    if (end == NULL || (!end->rows && !rp_operand_is_whole(graph, in)) ||
        !may_end(s, end, i, k))
      continue;
    *out = (pair){front, i, k, end->whole};
    return true;
  }
  return false;
}

/* What node `behind` has of `size` bytes goes behind what `front` has. */
static bool append(rp_context *ctx, void *front, int32_t *n_front,
                   void *behind, int32_t n_behind, size_t size) {
  void **first = front, **second = behind;
  if (n_behind == 0) {
    rp_free(ctx, *second, 0);
    *second = NULL;
    return true;
  }
  char *all = rp_alloc(ctx, (size_t)(*n_front + n_behind) * size);
  if (all == NULL) return false;
  const size_t old = (size_t)*n_front * size;
  if (old) memcpy(all, *first, old);
  memcpy(all + old, *second, (size_t)n_behind * size);
  rp_free(ctx, *first, old);
  rp_free(ctx, *second, (size_t)n_behind * size);
  *first = all;
  *second = NULL;
  *n_front += n_behind;
  return true;
}

/* Leaves node `behind` without attributes, its value without a node. */
static rp_status merge(rp_graph *graph, rp_context *ctx, const pair *found) {
  rp_graph_node *front = &graph->nodes.at[found->front];
  rp_graph_node *behind = &graph->nodes.at[found->behind];
  const int32_t n = front->n_operands + behind->n_operands - 1;
  if (!rp_array_room(ctx, &graph->operands, sizeof(rp_operand), n) ||
      !append(ctx, &front->ints, &front->n_ints, &behind->ints, behind->n_ints,
              sizeof *front->ints))
    return RP_NOMEM;
  behind->n_ints = 0;
  if (!append(ctx, &front->reals, &front->n_reals, &behind->reals,
              behind->n_reals, sizeof *front->reals))
    return RP_NOMEM;
  behind->n_reals = 0;
  const int32_t first = graph->operands.n;
  for (int32_t k = 0; k < front->n_operands; k++)
    graph->operands.at[graph->operands.n++] = *rp_graph_in(graph, front, k);
  for (int32_t k = 0; k < behind->n_operands; k++)
    if (k != found->operand)
      graph->operands.at[graph->operands.n++] = *rp_graph_in(graph, behind, k);
  rp_graph_value *made = &graph->values.at[front->first_value];
  rp_graph_value *result = &graph->values.at[behind->first_value];
  const double between = (double)rp_value_bytes(graph, front->first_value);
  made->type = result->type;
  made->keep = result->keep;
  made->target = result->target;
  result->keep = result->target = false;
  front->op = found->whole;
  front->in_place = found->whole->in_place;
  front->first_operand = first;
  front->n_operands = n;
  front->flops += behind->flops;
  front->bytes += behind->bytes - 2 * between;
  if (found->behind < graph->n_forward) front->place = behind->place;
  return RP_OK;
}

static void read_replaced(rp_graph *graph, const rp_graph_node *node,
                          const int32_t *replaced) {
  for (int32_t k = 0; k < node->n_operands; k++) {
    int32_t *value = &graph->operands.at[node->first_operand + k].value;
    if (*value >= 0) *value = replaced[*value];
  }
}

rp_status rp_graph_end(rp_graph *graph, rp_context *ctx, rp_runs *runs,
                       const void *user) {
  const size_t values = (size_t)graph->values.n * sizeof(int32_t);
  const size_t nodes = (size_t)graph->nodes.n * sizeof(int32_t);
  int32_t *readers = rp_alloc(ctx, values), *replaced = rp_alloc(ctx, values);
  int32_t *moved = rp_alloc(ctx, nodes);
  const search s = {graph, readers, runs, user};
  rp_status status = readers && replaced && moved ? RP_OK : RP_NOMEM;
  if (status == RP_OK) rp_graph_count_readers(graph, readers);
  for (int32_t v = 0; v < graph->values.n && status == RP_OK; v++)
    replaced[v] = v;
  for (int32_t i = 0; i < graph->nodes.n && status == RP_OK; i++) {
    pair found;
    moved[i] = -1;
    read_replaced(graph, &graph->nodes.at[i], replaced);
    if (!find_pair(&s, i, &found)) continue;
    status = merge(graph, ctx, &found);
    const int32_t gone = graph->nodes.at[i].first_value;
    const int32_t made = graph->nodes.at[found.front].first_value;
    moved[i] = found.front;
    replaced[gone] = made;
    readers[made] = readers[gone];
  }
  for (int32_t t = 0; t < graph->targets.n && status == RP_OK; t++) {
    int32_t *value = &graph->targets.at[t];
    if (*value >= 0) *value = replaced[*value];
  }
  if (status == RP_OK) rp_graph_drop_moved(graph, moved);
  rp_free(ctx, readers, values);
  rp_free(ctx, replaced, values);
  rp_free(ctx, moved, nodes);
  return status;
}
