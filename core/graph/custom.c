#include "graph/custom.h"

#include <string.h>

#include "base/context.h"
#include "graph/op.h"
#include "graph/record.h"
#include "graph/walk.h"

extern const rp_op rp_op_custom_vjp;

rp_status rp_substitute(rp_tape *tape, rp_tensor *const *roots, int n_roots,
                        rp_tensor *const *from, rp_tensor *const *to, int n,
                        rp_tensor **out) {
  rp_context *ctx = tape->ctx;
  rp_walk walk = {0};
  rp_status status =
      rp_walk_collect(&walk, ctx, roots, n_roots, RP_WALK_ALL, from, n);
  const size_t size = (size_t)walk.nodes.n * sizeof(rp_tensor *);
  /* made[i]: output 0 of node i's copy, NULL where the node is shared. */
  rp_tensor **made = status == RP_OK ? rp_alloc(ctx, size) : NULL;
  if (made == NULL) status = status == RP_OK ? RP_NOMEM : status;
  rp_tensor **inputs = NULL;
  size_t inputs_size = 0;
  for (int32_t i = 0; status == RP_OK && i < walk.nodes.n + 1; i++) {
    const rp_node *node = i < walk.nodes.n ? walk.nodes.at[i] : NULL;
    const int count = node ? node->n_inputs : n_roots;
    rp_tensor *const *sources = node ? node->inputs : roots;
    if ((size_t)count * sizeof *inputs > inputs_size) {
      rp_tensor **grown = rp_grow(ctx, inputs, inputs_size,
                                  (size_t)count * sizeof *inputs);
      if (grown == NULL) {
        status = RP_NOMEM;
        break;
      }
      inputs = grown;
      inputs_size = (size_t)count * sizeof *inputs;
    }
    bool changed = false;
    for (int j = 0; j < count; j++) {
      rp_tensor *source = sources[j];
      inputs[j] = source;
      for (int k = 0; k < n; k++)
        if (source == from[k]) inputs[j] = to[k];
      if (inputs[j] == source && source && !source->node->leaf &&
          rp_walk_met(&walk, source->node) &&
          made[source->node->walk_index] != NULL)
        inputs[j] = rp_emit_output(tape, made[source->node->walk_index],
                                   source->index);
      changed |= inputs[j] != source;
    }
    if (node == NULL) {
      memcpy(out, inputs, (size_t)n_roots * sizeof *out);
    } else if (changed) {
      made[i] = node->op->flags & RP_RANDOM
                    ? rp_emit_stream(tape, node->op, inputs, count,
                                     node->ints, node->n_ints, node->reals,
                                     node->n_reals, node->stream)
                    : rp_emit(tape, node->op, inputs, count, node->ints,
                              node->n_ints, node->reals, node->n_reals);
      status = tape->status;
    }
  }
  rp_free(ctx, inputs, inputs_size);
  rp_free(ctx, made, made ? size : 0);
  rp_walk_free(&walk, ctx);
  return status;
}

void rp_custom_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                    rp_tensor **dx) {
  const int n_y = (int)node->ints[0], n_x = (int)node->ints[1];
  rp_tensor *const *placeholders = node->inputs + n_y;
  rp_tensor *const *xs = placeholders + n_y, *const *rules = xs + n_x;
  rp_tensor *given[16], *found[64];
  for (int k = 0; k < n_y; k++)
    given[k] = dy[k] ? dy[k]
                     : rp_full_like(tape, &node->outputs[k].type, 0);
  if (tape->status != RP_OK) return;
  if (rp_substitute(tape, rules, n_x, placeholders, given, n_y, found) !=
      RP_OK)
    return;
  for (int j = 0; j < n_x; j++)
    dx[2 * n_y + j] = rules[j] == xs[j] ? NULL : found[j];
}

rp_tensor *rp_custom_vjp(rp_context *ctx, rp_tensor *const *y,
                         rp_tensor *const *d_y, int n_y,
                         rp_tensor *const *xs, rp_tensor *const *d_x,
                         int n_x) {
  if (n_y < 1 || n_y > 16 || n_x < 1 || n_x > 60 - 2 * n_y) {
    rp_fail(ctx, RP_VALUE, "[custom_vjp] %d inputs and %d outputs: at most 16 "
            "outputs and 60 tensors in all are possible", n_x, n_y);
    return NULL;
  }
  rp_tensor *inputs[128];
  int n = 0;
  for (int k = 0; k < n_y; k++) inputs[n++] = y[k];
  for (int k = 0; k < n_y; k++) inputs[n++] = d_y[k];
  for (int j = 0; j < n_x; j++) inputs[n++] = xs[j];
  for (int j = 0; j < n_x; j++) {
    if (d_x[j] && !rp_type_equal(&d_x[j]->type, &xs[j]->type)) {
      char got[RP_DIMS_TEXT], want[RP_DIMS_TEXT];
      rp_fail(ctx, RP_SHAPE, "[custom_vjp] the gradient of input %d is %s %s, "
              "the input %s %s", j + 1, rp_dims_text(&d_x[j]->type, got),
              rp_dtype_name((rp_dtype)d_x[j]->type.dtype),
              rp_dims_text(&xs[j]->type, want),
              rp_dtype_name((rp_dtype)xs[j]->type.dtype));
      return NULL;
    }
    inputs[n++] = d_x[j] ? d_x[j] : xs[j];
  }
  const int64_t ints[2] = {n_y, n_x};
  return rp_record_with_stream(ctx, &rp_op_custom_vjp, inputs, n, ints, 2,
                               NULL, 0, NULL);
}
