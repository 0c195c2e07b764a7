/* Marks from the roots and sweeps the context's list backwards: ordinal
   order is topological, so when the sweep meets a marked node all its readers
   have been met. No stack, no sort; it ends with the last open mark. */
#include "graph/walk.h"

#include "base/context.h"
#include "graph/op.h"
#include "graph/recorder.h"

/* Marks the node; false without memory. *open counts marks not yet swept. */
static bool mark(rp_walk *walk, rp_context *ctx, rp_node *node,
                 rp_node **newest, int64_t *open) {
  if (node->walk == walk->epoch) return true;
  node->walk = walk->epoch;
  node->walk_index = -1;
  if (node->leaf) {
    if (!rp_array_room(ctx, &walk->leaves, sizeof(rp_node *), 1)) return false;
    node->walk_index = walk->leaves.n;
    walk->leaves.at[walk->leaves.n++] = node;
    return true;
  }
  (*open)++;
  if (*newest == NULL || node->ordinal > (*newest)->ordinal) *newest = node;
  return true;
}

static bool looks_through(const rp_node *node, rp_walk_rule rule) {
  if (rule == RP_WALK_ALL || node->op->flags & RP_VIEW) return true;
  bool held = node->n_outputs > 0, grad = false;
  for (int k = 0; k < node->n_outputs; k++) {
    held &= node->outputs[k].storage != NULL;
    grad |= node->outputs[k].requires_grad;
  }
  return !held || (rule == RP_WALK_GRADIENT && grad);
}

rp_status rp_walk_collect(rp_walk *walk, rp_context *ctx,
                          rp_tensor *const *roots, int n_roots,
                          rp_walk_rule rule, rp_tensor *const *stops,
                          int n_stops) {
  walk->nodes.n = walk->leaves.n = walk->taps.n = 0;
  walk->epoch = ++ctx->recorder->walk;
  rp_node *at = NULL;
  int64_t open = 0;
  for (int i = 0; i < n_stops; i++) {
    if (!mark(walk, ctx, stops[i]->node, &at, &open)) return RP_NOMEM;
    if (stops[i]->node->walk_index < 0) stops[i]->node->walk_index = -2;
  }
  for (int i = 0; i < n_roots; i++)
    if (roots[i] && !mark(walk, ctx, roots[i]->node, &at, &open))
      return RP_NOMEM;
  for (; open > 0; at = at->prev) {
    if (at->walk != walk->epoch || at->leaf) continue;
    open--;
    const bool stop = at->walk_index == -2;
    if (!rp_array_room(ctx, &walk->nodes, sizeof(rp_node *), 1))
      return RP_NOMEM;
    walk->nodes.at[walk->nodes.n++] = at;
    bool tapped = false;
    for (int k = 0; k < at->n_outputs; k++) tapped |= at->outputs[k].tap;
    if (tapped) {
      if (!rp_array_room(ctx, &walk->taps, sizeof(rp_node *), 1))
        return RP_NOMEM;
      walk->taps.at[walk->taps.n++] = at;
    }
    if (stop || !looks_through(at, rule)) continue;
    rp_node *newest = at; /* inputs are older: `at` stays the newest */
    for (int i = 0; i < at->n_inputs; i++)
      if (!mark(walk, ctx, at->inputs[i]->node, &newest, &open))
        return RP_NOMEM;
  }
  for (int32_t i = 0, j = walk->nodes.n - 1; i < j; i++, j--) {
    rp_node *swap = walk->nodes.at[i];
    walk->nodes.at[i] = walk->nodes.at[j];
    walk->nodes.at[j] = swap;
  }
  for (int32_t i = 0; i < walk->nodes.n; i++)
    walk->nodes.at[i]->walk_index = i;
  return RP_OK;
}

void rp_walk_free(rp_walk *walk, rp_context *ctx) {
  rp_array_free(ctx, &walk->nodes, sizeof(rp_node *));
  rp_array_free(ctx, &walk->leaves, sizeof(rp_node *));
  rp_array_free(ctx, &walk->taps, sizeof(rp_node *));
}
