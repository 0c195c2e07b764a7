/* From a request to its plan: walk and key; on a miss autodiff, updates,
   graph and kernels.

   The bindings are listed by one function for hits and misses alike, so a
   graph leaf's index into them means the same for every later request of the
   same key. */
#include <string.h>

#include "base/context.h"
#include "exec/bound.h"
#include "exec/cache.h"
#include "exec/notice.h"
#include "exec/watch.h"
#include "graph/autodiff.h"
#include "graph/optimizer.h"
#include "graph/record.h"
#include "graph/recorder.h"
#include "graph/walk.h"

enum { EFFECTS = 4 }; /* the most that a forward node has */

typedef struct preparation {
  rp_context *ctx;
  const rp_request *request;
  rp_walk walk;
  rp_key key;
  rp_binding_set set;
  RP_ARRAY(rp_tensor *) wrt; /* leaves to differentiate by; for MINIMIZE and
                                STEP one a slot, NULL where none */
  int device;                /* the slot it runs in */
} preparation;

static rp_status add_tensor(rp_context *ctx, void *array, rp_tensor *t) {
  RP_ARRAY(rp_tensor *) *a = array;
  if (!rp_array_room(ctx, a, sizeof t, 1)) return RP_NOMEM;
  a->at[a->n++] = t;
  return RP_OK;
}

static bool is_guarded(const rp_request *r) {
  return r->action == RP_MINIMIZE && r->if_finite;
}

/* ---- what the request names -------------------------------------------------- */

static rp_status check_request(rp_context *ctx, const rp_request *r) {
  const bool has_loss = r->action == RP_BACKWARD || r->action == RP_MINIMIZE;
  const bool updates = r->action == RP_MINIMIZE || r->action == RP_STEP;
  if (has_loss && r->loss == NULL)
    return rp_fail(ctx, RP_VALUE, "[backward] there is no loss");
  if (updates && r->optimizer == NULL)
    return rp_fail(ctx, RP_VALUE, "[minimize] there is no optimizer");
  if (!has_loss) return RP_OK;
  char text[RP_DIMS_TEXT];
  if (rp_type_count(&r->loss->type) != 1)
    return rp_fail(ctx, RP_SHAPE, "[backward] the loss is %s, not a scalar: "
                   "use loss:mean() or loss:sum()",
                   rp_dims_text(&r->loss->type, text));
  if (!rp_dtype_is_float((rp_dtype)r->loss->type.dtype))
    return rp_fail(ctx, RP_DTYPE, "[backward] the loss is %s; only floating "
                   "point has a gradient",
                   rp_dtype_name((rp_dtype)r->loss->type.dtype));
  if (!r->loss->requires_grad)
    return rp_fail(ctx, RP_STATE, "[backward] the loss depends on no "
                   "parameter (nothing it is made of requires a gradient, or "
                   "it was recorded in no_grad)");
  return RP_OK;
}

static rp_status collect_targets(preparation *p) {
  const rp_request *r = p->request;
  rp_status status = RP_OK;
  if (r->loss) status = add_tensor(p->ctx, &p->set.targets, r->loss);
  for (int i = 0; i < r->n_targets && status == RP_OK; i++)
    status = add_tensor(p->ctx, &p->set.targets, r->targets[i]);
  return status;
}

static rp_status collect_taps(preparation *p) {
  rp_status status = RP_OK;
  for (int32_t i = 0; i < p->walk.taps.n; i++) {
    rp_node *node = p->walk.taps.at[i];
    for (int k = 0; k < node->n_outputs && status == RP_OK; k++)
      if (node->outputs[k].tap && node->outputs[k].storage == NULL)
        status = add_tensor(p->ctx, &p->set.targets, &node->outputs[k]);
  }
  return status;
}

/* Nodes that this program is the first to run and that have effects. */
static rp_status collect_effectful(preparation *p) {
  for (int32_t i = 0; i < p->walk.nodes.n; i++) {
    rp_node *node = p->walk.nodes.at[i];
    if (node->op->effects == NULL || node->flags & RP_NODE_EFFECTED) continue;
    if (!rp_array_room(p->ctx, &p->set.effectful, sizeof node, 1))
      return RP_NOMEM;
    p->set.effectful.at[p->set.effectful.n++] = node;
  }
  return RP_OK;
}

static rp_status collect_wrt(preparation *p) {
  const rp_request *r = p->request;
  rp_status status = RP_OK;
  if (r->action == RP_BACKWARD && r->wrt) {
    for (int i = 0; i < r->n_wrt && status == RP_OK; i++) {
      if (!rp_is_leaf(r->wrt[i]))
        return rp_fail(p->ctx, RP_STATE, "[backward] gradients accumulate in "
                       "leaves; for a recipe's use rp.grad(y, {x})");
      status = add_tensor(p->ctx, &p->wrt, r->wrt[i]);
    }
  } else if (r->action == RP_BACKWARD) {
    for (int32_t i = 0; i < p->walk.leaves.n && status == RP_OK; i++) {
      rp_tensor *leaf = &p->walk.leaves.at[i]->outputs[0];
      if (leaf->requires_grad) status = add_tensor(p->ctx, &p->wrt, leaf);
    }
  } else if (r->optimizer) {
    for (int32_t i = 0; i < r->optimizer->slots.n && status == RP_OK; i++) {
      rp_tensor *param = r->optimizer->slots.at[i].param;
      const bool wanted =
          param->requires_grad &&
          (rp_tensor_grad(param) != NULL ||
           (r->action == RP_MINIMIZE && rp_walk_met(&p->walk, param->node)));
      status = add_tensor(p->ctx, &p->wrt, wanted ? param : NULL);
    }
  }
  return status;
}

/* Gradient leaves exist from here on; without bytes they are no gradient. */
static rp_status ensure_grad_leaf(rp_tensor *param) {
  if (param->grad) return RP_OK;
  param->grad = rp_leaf(param->node->ctx, RP_GRADIENT, &param->type);
  if (param->grad == NULL) return RP_NOMEM;
  param->grad->node->device = param->node->device;
  return RP_OK;
}

/* A parameter's states lie where it lies. */
static rp_status bring_states(const rp_optimizer *opt, int32_t i) {
  rp_status status = RP_OK;
  const rp_optimizer_slot *slot = &opt->slots.at[i];
  for (int k = 0; k < opt->update->states && status == RP_OK; k++)
    if (slot->states[k]->node->device != slot->param->node->device)
      status = rp_leaf_to(slot->states[k], slot->param->node->device);
  return status;
}

/* Bindings that the walk does not meet, and their part of the key. */
static rp_status bind_request(preparation *p) {
  rp_context *ctx = p->ctx;
  rp_bindings *bindings = &p->set.bindings;
  const rp_optimizer *opt = p->request->optimizer;
  rp_status status = rp_key_add(&p->key, ctx, p->wrt.n);
  for (int32_t i = 0; i < p->wrt.n && status == RP_OK; i++) {
    rp_tensor *param = p->wrt.at[i];
    /* Where in the walk (or, unmet, that it is unmet), and what it holds. */
    int64_t word = -1;
    if (param) {
      const bool met = rp_walk_met(&p->walk, param->node);
      word = (met ? 4 * (int64_t)param->node->walk_index + 1 : 0) +
             2 * (rp_tensor_grad(param) != NULL);
    }
    status = rp_key_add(&p->key, ctx, word);
    if (param == NULL || status != RP_OK) continue;
    if (opt) status = status == RP_OK ? bring_states(opt, i) : status;
    if (opt) { /* STEP's parameters are in no walk */
      const int64_t dims = param->type.rank;
      status = rp_key_add(&p->key, ctx, dims << 8 | param->type.dtype);
      for (int d = 0; d < param->type.rank && status == RP_OK; d++)
        status = rp_key_add(&p->key, ctx, param->type.dims[d]);
      if (status == RP_OK)
        status = rp_key_add(&p->key, ctx, opt->slots.at[i].group);
    }
    if (status == RP_OK) status = rp_bindings_add(bindings, ctx, param);
    if (status == RP_OK && p->request->action == RP_BACKWARD)
      status = ensure_grad_leaf(param);
    if (status == RP_OK && param->grad)
      status = rp_bindings_add(bindings, ctx, param->grad);
    if (status == RP_OK && opt && rp_tensor_grad(param))
      status = add_tensor(ctx, &p->set.grads, param);
    for (int k = 0; opt && k < opt->update->states && status == RP_OK; k++)
      status = rp_bindings_add(bindings, ctx, opt->slots.at[i].states[k]);
  }
  for (int32_t g = 0; opt && g < opt->groups.n && status == RP_OK; g++)
    status = rp_bindings_add(bindings, ctx, opt->groups.at[g]);
  const int64_t how = (opt && opt->max_norm ? 1 : 0) +
                      (is_guarded(p->request) ? 2 : 0);
  if (status == RP_OK) status = rp_key_add(&p->key, ctx, how);
  if (status == RP_OK && opt)
    status = rp_key_add_text(&p->key, ctx, opt->update->name);
  if (status == RP_OK && opt && opt->max_norm)
    status = rp_bindings_add(bindings, ctx, opt->max_norm);
  return status;
}

static rp_status add_rates(preparation *p) {
  const rp_rates rates = rp_device_rates(p->ctx->devices[p->device]);
  int64_t bits[2];
  memcpy(bits, &rates, sizeof bits);
  const rp_status status = rp_key_add(&p->key, p->ctx, bits[0]);
  return status == RP_OK ? rp_key_add(&p->key, p->ctx, bits[1]) : status;
}

/* The one device of all that is asked for. */
static rp_status join_device(preparation *p, const rp_tensor *t,
                             int *device) {
  const int own = t ? rp_root_node(t)->device : RP_ANYWHERE;
  if (own == RP_ANYWHERE || own == *device) return RP_OK;
  if (*device != RP_ANYWHERE)
    return rp_fail(p->ctx, RP_VALUE, "[run] one program runs on one device; "
                   "what is asked for lies on %s and on %s",
                   p->ctx->devices[*device]->name,
                   p->ctx->devices[own]->name);
  *device = own;
  return RP_OK;
}

static rp_status find_device(preparation *p) {
  int device = RP_ANYWHERE;
  rp_status status = RP_OK;
  for (int32_t i = 0; i < p->set.targets.n && status == RP_OK; i++)
    status = join_device(p, p->set.targets.at[i], &device);
  for (int32_t i = 0; i < p->wrt.n && status == RP_OK; i++)
    status = join_device(p, p->wrt.at[i], &device);
  p->device = device == RP_ANYWHERE ? p->ctx->recorder->device : device;
  return status;
}

static rp_status make_key(preparation *p) {
  rp_context *ctx = p->ctx;
  const rp_request *r = p->request;
  rp_status status = rp_key_add_walk(&p->key, ctx, &p->walk, &p->set.bindings);
  if (status == RP_OK) status = rp_key_add(&p->key, ctx, r->action);
  if (status == RP_OK) status = rp_key_add(&p->key, ctx, ctx->threads);
  if (status == RP_OK) status = find_device(p);
  if (status == RP_OK) status = rp_key_add(&p->key, ctx, p->device);
  if (status == RP_OK)
    status = rp_key_add(&p->key, ctx, 4 * ctx->gathers + 2 * ctx->fuses +
                                          rp_watches(ctx));
  if (status == RP_OK) status = add_rates(p);
  if (status == RP_OK) status = rp_key_add(&p->key, ctx, p->set.targets.n);
  for (int32_t i = 0; i < p->set.targets.n && status == RP_OK; i++) {
    const rp_tensor *t = p->set.targets.at[i];
    const int64_t at = t->node->leaf ? -1 - (int64_t)t->node->walk_index
                                     : t->node->walk_index;
    status = rp_key_add(&p->key, ctx, at * 64 + t->index);
  }
  if (status == RP_OK) status = bind_request(p);
  if (status == RP_OK)
    status = rp_key_add_text(&p->key, ctx, r->strategy ? r->strategy : "");
  if (status == RP_OK) rp_key_finish(&p->key);
  return status;
}

/* ---- a miss: gradients, updates, graph ---------------------------------------- */

static rp_tensor *emit_effect(rp_tape *tape, const char *name, rp_tensor *leaf,
                              rp_tensor *x) {
  rp_tensor *inputs[2] = {leaf, x};
  return rp_emit(tape, rp_op_find(name), inputs, 2, NULL, 0, NULL, 0);
}

/* grads[i] for wrt[i], NULL where there is none. */
static rp_status emit_gradients(preparation *p, rp_tape *tape,
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
static rp_status emit_action(preparation *p, rp_tape *tape,
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
  if (status == RP_OK && is_guarded(r)) {
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
static int emit_forward_effects(preparation *p, rp_tape *tape,
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

static rp_status build_graph(preparation *p, rp_graph *graph) {
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
  const bool guarded = is_guarded(p->request);
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
    status = rp_graph_simplify(graph, ctx);
    if (status == RP_OK) status = rp_graph_split(graph, ctx);
    const bool fuses = ctx->fuses && !rp_watches(ctx);
    if (status == RP_OK && fuses) status = rp_graph_end(
        graph, ctx, has_kernel, ctx->devices[p->device]->backend);
    if (status == RP_OK && fuses) status = rp_graph_beside(
        graph, ctx, has_kernel, ctx->devices[p->device]->backend);
    if (status == RP_OK && fuses) status = rp_graph_repeat(
        graph, ctx, has_kernel, ctx->devices[p->device]->backend);
    if (status == RP_OK && fuses) status = rp_graph_fuse(graph, ctx);
    if (status == RP_OK && fuses) status = rp_graph_fold(
        graph, ctx, has_kernel, ctx->devices[p->device]->backend);
    if (status == RP_OK) status = rp_graph_find_light(graph, ctx);
    if (status == RP_OK && fuses) status = rp_graph_tile(
        graph, ctx, has_kernel, ctx->devices[p->device]->backend);
    if (status != RP_OK) rp_graph_free(graph, ctx);
  }
  rp_tape_close(&tape);
  rp_free(ctx, roots, size);
  return status;
}

static rp_plan *make_plan(preparation *p) {
  rp_graph graph = {0};
  if (build_graph(p, &graph) != RP_OK) return NULL;
  rp_plan *plan = rp_plan_new(p->ctx, &graph, &p->key,
                              p->ctx->devices[p->device]);
  p->key = (rp_key){0};
  if (plan == NULL) return NULL;
  plan->bound_bytes = rp_bound_bytes(plan);
  rp_status status = RP_OK;
  const int32_t action = p->request->action;
  if (action == RP_RUN || action == RP_STEP) status = rp_plan_finish(plan);
  if (status == RP_OK) status = rp_cache_add(p->ctx, plan);
  if (status == RP_OK) return plan;
  rp_plan_release(plan);
  return NULL;
}

/* ---- entry ------------------------------------------------------------------------ */

static rp_status prepare(preparation *p) {
  rp_status status = check_request(p->ctx, p->request);
  if (status != RP_OK) return status;
  rp_sweep(p->ctx);
  const bool gradient = p->request->action != RP_RUN;
  status = collect_targets(p);
  if (status == RP_OK)
    status = rp_walk_collect(&p->walk, p->ctx, p->set.targets.at,
                             p->set.targets.n,
                             gradient ? RP_WALK_GRADIENT : RP_WALK_VALUES,
                             NULL, 0);
  if (status == RP_OK) status = collect_taps(p);
  if (status == RP_OK) status = collect_effectful(p);
  if (status == RP_OK) status = collect_wrt(p);
  if (status == RP_OK) status = make_key(p);
  return status;
}

rp_plan *rp_plan_prepare(rp_context *ctx, const rp_request *request) {
  preparation p = {.ctx = ctx, .request = request};
  rp_cache_forget_prepared(ctx);
  rp_plan *plan = NULL;
  if (prepare(&p) == RP_OK) {
    plan = rp_cache_find(ctx, &p.key);
    if (plan) {
      plan->refs++;
    } else {
      rp_notice_request(ctx, request, &p.walk);
      plan = make_plan(&p);
    }
  }
  if (plan) {
    ctx->plans->prepared = plan;
    ctx->plans->request = *request;
    ctx->plans->ordinal = ctx->recorder->ordinal;
    ctx->plans->set = p.set;
  } else {
    rp_binding_set_free(&p.set, ctx);
  }
  rp_key_free(&p.key, ctx);
  rp_walk_free(&p.walk, ctx);
  rp_array_free(ctx, &p.wrt, sizeof(rp_tensor *));
  return plan;
}
