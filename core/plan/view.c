/* The graph as a strategy sees it: nodes, layers, blocks.

   A layer is a stretch of forward nodes of one layer instance; where no node
   has one, of one child of the outermost Sequential. A block is a stretch
   between two cuts of the forward order that a single value crosses; values
   on no path of a gradient (tokens, masks, noise, what is frozen) count only
   where nothing else crosses. */
#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "graph/recorder.h"
#include "plan/plan.h"

enum { BLOCK_NAME = 24 };

struct rp_view_data {
  rp_view view;
  rp_view_node *nodes;
  int32_t *inputs;
  RP_ARRAY(rp_view_span) layers;
  RP_ARRAY(rp_view_span) blocks;
  char (*block_names)[BLOCK_NAME];
  int32_t n_names;
};

/* The last forward reader, whether backward reads it, and the last node of
   the span that counted it as input; by value. An effect runs as soon as what
   it reads is there, wherever it was recorded, so it is no reader. */
typedef struct readers {
  int32_t last_forward, counted;
  bool backward;
} readers;

static void find_readers(const rp_graph *graph, readers *all) {
  for (int32_t v = 0; v < graph->values.n; v++)
    all[v] = (readers){.last_forward = -1, .counted = -1};
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t v = rp_graph_in(graph, node, k)->value;
      if (v < 0) continue;
      if (i >= graph->n_forward) all[v].backward = true;
      else if (!(node->op->flags & RP_EFFECT)) all[v].last_forward = i;
    }
  }
}

static void describe_span(const rp_graph *graph, readers *all,
                          const rp_view_node *nodes, rp_view_span *span) {
  for (int32_t i = span->first; i <= span->last; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    span->flops += nodes[i].flops;
    span->seconds += nodes[i].seconds;
    for (int32_t k = 0; k < node->n_values; k++)
      if (all[node->first_value + k].backward)
        span->saved_bytes += rp_value_bytes(graph, node->first_value + k);
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t v = rp_graph_in(graph, node, k)->value;
      if (v < 0 || graph->values.at[v].node >= span->first ||
          all[v].counted == span->last)
        continue;
      all[v].counted = span->last;
      span->input_bytes += rp_value_bytes(graph, v);
    }
  }
}

static rp_status add_layers(struct rp_view_data *data, rp_plan *plan) {
  const rp_graph *graph = &plan->graph;
  bool layered = false;
  for (int32_t i = 0; i < graph->n_forward; i++)
    layered |= graph->nodes.at[i].place.layer != 0;
  int32_t open = 0;
  for (int32_t i = 0; i < graph->n_forward; i++) {
    const rp_place *place = &graph->nodes.at[i].place;
    const int32_t instance = layered ? place->layer : place->entry;
    const int32_t scope = layered ? place->layer_scope : place->entry_scope;
    if (instance != 0 && instance == open) {
      data->layers.at[data->layers.n - 1].last = i;
    } else if (instance != 0) {
      if (!rp_array_room(plan->ctx, &data->layers, sizeof(rp_view_span), 1))
        return RP_NOMEM;
      data->layers.at[data->layers.n++] = (rp_view_span){
          .name = rp_scope_text(plan->ctx, scope), .first = i, .last = i};
    }
    open = instance;
    data->nodes[i].layer = instance != 0 ? data->layers.n - 1 : -1;
  }
  return RP_OK;
}

void rp_find_paths(const rp_graph *graph, bool *on_path) {
  for (int32_t i = 0; i < graph->n_forward; i++) on_path[i] = false;
  for (int32_t i = graph->n_forward; i < graph->nodes.n; i++)
    if (graph->nodes.at[i].origin >= 0)
      on_path[graph->nodes.at[i].origin] = true;
  for (int32_t i = 0; i < graph->n_forward; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_operands && !on_path[i]; k++) {
      const int32_t v = rp_graph_in(graph, node, k)->value;
      on_path[i] = v >= 0 && on_path[graph->values.at[v].node];
    }
  }
}

/* Values that cross the cut behind each node. */
typedef struct crossing {
  int32_t on_path, others;
} crossing;

static rp_status add_blocks(struct rp_view_data *data, rp_plan *plan,
                            const readers *all) {
  const rp_graph *graph = &plan->graph;
  rp_context *ctx = plan->ctx;
  const size_t n = (size_t)graph->n_forward;
  const size_t size = (n + 1) * sizeof(crossing);
  crossing *change = rp_alloc(ctx, size);
  bool *on_path = rp_alloc(ctx, n);
  rp_status status = change && on_path ? RP_OK : RP_NOMEM;
  if (status == RP_OK) rp_find_paths(graph, on_path);
  for (int32_t v = 0; status == RP_OK && v < graph->values.n; v++) {
    const int32_t maker = graph->values.at[v].node;
    if (maker < 0 || maker >= graph->n_forward ||
        all[v].last_forward <= maker)
      continue;
    crossing *from = &change[maker], *to = &change[all[v].last_forward];
    if (on_path[maker]) from->on_path++, to->on_path--;
    else from->others++, to->others--;
  }
  int32_t first = 0;
  crossing open = {0, 0};
  for (int32_t i = 0; i < graph->n_forward && status == RP_OK; i++) {
    open.on_path += change[i].on_path;
    open.others += change[i].others;
    data->nodes[i].block = data->blocks.n;
    const bool cut =
        open.on_path == 1 || (open.on_path == 0 && open.others == 1);
    if (!cut && i != graph->n_forward - 1) continue;
    if (!rp_array_room(ctx, &data->blocks, sizeof(rp_view_span), 1))
      status = RP_NOMEM;
    else
      data->blocks.at[data->blocks.n++] =
          (rp_view_span){.first = first, .last = i};
    first = i + 1;
  }
  rp_free(ctx, change, size);
  rp_free(ctx, on_path, n);
  if (status != RP_OK) return status;
  data->n_names = data->blocks.n;
  data->block_names =
      rp_alloc(ctx, (size_t)data->n_names * sizeof *data->block_names);
  if (data->block_names == NULL) return RP_NOMEM;
  for (int32_t b = 0; b < data->blocks.n; b++) {
    snprintf(data->block_names[b], BLOCK_NAME, "block %d", b + 1);
    data->blocks.at[b].name = data->block_names[b];
  }
  return RP_OK;
}

static void fill_nodes(struct rp_view_data *data, const rp_plan *plan,
                       const readers *all) {
  const rp_graph *graph = &plan->graph;
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    rp_view_node *out = &data->nodes[i];
    *out = (rp_view_node){
        .op = rp_graph_node_name(node),
        .scope = rp_scope_text(plan->ctx, node->place.scope),
        .inputs = data->inputs + node->first_operand,
        .n_inputs = node->n_operands,
        .layer = -1,
        .block = -1,
        .mark = node->place.segment,
        .flops = node->flops,
        .seconds = plan->seconds[i],
        .workspace_bytes = plan->workspace_bytes[i],
        .random = node->stream >= 0,
        .backward = i >= graph->n_forward,
        .effect = node->op->flags & RP_EFFECT,
        .costly = node->op->flags & RP_COSTLY,
    };
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t v = rp_graph_in(graph, node, k)->value;
      data->inputs[node->first_operand + k] =
          v < 0 ? v : graph->values.at[v].node;
    }
    for (int32_t k = 0; k < node->n_values; k++) {
      const int32_t v = node->first_value + k;
      if (k == 0) out->type = graph->values.at[v].type;
      out->bytes += rp_value_bytes(graph, v);
      out->kept |= graph->values.at[v].keep || graph->values.at[v].target;
      out->read_by_backward |= all[v].backward;
    }
  }
}

const rp_view *rp_plan_view(rp_plan *plan) {
  if (plan->view) return &plan->view->view;
  rp_context *ctx = plan->ctx;
  const rp_graph *graph = &plan->graph;
  struct rp_view_data *data = rp_alloc(ctx, sizeof *data);
  if (data == NULL) return NULL;
  plan->view = data;
  const size_t readers_size = (size_t)graph->values.n * sizeof(readers);
  readers *all = rp_alloc(ctx, readers_size);
  data->nodes = rp_alloc(ctx, (size_t)graph->nodes.n * sizeof *data->nodes);
  data->inputs =
      rp_alloc(ctx, (size_t)graph->operands.n * sizeof *data->inputs);
  rp_status status = all && data->nodes && data->inputs ? RP_OK : RP_NOMEM;
  if (status == RP_OK) {
    find_readers(graph, all);
    fill_nodes(data, plan, all);
    status = add_layers(data, plan);
  }
  if (status == RP_OK) status = add_blocks(data, plan, all);
  if (status == RP_OK) {
    for (int32_t i = 0; i < data->layers.n; i++)
      describe_span(graph, all, data->nodes, &data->layers.at[i]);
    for (int32_t v = 0; v < graph->values.n; v++) all[v].counted = -1;
    for (int32_t i = 0; i < data->blocks.n; i++)
      describe_span(graph, all, data->nodes, &data->blocks.at[i]);
    data->view = (rp_view){
        .n_nodes = graph->nodes.n, .n_forward = graph->n_forward,
        .n_layers = data->layers.n, .n_blocks = data->blocks.n,
        .n_leaves = graph->leaves.n, .nodes = data->nodes,
        .layers = data->layers.at, .blocks = data->blocks.at};
  }
  rp_free(ctx, all, readers_size);
  if (status == RP_OK) return &data->view;
  rp_view_free(plan);
  return NULL;
}

void rp_view_free(rp_plan *plan) {
  struct rp_view_data *data = plan->view;
  if (data == NULL) return;
  rp_context *ctx = plan->ctx;
  rp_free(ctx, data->nodes, (size_t)plan->graph.nodes.n * sizeof *data->nodes);
  rp_free(ctx, data->inputs,
          (size_t)plan->graph.operands.n * sizeof *data->inputs);
  rp_array_free(ctx, &data->layers, sizeof(rp_view_span));
  rp_array_free(ctx, &data->blocks, sizeof(rp_view_span));
  rp_free(ctx, data->block_names,
          (size_t)data->n_names * sizeof *data->block_names);
  rp_free(ctx, data, sizeof *data);
  plan->view = NULL;
}
