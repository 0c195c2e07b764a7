#include "graph/graph.h"

#include <string.h>

#include "base/context.h"
#include "base/map.h"
#include "graph/recorder.h"
#include "graph/walk.h"

/* What a build knows besides the graph itself. */
typedef struct builder {
  rp_graph *graph;
  rp_context *ctx;
  rp_walk walk;
  rp_map bindings; /* address of a root tensor -> binding */
  rp_map leaves;   /* address of a root tensor -> graph leaf */
  rp_map streams, layers, entries, segments;
  rp_map ordinals; /* ordinal of a forward node -> graph node */
  bool *needed;    /* by walk index */
  int32_t *node_of; /* walk index -> graph node, -1 */
} builder;

static bool is_outside(const rp_tensor *root) {
  return root->node->leaf != NULL || root->storage != NULL;
}

/* Marks what the roots' values come from, through views' real inputs only. */
static void mark_needed(builder *b, rp_tensor *const *roots, int n_roots) {
  for (int i = 0; i < n_roots; i++)
    if (!is_outside(roots[i]->root))
      b->needed[roots[i]->root->node->walk_index] = true;
  for (int32_t i = b->walk.nodes.n - 1; i >= 0; i--) {
    const rp_node *node = b->walk.nodes.at[i];
    if (!b->needed[i]) continue;
    for (int j = 0; j < node->n_inputs; j++) {
      const rp_tensor *root = node->inputs[j]->root;
      if (!is_outside(root)) b->needed[root->node->walk_index] = true;
    }
  }
}

/* The operand of t: its root's value, or the graph leaf made for it. */
static rp_status operand_of(builder *b, const rp_tensor *t, rp_operand *out) {
  const rp_tensor *root = t->root;
  out->type = t->type;
  out->strides = t->strides;
  if (!is_outside(root)) {
    const int32_t node = b->node_of[root->node->walk_index];
    out->value = b->graph->nodes.at[node].first_value + root->index;
    return RP_OK;
  }
  int32_t leaf = rp_map_get(&b->leaves, rp_address(root));
  if (leaf < 0) {
    if (!rp_array_room(b->ctx, &b->graph->leaves, sizeof(rp_graph_leaf), 1))
      return RP_NOMEM;
    leaf = b->graph->leaves.n++;
    rp_graph_leaf *made = &b->graph->leaves.at[leaf];
    made->binding = rp_map_get(&b->bindings, rp_address(root));
    made->role = root->node->leaf ? root->node->leaf->role : RP_INPUT;
    made->type = root->type;
    made->anywhere = root->node->device == RP_ANYWHERE;
    if (made->binding < 0) {
      if (made->role != RP_NUMBER)
        return rp_fail(b->ctx, RP_INTERNAL,
                       "a leaf that no request binds entered a graph");
      memcpy(made->constant, root->node->leaf->number, sizeof made->constant);
    }
    if (!rp_map_put(&b->leaves, b->ctx, rp_address(root), leaf))
      return RP_NOMEM;
  }
  out->value = -1 - leaf;
  return RP_OK;
}

static void *copy_block(rp_context *ctx, const void *from, size_t size) {
  void *to = rp_alloc(ctx, size);
  if (to && size) memcpy(to, from, size);
  return to;
}

/* 0 stays 0; other instances are numbered from 1 as they appear. */
static rp_status number_instance(builder *b, rp_map *map, int32_t *instance) {
  if (*instance == 0) return RP_OK;
  const int32_t number =
      rp_map_number(map, b->ctx, (uint64_t)(uint32_t)*instance);
  if (number < 0) return RP_NOMEM;
  *instance = number + 1;
  return RP_OK;
}

static rp_status place_of(builder *b, const rp_node *node, rp_place *place) {
  *place = node->place;
  /* Outer marks first, so that a mark's parent has a smaller number. */
  int32_t chain[64], depth = 0;
  for (int32_t s = place->segment; s != 0 && depth < 64;
       s = rp_segment_parent(b->ctx, s))
    chain[depth++] = s;
  int32_t parent = 0;
  while (depth-- > 0) {
    int32_t segment = chain[depth];
    if (number_instance(b, &b->segments, &segment) != RP_OK) return RP_NOMEM;
    if (segment > b->graph->segment_parents.n) {
      if (!rp_array_room(b->ctx, &b->graph->segment_parents, sizeof(int32_t),
                         1))
        return RP_NOMEM;
      b->graph->segment_parents.at[b->graph->segment_parents.n++] = parent;
    }
    place->segment = parent = segment;
  }
  if (number_instance(b, &b->layers, &place->layer) != RP_OK ||
      number_instance(b, &b->entries, &place->entry) != RP_OK)
    return RP_NOMEM;
  return RP_OK;
}

static rp_status add_ranges(builder *b, const rp_node *node,
                            int32_t graph_node) {
  if (node->op->ranges == NULL) return RP_OK;
  rp_index_range ranges[2];
  const int n = node->op->ranges(node, ranges);
  for (int i = 0; i < n; i++) {
    const rp_graph_node *made = &b->graph->nodes.at[graph_node];
    const int32_t leaf =
        rp_operand_leaf(rp_graph_in(b->graph, made, ranges[i].input));
    if (leaf < 0) continue; /* computed: the kernel looks */
    if (!rp_array_room(b->ctx, &b->graph->ranges, sizeof(rp_graph_range), 1))
      return RP_NOMEM;
    b->graph->ranges.at[b->graph->ranges.n++] =
        (rp_graph_range){.leaf = leaf, .range = ranges[i], .node = graph_node};
  }
  return RP_OK;
}

static rp_status add_node(builder *b, const rp_node *node) {
  rp_graph *graph = b->graph;
  rp_context *ctx = b->ctx;
  if (!rp_array_room(ctx, &graph->nodes, sizeof(rp_graph_node), 1) ||
      !rp_array_room(ctx, &graph->operands, sizeof(rp_operand),
                     node->n_inputs) ||
      !rp_array_room(ctx, &graph->values, sizeof(rp_graph_value),
                     node->n_outputs))
    return RP_NOMEM;
  rp_graph_node made = {
      .op = node->op,
      .first_operand = graph->operands.n,
      .n_operands = node->n_inputs,
      .first_value = graph->values.n,
      .n_values = node->n_outputs,
      .n_ints = node->n_ints,
      .n_reals = node->n_reals,
      .in_place = node->op->in_place,
      .stream = -1,
      .origin = -1,
  };
  for (int i = 0; i < node->n_inputs; i++) {
    if (node->op->effect_inputs >> (i & 31) & 1u) continue;
    const rp_status status =
        operand_of(b, node->inputs[i], &graph->operands.at[graph->operands.n]);
    if (status != RP_OK) return status;
    graph->operands.n++;
  }
  made.n_operands = graph->operands.n - made.first_operand;
  if (place_of(b, node, &made.place) != RP_OK) return RP_NOMEM;
  if (node->op->flags & RP_RANDOM) {
    made.stream = rp_map_get(&b->streams, node->stream.id);
    if (made.stream < 0)
      return rp_fail(ctx, RP_INTERNAL, "a random stream that no request binds "
                     "entered a graph");
  }
  if (node->flags & RP_NODE_BACKWARD)
    made.origin = rp_map_get(&b->ordinals, node->origin);
  const rp_cost cost =
      node->op->cost ? node->op->cost(node) : rp_cost_elementwise(node);
  made.flops = cost.flops;
  made.bytes = cost.bytes;
  const size_t ints = node->n_ints * sizeof(int64_t);
  const size_t reals = node->n_reals * sizeof(double);
  made.ints = copy_block(ctx, node->ints, ints);
  made.reals = copy_block(ctx, node->reals, reals);
  if (made.ints == NULL || made.reals == NULL) {
    rp_free(ctx, made.ints, ints);
    rp_free(ctx, made.reals, reals);
    return RP_NOMEM;
  }
  const int32_t index = graph->nodes.n;
  for (int k = 0; k < node->n_outputs; k++)
    graph->values.at[graph->values.n++] = (rp_graph_value){
        .node = index, .output = k, .type = node->outputs[k].type,
        .keep = node->outputs[k].keep};
  graph->nodes.at[graph->nodes.n++] = made;
  b->node_of[node->walk_index] = index;
  if (!(node->flags & RP_NODE_BACKWARD)) {
    graph->n_forward = graph->nodes.n;
    if (!rp_map_put(&b->ordinals, ctx, node->ordinal, index)) return RP_NOMEM;
  }
  return add_ranges(b, node, index);
}

static rp_status build(builder *b, rp_tensor *const *roots, int n_roots,
                       const rp_bindings *bindings) {
  rp_context *ctx = b->ctx;
  rp_graph *graph = b->graph;
  for (int32_t i = bindings->tensors.n - 1; i >= 0; i--)
    if (!rp_map_put(&b->bindings, ctx, rp_address(bindings->tensors.at[i]), i))
      return RP_NOMEM;
  for (int32_t i = 0; i < bindings->streams.n; i++)
    if (!rp_map_put(&b->streams, ctx, bindings->streams.at[i].id, i))
      return RP_NOMEM;
  graph->n_streams = bindings->streams.n;
  rp_status status = rp_walk_collect(&b->walk, ctx, roots, n_roots,
                                     RP_WALK_VALUES, NULL, 0);
  if (status != RP_OK) return status;
  b->needed = rp_alloc(ctx, (size_t)b->walk.nodes.n * sizeof *b->needed);
  b->node_of = rp_alloc(ctx, (size_t)b->walk.nodes.n * sizeof *b->node_of);
  if (b->needed == NULL || b->node_of == NULL) return RP_NOMEM;
  mark_needed(b, roots, n_roots);
  for (int32_t i = 0; i < b->walk.nodes.n; i++) {
    rp_node *node = b->walk.nodes.at[i];
    b->node_of[i] = -1;
    if (!b->needed[i] || node->op->flags & RP_VIEW) continue;
    status = rp_node_check_fresh(node);
    if (status == RP_OK) status = add_node(b, node);
    if (status != RP_OK) return status;
  }
  for (int i = 0; i < n_roots; i++) {
    if (roots[i]->node->op->flags & RP_EFFECT) continue;
    rp_operand operand = {0};
    status = operand_of(b, roots[i], &operand);
    if (status != RP_OK) return status;
    if (!rp_array_room(ctx, &graph->targets, sizeof(int32_t), 1))
      return RP_NOMEM;
    graph->targets.at[graph->targets.n++] = operand.value;
    if (operand.value >= 0) graph->values.at[operand.value].target = true;
  }
  return RP_OK;
}

rp_status rp_graph_build(rp_graph *graph, rp_context *ctx,
                         rp_tensor *const *roots, int n_roots,
                         const rp_bindings *bindings) {
  builder b = {.graph = graph, .ctx = ctx};
  graph->alignment = RP_ALIGN;
  const rp_status status = build(&b, roots, n_roots, bindings);
  const size_t nodes = (size_t)b.walk.nodes.n;
  rp_free(ctx, b.needed, nodes * sizeof *b.needed);
  rp_free(ctx, b.node_of, nodes * sizeof *b.node_of);
  rp_map *const maps[] = {&b.bindings, &b.leaves,   &b.streams, &b.layers,
                          &b.entries,  &b.segments, &b.ordinals};
  for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
    rp_map_free(maps[i], ctx);
  rp_walk_free(&b.walk, ctx);
  if (status != RP_OK) rp_graph_free(graph, ctx);
  return status;
}

void rp_graph_renumber(rp_graph *graph, const int32_t *moved) {
  for (int32_t v = 0; v < graph->values.n; v++) graph->values.at[v].node = -1;
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_values; k++)
      graph->values.at[node->first_value + k].node = i;
    /* The forward node itself may be gone: the next one kept before it stands
       for where it was. */
    int32_t origin = node->origin;
    while (origin >= 0 && moved[origin] < 0) origin--;
    node->origin = origin >= 0 ? moved[origin] : -1;
  }
  for (int32_t i = 0; i < graph->ranges.n; i++) {
    const int32_t node = moved[graph->ranges.at[i].node];
    graph->ranges.at[i].node = node < 0 ? 0 : node;
  }
}

void rp_graph_drop_moved(rp_graph *graph, int32_t *moved) {
  int32_t n = 0, n_forward = 0;
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    if (moved[i] >= 0) { /* its new place is known */
      moved[i] = moved[moved[i]];
      continue;
    }
    moved[i] = n;
    graph->nodes.at[n++] = graph->nodes.at[i];
    if (i < graph->n_forward) n_forward = n;
  }
  graph->nodes.n = n;
  graph->n_forward = n_forward;
  rp_graph_renumber(graph, moved);
}

double rp_operand_bytes(const rp_graph *graph, const rp_operand *in) {
  const rp_type *whole = in->value >= 0
                             ? &graph->values.at[in->value].type
                             : &graph->leaves.at[-1 - in->value].type;
  const int64_t seen = rp_type_bytes(&in->type), there = rp_type_bytes(whole);
  return (double)(seen < there ? seen : there);
}

bool rp_operand_equal(const rp_operand *a, const rp_operand *b) {
  return a->value == b->value && rp_type_equal(&a->type, &b->type) &&
         a->strides.offset == b->strides.offset &&
         memcmp(a->strides.at, b->strides.at,
                (size_t)a->type.rank * sizeof *a->strides.at) == 0;
}

bool rp_operand_is_whole(const rp_graph *graph, const rp_operand *in) {
  return in->value >= 0 && in->strides.offset == 0 &&
         rp_type_equal(&in->type, &graph->values.at[in->value].type) &&
         rp_strides_are_contiguous(&in->type, &in->strides);
}

bool rp_graph_same_stretch(const rp_graph *graph, const rp_graph_node *a,
                           const rp_graph_node *b) {
  const rp_graph_node *nodes = graph->nodes.at;
  const rp_place *p = a->origin < 0 ? &a->place : &nodes[a->origin].place;
  const rp_place *q = b->origin < 0 ? &b->place : &nodes[b->origin].place;
  return p->layer == q->layer && p->entry == q->entry &&
         p->segment == q->segment;
}

void rp_graph_count_readers(const rp_graph *graph, int32_t *readers) {
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t v = rp_graph_in(graph, node, k)->value;
      if (v >= 0) readers[v]++;
    }
  }
}

static void free_attributes(rp_context *ctx, int64_t *ints, int32_t n_ints,
                            double *reals, int32_t n_reals) {
  rp_free(ctx, ints, (size_t)n_ints * sizeof *ints);
  rp_free(ctx, reals, (size_t)n_reals * sizeof *reals);
}

void rp_fusion_free(rp_context *ctx, rp_fusion *fusion) {
  if (fusion == NULL) return;
  for (int32_t k = 0; k < fusion->n; k++) {
    const rp_part *part = &fusion->parts[k];
    free_attributes(ctx, part->ints, part->n_ints, part->reals, part->n_reals);
  }
  const rp_part *fold = &fusion->fold;
  free_attributes(ctx, fold->ints, fold->n_ints, fold->reals, fold->n_reals);
  rp_free(ctx, fusion, sizeof *fusion);
}

void rp_graph_free_attributes(rp_context *ctx, rp_graph_node *node) {
  rp_fusion_free(ctx, node->fusion);
  free_attributes(ctx, node->ints, node->n_ints, node->reals, node->n_reals);
  node->fusion = NULL;
  node->ints = NULL;
  node->reals = NULL;
  node->n_ints = node->n_reals = 0;
}

void rp_graph_free(rp_graph *graph, rp_context *ctx) {
  for (int32_t i = 0; i < graph->nodes.n; i++)
    rp_graph_free_attributes(ctx, &graph->nodes.at[i]);
  rp_array_free(ctx, &graph->nodes, sizeof(rp_graph_node));
  rp_array_free(ctx, &graph->operands, sizeof(rp_operand));
  rp_array_free(ctx, &graph->values, sizeof(rp_graph_value));
  rp_array_free(ctx, &graph->leaves, sizeof(rp_graph_leaf));
  rp_array_free(ctx, &graph->ranges, sizeof(rp_graph_range));
  rp_array_free(ctx, &graph->targets, sizeof(int32_t));
  rp_array_free(ctx, &graph->segment_parents, sizeof(int32_t));
  *graph = (rp_graph){0};
}
