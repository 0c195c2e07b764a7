/* From a request to its plan: walk and key; on a miss its graph (emit.c).

   The bindings are listed by one function for hits and misses alike, so a
   graph leaf's index into them means the same for every later request of the
   same key. */
#include <string.h>

#include "base/context.h"
#include "exec/bound.h"
#include "exec/notice.h"
#include "exec/prepare.h"
#include "exec/watch.h"
#include "graph/optimizer.h"
#include "graph/recorder.h"

static rp_status add_tensor(rp_context *ctx, void *array, rp_tensor *t) {
  RP_ARRAY(rp_tensor *) *a = array;
  if (!rp_array_room(ctx, a, sizeof t, 1)) return RP_NOMEM;
  a->at[a->n++] = t;
  return RP_OK;
}

/* ---- what the request names --------------------------------------------- */

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

static rp_status collect_targets(rp_preparation *p) {
  const rp_request *r = p->request;
  rp_status status = RP_OK;
  if (r->loss) status = add_tensor(p->ctx, &p->set.targets, r->loss);
  for (int i = 0; i < r->n_targets && status == RP_OK; i++)
    status = add_tensor(p->ctx, &p->set.targets, r->targets[i]);
  return status;
}

static rp_status collect_taps(rp_preparation *p) {
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
static rp_status collect_effectful(rp_preparation *p) {
  for (int32_t i = 0; i < p->walk.nodes.n; i++) {
    rp_node *node = p->walk.nodes.at[i];
    if (node->op->effects == NULL || node->flags & RP_NODE_EFFECTED) continue;
    if (!rp_array_room(p->ctx, &p->set.effectful, sizeof node, 1))
      return RP_NOMEM;
    p->set.effectful.at[p->set.effectful.n++] = node;
  }
  return RP_OK;
}

static rp_status collect_wrt(rp_preparation *p) {
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
static rp_status bind_request(rp_preparation *p) {
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
                      (rp_is_guarded(p->request) ? 2 : 0);
  if (status == RP_OK) status = rp_key_add(&p->key, ctx, how);
  if (status == RP_OK && opt)
    status = rp_key_add_text(&p->key, ctx, opt->update->name);
  if (status == RP_OK && opt && opt->max_norm)
    status = rp_bindings_add(bindings, ctx, opt->max_norm);
  return status;
}

static rp_status add_rates(rp_preparation *p) {
  const rp_rates rates = rp_device_rates(p->ctx->devices[p->device]);
  int64_t bits[2];
  memcpy(bits, &rates, sizeof bits);
  const rp_status status = rp_key_add(&p->key, p->ctx, bits[0]);
  return status == RP_OK ? rp_key_add(&p->key, p->ctx, bits[1]) : status;
}

/* The one device of all that is asked for. */
static rp_status join_device(rp_preparation *p, const rp_tensor *t,
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

static rp_status find_device(rp_preparation *p) {
  int device = RP_ANYWHERE;
  rp_status status = RP_OK;
  for (int32_t i = 0; i < p->set.targets.n && status == RP_OK; i++)
    status = join_device(p, p->set.targets.at[i], &device);
  for (int32_t i = 0; i < p->wrt.n && status == RP_OK; i++)
    status = join_device(p, p->wrt.at[i], &device);
  p->device = device == RP_ANYWHERE ? p->ctx->recorder->device : device;
  return status;
}

static rp_status make_key(rp_preparation *p) {
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

/* ---- entry -------------------------------------------------------------- */

static rp_plan *make_plan(rp_preparation *p) {
  rp_graph graph = {0};
  if (rp_graph_emit(p, &graph) != RP_OK) return NULL;
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

static rp_status prepare(rp_preparation *p) {
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
  rp_preparation p = {.ctx = ctx, .request = request};
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
