/* The segment tree: marks by hand and the strategy's segments together. */
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "plan/plan.h"

/* A segment before it has its place in the tree. */
typedef struct span {
  int32_t first, last;
  int32_t depth; /* among equals, smaller encloses */
  const int32_t *keep;
  int32_t n_keep;
  bool mark;
} span;

typedef RP_ARRAY(span) spans;

static rp_status add_span(spans *all, rp_context *ctx, span s) {
  if (!rp_array_room(ctx, all, sizeof(span), 1)) return RP_NOMEM;
  all->at[all->n++] = s;
  return RP_OK;
}

static bool mark_within(const rp_graph *graph, int32_t mark, int32_t outer) {
  while (mark != 0 && mark != outer)
    mark = graph->segment_parents.at[mark - 1];
  return mark == outer && mark != 0;
}

/* A mark's nodes are consecutive, since it was open while they were recorded
   (nodes that others share may have moved elsewhere: then each stretch is a
   segment). */
static rp_status add_marks(spans *all, rp_context *ctx,
                           const rp_graph *graph) {
  for (int32_t m = 1; m <= graph->segment_parents.n; m++) {
    int32_t depth = 0;
    for (int32_t s = m; s != 0; s = graph->segment_parents.at[s - 1]) depth++;
    int32_t first = -1;
    for (int32_t i = 0; i <= graph->n_forward; i++) {
      const bool in = i < graph->n_forward &&
                      mark_within(graph, graph->nodes.at[i].place.segment, m);
      if (in && first < 0) first = i;
      if (in || first < 0) continue;
      const rp_status status = add_span(
          all, ctx, (span){first, i - 1, 1000 + depth, NULL, 0, true});
      if (status != RP_OK) return status;
      first = -1;
    }
  }
  return RP_OK;
}

/* The sibling before segment i where parents and siblings come in order: -1
   none, -2 where the order tells nothing. */
static int32_t sibling_before(const rp_segment *segments, int i) {
  int32_t j = i - 1;
  while (j != segments[i].parent) {
    if (j < 0) return -2;
    if (segments[j].parent == segments[i].parent) return j;
    j = segments[j].parent;
  }
  return -1;
}

static rp_status check_segments(rp_context *ctx, const rp_graph *graph,
                                const rp_segment *segments, int n) {
  bool in_order = true;
  for (int i = 0; i < n; i++) {
    const rp_segment *s = &segments[i];
    if (s->first < 0 || s->last < s->first || s->last >= graph->n_forward)
      return rp_fail(ctx, RP_VALUE, "segment %d is %d..%d: the forward nodes "
                     "are 1..%d", i + 1, s->first + 1, s->last + 1,
                     (int)graph->n_forward);
    if (s->parent >= i || s->parent < -1)
      return rp_fail(ctx, RP_VALUE, "segment %d: its parent must come before "
                     "it", i + 1);
    if (s->parent >= 0 && (s->first < segments[s->parent].first ||
                           s->last > segments[s->parent].last))
      return rp_fail(ctx, RP_VALUE, "segment %d..%d is not inside its parent "
                     "%d..%d", s->first + 1, s->last + 1,
                     segments[s->parent].first + 1,
                     segments[s->parent].last + 1);
    for (int32_t k = 0; k < s->n_keep; k++)
      if (s->keep[k] < s->first || s->keep[k] > s->last)
        return rp_fail(ctx, RP_VALUE, "segment %d..%d keeps node %d, which is "
                       "not in it", s->first + 1, s->last + 1,
                       s->keep[k] + 1);
    const int32_t before = in_order ? sibling_before(segments, i) : -2;
    in_order = before == -1 ||
               (before >= 0 && segments[before].last < s->first);
    for (int j = 0; j < i && !in_order; j++)
      if (segments[j].parent == s->parent && segments[j].last >= s->first &&
          segments[j].first <= s->last)
        return rp_fail(ctx, RP_VALUE, "segments %d..%d and %d..%d overlap",
                       segments[j].first + 1, segments[j].last + 1,
                       s->first + 1, s->last + 1);
  }
  return RP_OK;
}

/* Adds first..last, cut where a mark would cross its border. */
static rp_status add_clipped(spans *all, rp_context *ctx, span s,
                             int32_t n_marks) {
  for (int32_t m = 0; m < n_marks; m++) {
    const span mark = all->at[m];
    const bool crosses_left = mark.first < s.first && mark.last >= s.first &&
                              mark.last < s.last;
    const bool crosses_right = mark.first > s.first && mark.first <= s.last &&
                               mark.last > s.last;
    if (crosses_left) s.first = mark.last + 1;
    if (crosses_right) s.last = mark.first - 1;
  }
  return s.first <= s.last ? add_span(all, ctx, s) : RP_OK;
}

/* Enclosing spans first, then by position. */
static int compare_spans(const void *a, const void *b) {
  const span *x = a, *y = b;
  if (x->first != y->first) return x->first < y->first ? -1 : 1;
  if (x->last != y->last) return x->last > y->last ? -1 : 1;
  return (x->depth > y->depth) - (x->depth < y->depth);
}

static rp_status add_keeps(rp_tree *tree, rp_context *ctx, rp_segment *segment,
                           const span *s) {
  if (!rp_array_room(ctx, &tree->keeps, sizeof(int32_t), s->n_keep))
    return RP_NOMEM;
  segment->n_keep = 0;
  /* An index until all are in: the array may still move. */
  segment->keep = (const int32_t *)(intptr_t)tree->keeps.n;
  for (int32_t k = 0; k < s->n_keep; k++)
    if (s->keep[k] >= s->first && s->keep[k] <= s->last) {
      tree->keeps.at[tree->keeps.n++] = s->keep[k];
      segment->n_keep++;
    }
  return RP_OK;
}

static rp_status nest(rp_tree *tree, rp_context *ctx, const spans *all) {
  for (int32_t i = 0; i < all->n; i++) {
    const span *s = &all->at[i];
    int32_t parent = tree->segments.n - 1;
    while (parent >= 0 && tree->segments.at[parent].last < s->first)
      parent = tree->segments.at[parent].parent;
    if (!rp_array_room(ctx, &tree->segments, sizeof(rp_segment), 1))
      return RP_NOMEM;
    rp_segment made = {.first = s->first, .last = s->last, .parent = parent};
    const rp_status status = add_keeps(tree, ctx, &made, s);
    if (status != RP_OK) return status;
    tree->segments.at[tree->segments.n++] = made;
  }
  for (int32_t i = 0; i < tree->segments.n; i++) {
    rp_segment *segment = &tree->segments.at[i];
    segment->keep = tree->keeps.at + (intptr_t)segment->keep;
  }
  return RP_OK;
}

static bool keeps_node(const rp_segment *segment, int32_t node) {
  for (int32_t k = 0; k < segment->n_keep; k++)
    if (segment->keep[k] == node) return true;
  return false;
}

/* Covers the stretches that no segment covers. */
static rp_status add_gaps(rp_tree *tree, rp_context *ctx,
                          const rp_graph *graph) {
  tree->n_given = tree->segments.n;
  for (int32_t i = 0; i < graph->n_forward; i++) {
    if (tree->innermost[i] >= 0) continue;
    if (i > 0 && tree->innermost[i - 1] >= tree->n_given) {
      tree->innermost[i] = tree->innermost[i - 1];
      tree->segments.at[tree->innermost[i]].last = i;
      continue;
    }
    if (!rp_array_room(ctx, &tree->segments, sizeof(rp_segment), 1))
      return RP_NOMEM;
    tree->innermost[i] = tree->segments.n;
    tree->segments.at[tree->segments.n++] =
        (rp_segment){.first = i, .last = i, .parent = -1};
  }
  return RP_OK;
}

static void find_effective(rp_tree *tree, const rp_graph *graph) {
  for (int32_t v = 0; v < graph->values.n; v++) {
    const rp_graph_value *value = &graph->values.at[v];
    tree->effective[v] = -1;
    if (value->node < 0 || value->node >= graph->n_forward) continue;
    const int32_t segment = tree->innermost[value->node];
    const bool dropped =
        segment < tree->n_given || value->light || value->unread;
    if (dropped && !value->keep && !value->target)
      tree->effective[v] = segment;
  }
  for (int32_t v = 0; v < graph->values.n; v++) {
    int32_t *segment = &tree->effective[v];
    while (*segment >= 0 &&
           keeps_node(&tree->segments.at[*segment], graph->values.at[v].node))
      *segment = tree->segments.at[*segment].parent;
  }
  /* A forward reader outside moves the value out to where both are; a light one
     of a gap is made again for it, like for any other. */
  for (int32_t i = 0; i < graph->n_forward; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t v = rp_graph_in(graph, node, k)->value;
      if (v < 0) continue;
      int32_t *segment = &tree->effective[v];
      if (*segment >= tree->n_given && graph->values.at[v].light) continue;
      while (*segment >= 0 && i > tree->segments.at[*segment].last)
        *segment = tree->segments.at[*segment].parent;
    }
  }
}

rp_status rp_tree_build(rp_tree *tree, rp_context *ctx, const rp_graph *graph,
                        const rp_segment *segments, int n_segments) {
  spans all = {0};
  rp_status status = check_segments(ctx, graph, segments, n_segments);
  if (status == RP_OK) status = add_marks(&all, ctx, graph);
  const int32_t n_marks = all.n;
  for (int i = 0; i < n_segments && status == RP_OK; i++) {
    const rp_segment *s = &segments[i];
    int32_t depth = 0;
    for (int32_t p = s->parent; p >= 0; p = segments[p].parent) depth++;
    status = add_clipped(
        &all, ctx, (span){s->first, s->last, depth, s->keep, s->n_keep, false},
        n_marks);
  }
  if (status == RP_OK && all.n > 0)
    qsort(all.at, (size_t)all.n, sizeof(span), compare_spans);
  if (status == RP_OK) status = nest(tree, ctx, &all);
  rp_array_free(ctx, &all, sizeof(span));
  if (status == RP_OK) {
    tree->innermost =
        rp_alloc(ctx, (size_t)graph->n_forward * sizeof(int32_t));
    tree->n_innermost = graph->n_forward;
    tree->effective = rp_alloc(ctx, (size_t)graph->values.n * sizeof(int32_t));
    tree->n_effective = graph->values.n;
    if (tree->innermost == NULL || tree->effective == NULL) status = RP_NOMEM;
  }
  if (status != RP_OK) {
    rp_tree_free(tree, ctx);
    return status;
  }
  for (int32_t i = 0; i < graph->n_forward; i++) tree->innermost[i] = -1;
  for (int32_t s = 0; s < tree->segments.n; s++) /* inner ones come later */
    for (int32_t i = tree->segments.at[s].first;
         i <= tree->segments.at[s].last; i++)
      tree->innermost[i] = s;
  status = add_gaps(tree, ctx, graph);
  if (status == RP_OK) find_effective(tree, graph);
  else rp_tree_free(tree, ctx);
  return status;
}

void rp_tree_free(rp_tree *tree, rp_context *ctx) {
  rp_array_free(ctx, &tree->segments, sizeof(rp_segment));
  rp_array_free(ctx, &tree->keeps, sizeof(int32_t));
  rp_free(ctx, tree->innermost, (size_t)tree->n_innermost * sizeof(int32_t));
  rp_free(ctx, tree->effective, (size_t)tree->n_effective * sizeof(int32_t));
  *tree = (rp_tree){0};
}
