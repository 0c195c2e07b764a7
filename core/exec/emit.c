/* The graph of a request: gradients, updates and effects, emitted behind what
   was recorded; then its passes. See rp_graph_emit. */
#include "base/context.h"
#include "exec/prepare.h"
#include "exec/watch.h"
#include "graph/autodiff.h"
#include "graph/optimizer.h"
#include "graph/passes.h"
#include "graph/record.h"
#include "graph/recorder.h"

enum { EFFECTS = 4 }; /* the most that a forward node has */

static rp_tensor *emit_effect(rp_tape *tape, const char *name, rp_tensor *leaf,
                              rp_tensor *x) {
  rp_tensor *inputs[2] = {leaf, x};
  return rp_emit(tape, rp_op_find(name), inputs, 2, NULL, 0, NULL, 0);
}

/* grads[i] for wrt[i], NULL where there is none. */
static rp_status emit_gradients(rp_preparation *p, rp_tape *tape,
                                rp_tensor **grads) {
  rp_tensor *loss = p->request->loss;
  const size_t size = (size_t)p->wrt.n * sizeof(rp_tensor *);
  rp_tensor **xs = rp_alloc(p->ctx, size), **dxs = rp_alloc(p->ctx, size);
  rp_status status = xs && dxs ? RP_OK : RP_NOMEM;
  int n = 0;
  for (int32_t i = 0; i < p->wrt.n && status == RP_OK; i++)
    if (p->wrt.at[i]) xs[n++] = p->wrt.at[i];
  if (status == RP_OK) {
    rp_tensor *seed = rp_full_like(tape, &loss->type, 1);
    status = tape->status == RP_OK
                 ? rp_vjp(tape, &loss, &seed, 1, xs, n, false, dxs)
                 : tape->status;
  }
  n = 0;
  for (int32_t i = 0; i < p->wrt.n && status == RP_OK; i++)
    if (p->wrt.at[i]) grads[i] = dxs[n++];
  rp_free(p->ctx, xs, size);
  rp_free(p->ctx, dxs, size);
  return status;
}

/* Whether the loss and all gradients are finite. */
static rp_tensor *emit_guard(rp_tape *tape, rp_tensor *loss,
                             rp_tensor *const *grads, int32_t n) {
  rp_tensor *all = rp_unary(tape, "all_finite", loss);
  rp_tensor *of_grads =
      rp_emit_over_all(tape, "all_finite", "logical_and", grads, n);
  return of_grads ? rp_binary(tape, "logical_and", all, of_grads) : all;
}

/* Emits what the action asks for beyond the targets: effects[i] for wrt[i],
   NULL where there is none. */
static rp_status emit_action(rp_preparation *p, rp_tape *tape,
                             rp_tensor **effects) {
  const rp_request *r = p->request;
  if (r->action == RP_RUN) return RP_OK;
  const size_t size = (size_t)p->wrt.n * sizeof(rp_tensor *);
  rp_tensor **grads = rp_alloc(p->ctx, size);
  if (grads == NULL) return RP_NOMEM;
  rp_status status = RP_OK;
  if (r->action == RP_STEP) {
    for (int32_t i = 0; i < p->wrt.n; i++)
      grads[i] = p->wrt.at[i] ? rp_tensor_grad(p->wrt.at[i]) : NULL;
  } else {
    status = emit_gradients(p, tape, grads);
  }
  for (int32_t i = 0; i < p->wrt.n && status == RP_OK; i++) {
    rp_tensor *param = p->wrt.at[i];
    rp_tensor *held = param ? rp_tensor_grad(param) : NULL;
    if (r->action == RP_MINIMIZE && held)
      grads[i] = grads[i] ? rp_add(tape, held, grads[i]) : held;
    else if (r->action == RP_BACKWARD && grads[i])
      effects[i] = emit_effect(tape, held ? "accumulate" : "assign",
                               param->grad, grads[i]);
    status = tape->status;
  }
  if (status == RP_OK && rp_is_guarded(r)) {
    tape->guard = emit_guard(tape, r->loss, grads, p->wrt.n);
    status = tape->status;
  }
  if (status == RP_OK && r->action != RP_BACKWARD)
    status = rp_optimizer_emit(r->optimizer, tape, grads, effects);
  rp_free(p->ctx, grads, size);
  return status;
}

/* The effects of forward nodes, which count as forward nodes too (unless they
   wait for the guard) but belong to no segment: roots from n on. Returns the
   new number of roots. */
static int emit_forward_effects(rp_preparation *p, rp_tape *tape,
                                rp_tensor **roots, int n) {
  for (int32_t i = 0; i < p->set.effectful.n; i++) {
    const rp_node *node = p->set.effectful.at[i];
    p->ctx->recorder->place = (rp_place){.scope = node->place.scope};
    const int made = node->op->effects(tape, node, roots + n);
    if (tape->status != RP_OK) return n;
    n += made;
  }
  return n;
}

static bool has_kernel(const void *backend, const rp_op *op, rp_dtype dtype) {
  return rp_backend_find(backend, op, dtype) != NULL;
}

rp_status rp_graph_emit(rp_preparation *p, rp_graph *graph) {
  rp_context *ctx = p->ctx;
  rp_recorder *recorder = ctx->recorder;
  const rp_place place = recorder->place;
  const size_t size =
      (size_t)(p->set.targets.n + p->wrt.n + EFFECTS * p->set.effectful.n + 1) *
      sizeof(rp_tensor *);
  rp_tensor **roots = rp_alloc(ctx, size);
  if (roots == NULL) return RP_NOMEM;
  rp_tape tape;
  rp_tape_open(&tape, ctx);
  int n = 0;
  for (int32_t i = 0; i < p->set.targets.n; i++)
    roots[n++] = p->set.targets.at[i];
  const bool guarded = rp_is_guarded(p->request);
  if (!guarded) n = emit_forward_effects(p, &tape, roots, n);
  const int8_t device = recorder->device;
  recorder->device = (int8_t)p->device;
  recorder->emitting = true;
  recorder->place = (rp_place){0};
  rp_tensor **effects = roots + n;
  rp_status status = tape.status == RP_OK ? emit_action(p, &tape, effects)
                                          : tape.status;
  for (int32_t i = 0; i < p->wrt.n && status == RP_OK; i++)
    if (effects[i]) roots[n++] = effects[i];
  if (guarded && status == RP_OK) {
    n = emit_forward_effects(p, &tape, roots, n);
    roots[n++] = tape.guard; /* the last target: commit reads it */
    status = tape.status;
  }
  recorder->emitting = false;
  recorder->device = device;
  recorder->place = place;
  if (status == RP_OK)
    status = rp_graph_build(graph, ctx, roots, n, &p->set.bindings);
  graph->effects_last = rp_watches(ctx);
  graph->alignment = ctx->devices[p->device]->memory->alignment;
  if (status == RP_OK) {
    status = rp_graph_pass(graph, ctx, ctx->fuses && !rp_watches(ctx),
                           has_kernel, ctx->devices[p->device]->backend);
    if (status != RP_OK) rp_graph_free(graph, ctx);
  }
  rp_tape_close(&tape);
  rp_free(ctx, roots, size);
  return status;
}
