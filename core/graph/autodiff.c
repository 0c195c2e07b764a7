#include "graph/autodiff.h"

#include <string.h>

#include "base/context.h"
#include "graph/op.h"
#include "graph/recorder.h"
#include "graph/walk.h"

/* One sweep. A slot is a place for the gradient of one tensor. Slots are
   found once, before any rule runs, because a rule may walk and thereby
   renumber the nodes. */
typedef struct sweep {
  rp_walk walk;
  int32_t *first_slot;   /* of walk.nodes[i]; leaves follow the nodes */
  int32_t *first_edge;   /* of walk.nodes[i] in edges */
  int32_t *edges;        /* slot of each input, -1 where none is wanted */
  bool *depends;         /* slot: y there depends on some x */
  rp_tensor **grads;     /* slot */
  int32_t *x_slots;      /* of each x, -1 where y does not reach it */
  int32_t n_slots, n_edges, n_x;
} sweep;

static int32_t slot_of(const sweep *s, const rp_tensor *t) {
  const int32_t at = t->node->walk_index + (t->node->leaf ? s->walk.nodes.n
                                                          : 0);
  return s->first_slot[at] + t->index;
}

static void sweep_free(sweep *s, rp_context *ctx) {
  const size_t all = (size_t)(s->walk.nodes.n + s->walk.leaves.n);
  rp_free(ctx, s->first_slot, all * sizeof(int32_t));
  rp_free(ctx, s->first_edge, all * sizeof(int32_t));
  rp_free(ctx, s->x_slots, (size_t)s->n_x * sizeof(int32_t));
  rp_free(ctx, s->edges, (size_t)s->n_edges * sizeof(int32_t));
  rp_free(ctx, s->depends, (size_t)s->n_slots * sizeof(bool));
  rp_free(ctx, s->grads, (size_t)s->n_slots * sizeof(rp_tensor *));
  rp_walk_free(&s->walk, ctx);
}

static bool passes_gradient(const rp_node *node) {
  return !(node->op->flags & RP_NOT_DIFFERENTIABLE) &&
         !(node->flags & RP_NODE_NO_GRAD);
}

/* A local sweep ends at the nodes of x: one may make another's input (a mean
   beside what it is the mean of), and that way is the caller's. */
static bool is_end(const rp_node *node, rp_tensor *const *x, int n_x) {
  for (int i = 0; i < n_x; i++)
    if (x[i]->node == node) return true;
  return false;
}

static rp_status sweep_open(sweep *s, rp_context *ctx, rp_tensor *const *y,
                            int n_y, rp_tensor *const *x, int n_x,
                            bool local) {
  memset(s, 0, sizeof *s);
  rp_status status = rp_walk_collect(&s->walk, ctx, y, n_y, RP_WALK_ALL, x,
                                     local ? n_x : 0);
  if (status != RP_OK) return status;
  const int32_t nodes = s->walk.nodes.n, leaves = s->walk.leaves.n;
  s->first_slot = rp_alloc(ctx, (size_t)(nodes + leaves) * sizeof(int32_t));
  s->first_edge = rp_alloc(ctx, (size_t)(nodes + leaves) * sizeof(int32_t));
  if (!s->first_slot || !s->first_edge) return RP_NOMEM;
  for (int32_t i = 0; i < nodes + leaves; i++) {
    s->first_slot[i] = s->n_slots;
    s->first_edge[i] = s->n_edges;
    const rp_node *node =
        i < nodes ? s->walk.nodes.at[i] : s->walk.leaves.at[i - nodes];
    s->n_slots += node->n_outputs;
    s->n_edges += node->n_inputs;
  }
  s->n_x = n_x;
  s->x_slots = rp_alloc(ctx, (size_t)n_x * sizeof(int32_t));
  s->edges = rp_alloc(ctx, (size_t)s->n_edges * sizeof(int32_t));
  s->depends = rp_alloc(ctx, (size_t)s->n_slots * sizeof(bool));
  s->grads = rp_alloc(ctx, (size_t)s->n_slots * sizeof(rp_tensor *));
  if (!s->x_slots || !s->edges || !s->depends || !s->grads) return RP_NOMEM;
  for (int i = 0; i < n_x; i++) {
    s->x_slots[i] =
        rp_walk_met(&s->walk, x[i]->node) ? slot_of(s, x[i]) : -1;
    if (s->x_slots[i] >= 0) s->depends[s->x_slots[i]] = true;
  }
  for (int32_t i = 0; i < nodes; i++) {
    const rp_node *node = s->walk.nodes.at[i];
    const bool end = local && is_end(node, x, n_x);
    bool depends = false;
    for (int j = 0; j < node->n_inputs; j++) {
      int32_t *edge = &s->edges[s->first_edge[i] + j];
      *edge = -1;
      if (end) continue;
      const rp_tensor *input = node->inputs[j];
      if (!rp_walk_met(&s->walk, input->node)) continue; /* behind a stop */
      if (!rp_dtype_is_float((rp_dtype)input->type.dtype)) continue;
      if (!s->depends[slot_of(s, input)] || !passes_gradient(node)) continue;
      *edge = slot_of(s, input);
      depends = true;
    }
    for (int k = 0; depends && k < node->n_outputs; k++)
      s->depends[s->first_slot[i] + k] = true;
  }
  return RP_OK;
}

/* sum + g; of bf16 and f32, f32 comes out. Where g's op can add to a sum in
   place, g itself, which nobody else reads then, is never made. */
static rp_tensor *sum_of(rp_tape *tape, rp_tensor *sum, rp_tensor *g) {
  const rp_node *made = g->node;
  const rp_op *adds = made->op->adds;
  if (adds == NULL || g->storage || made->flags & RP_NODE_DEAD ||
      sum->type.dtype != g->type.dtype)
    return rp_add(tape, sum, g);
  rp_tensor *inputs[8] = {sum};
  memcpy(inputs + 1, made->inputs,
         (size_t)made->n_inputs * sizeof *made->inputs);
  return rp_emit(tape, adds, inputs, made->n_inputs + 1, made->ints,
                 made->n_ints, made->reals, made->n_reals);
}

static void accumulate(rp_tape *tape, sweep *s, int32_t slot, rp_tensor *g) {
  s->grads[slot] = s->grads[slot] ? sum_of(tape, s->grads[slot], g) : g;
}

/* g is a gradient of `like`, or one in f32 of a bf16 value. */
static bool is_gradient_of(const rp_tensor *g, const rp_type *like) {
  return rp_dims_equal(&g->type, like) &&
         (g->type.dtype == like->dtype ||
          (g->type.dtype == RP_F32 && like->dtype == RP_BF16));
}

/* What node's rule is given: of the outputs' dtypes, unless it takes more. */
static void round_gradients(rp_tape *tape, const rp_node *node,
                            rp_tensor **dy) {
  const bool takes_wide = node->op->flags & RP_WIDE_GRAD;
  for (int k = 0; k < node->n_outputs; k++) {
    const rp_type *y = &node->outputs[k].type;
    if (dy[k] && !(takes_wide && is_gradient_of(dy[k], y)))
      dy[k] = rp_cast(tape, dy[k], (rp_dtype)y->dtype);
  }
}

/* The gradient of an op without a rule, through its decomposition. */
static void grad_by_decomposition(rp_tape *tape, const rp_node *node,
                                  rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *outs[16] = {0};
  node->op->decompose(tape, node, outs);
  if (tape->status != RP_OK) return;
  rp_tensor *inputs[64];
  int at[64], n = 0;
  for (int i = 0; i < node->n_inputs && i < 64; i++)
    if (rp_tape_needs(tape, i)) {
      inputs[n] = node->inputs[i];
      at[n++] = i;
    }
  rp_tensor *found[64] = {0};
  rp_vjp(tape, outs, dy, node->n_outputs, inputs, n, true, found);
  for (int i = 0; i < n; i++) dx[at[i]] = found[i];
}

/* Runs node i's rule and hands its results to the inputs' slots. */
static rp_status apply_rule(rp_tape *tape, sweep *s, int32_t i) {
  rp_node *node = s->walk.nodes.at[i];
  const int32_t *edges = &s->edges[s->first_edge[i]];
  rp_tensor **dy = &s->grads[s->first_slot[i]];
  bool any = false;
  for (int k = 0; k < node->n_outputs; k++) any |= dy[k] != NULL;
  uint64_t needs = 0;
  bool wanted = false;
  for (int j = 0; j < node->n_inputs; j++) {
    wanted |= edges[j] >= 0;
    if (j < 64 && edges[j] >= 0) needs |= (uint64_t)1 << j;
  }
  if (!any || !wanted) return RP_OK;
  /* A dead node has let its inputs go: nothing to differentiate. */
  rp_status status = rp_node_check_fresh(node);
  if (status != RP_OK) return status;
  const size_t size = (size_t)node->n_inputs * sizeof(rp_tensor *);
  rp_tensor **dx = rp_alloc(tape->ctx, size);
  if (dx == NULL) return RP_NOMEM;
  const rp_node *outer_node = tape->node;
  const uint64_t outer_needs = tape->needs;
  tape->node = node;
  tape->needs = needs;
  round_gradients(tape, node, dy);
  if (node->op->grad) {
    node->op->grad(tape, node, dy, dx);
  } else if (node->op->decompose) {
    grad_by_decomposition(tape, node, dy, dx);
  } else {
    tape->status = rp_node_fail(node, RP_UNSUPPORTED, "has no gradient");
  }
  tape->node = outer_node;
  tape->needs = outer_needs;
  for (int j = 0; j < node->n_inputs && tape->status == RP_OK; j++) {
    if (edges[j] < 0 || dx[j] == NULL) continue;
    if (!is_gradient_of(dx[j], &node->inputs[j]->type)) {
      char got[RP_DIMS_TEXT], want[RP_DIMS_TEXT];
      tape->status = rp_node_fail(
          node, RP_INTERNAL, "gradient of input %d is %s, its value %s", j + 1,
          rp_dims_text(&dx[j]->type, got),
          rp_dims_text(&node->inputs[j]->type, want));
      break;
    }
    accumulate(tape, s, edges[j], dx[j]);
  }
  rp_free(tape->ctx, dx, size);
  return tape->status;
}

/* Where y lies; where that is anywhere, where x does; else `otherwise`. */
static int8_t device_of(rp_tensor *const *y, int n_y, rp_tensor *const *x,
                        int n_x, int8_t otherwise) {
  for (int i = 0; i < n_y + n_x; i++) {
    const rp_tensor *t = i < n_y ? y[i] : x[i - n_y];
    const int8_t device = t ? rp_root_node(t)->device : RP_ANYWHERE;
    if (device != RP_ANYWHERE) return device;
  }
  return otherwise;
}

rp_status rp_vjp(rp_tape *tape, rp_tensor *const *y, rp_tensor *const *dy,
                 int n_y, rp_tensor *const *x, int n_x, bool local,
                 rp_tensor **dx) {
  rp_context *ctx = tape->ctx;
  rp_recorder *r = ctx->recorder;
  const rp_place place = r->place;
  const uint64_t outer_origin = r->origin;
  /* What is made of numbers alone lies there too, whatever the default. */
  const int8_t outer_device = r->device;
  r->device = device_of(y, n_y, x, n_x, outer_device);
  sweep s;
  rp_status status = sweep_open(&s, ctx, y, n_y, x, n_x, local);
  for (int k = 0; k < n_y && status == RP_OK; k++)
    if (dy[k]) accumulate(tape, &s, slot_of(&s, y[k]), dy[k]);
  for (int32_t i = s.walk.nodes.n - 1; i >= 0 && status == RP_OK; i--) {
    const rp_node *node = s.walk.nodes.at[i];
    if (!local) {
      r->origin = node->ordinal;
      r->place = (rp_place){.scope = node->place.scope};
    }
    status = apply_rule(tape, &s, i);
  }
  if (status == RP_OK) status = tape->status;
  for (int i = 0; i < n_x && status == RP_OK; i++) {
    rp_tensor *g = s.x_slots[i] >= 0 ? s.grads[s.x_slots[i]] : NULL;
    dx[i] = g ? rp_cast(tape, g, (rp_dtype)x[i]->type.dtype) : NULL;
    status = tape->status;
  }
  r->place = place;
  r->origin = outer_origin;
  r->device = outer_device;
  sweep_free(&s, ctx);
  if (status != RP_OK) tape->status = status;
  return status;
}

rp_status rp_grad(rp_tensor *y, rp_tensor *d_y, rp_tensor *const *x, int n_x,
                  rp_tensor **d_x) {
  rp_context *ctx = y->node->ctx;
  if (d_y == NULL && rp_type_count(&y->type) != 1) {
    char text[RP_DIMS_TEXT];
    return rp_fail(ctx, RP_SHAPE, "[grad] y is %s, not a scalar: sum it, or "
                   "give the gradient that flows into it",
                   rp_dims_text(&y->type, text));
  }
  if (d_y && !rp_type_equal(&d_y->type, &y->type)) {
    char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
    return rp_fail(ctx, RP_SHAPE, "[grad] the gradient is %s %s, y %s %s",
                   rp_dims_text(&d_y->type, a),
                   rp_dtype_name((rp_dtype)d_y->type.dtype),
                   rp_dims_text(&y->type, b),
                   rp_dtype_name((rp_dtype)y->type.dtype));
  }
  rp_tape tape;
  rp_tape_open(&tape, ctx);
  if (d_y == NULL) d_y = rp_full_like(&tape, &y->type, 1);
  rp_status status = rp_vjp(&tape, &y, &d_y, 1, x, n_x, false, d_x);
  for (int i = 0; i < n_x && status == RP_OK; i++) {
    if (d_x[i] == NULL) d_x[i] = rp_full_like(&tape, &x[i]->type, 0);
    status = tape.status;
  }
  for (int i = 0; i < n_x && status == RP_OK; i++) rp_tensor_retain(d_x[i]);
  rp_tape_close(&tape);
  return status;
}
