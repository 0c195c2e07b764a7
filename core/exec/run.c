/* Running a finished plan: leaves get their bytes, results their storage, the
   arena its size; then the instructions run.

   Everything that can fail for want of memory or for a bad index happens
   before the first instruction, and instructions that can fail (an index that
   was computed) come before the first effect: parameters are never half
   updated. */
#include <string.h>
#include <time.h>

#include "base/context.h"
#include "exec/run.h"
#include "exec/trace.h"
#include "graph/optimizer.h"
#include "graph/record.h"
#include "graph/recorder.h"

/* First bytes of leaves that are made by a recipe. These are programs of
   their own, so they run before this one looks at memory. */
static rp_status make_leaves(rp_execution *e) {
  const rp_graph *graph = &e->plan->graph;
  for (int32_t l = 0; l < graph->leaves.n; l++) {
    rp_tensor *root = rp_bound_tensor(e, l);
    if (root == NULL || root->node->leaf == NULL || root->storage) continue;
    e->fresh[l] = root->node->leaf->recipe == NULL;
    const rp_status status = rp_leaf_make(root);
    if (status != RP_OK) return status;
  }
  return RP_OK;
}

/* Bytes that root takes on the device. */
static int64_t held_size(const rp_device *device, const rp_tensor *root) {
  return root && root->storage && root->storage->device == device
             ? rp_device_align(device, root->storage->size) : 0;
}

static rp_status allocate(rp_execution *e) {
  const rp_graph *graph = &e->plan->graph;
  rp_device *device = e->plan->device;
  struct rp_run_data *run = e->plan->run;
  const int64_t arena = e->plan->layout.arena_bytes;
  int64_t own = device->arena.size < arena ? device->arena.size : arena;
  own += run->bound.size;
  for (int32_t l = 0; l < graph->leaves.n; l++)
    own += held_size(device, rp_bound_tensor(e, l));
  e->other_bytes = device->storage.bytes - own;
  rp_status status =
      device->arena.size < arena ? rp_arena_resize(device, arena) : RP_OK;
  char *slot = rp_bound_leaves(&run->bound, e->plan);
  for (int32_t l = 0; l < graph->leaves.n && status == RP_OK; l++) {
    rp_tensor *root = rp_bound_tensor(e, l);
    if (root && root->node->leaf) status = rp_leaf_materialize(root);
    if (slot && rp_leaf_travels(&graph->leaves.at[l])) {
      e->leaf_data[l] = slot;
      slot += RP_SLOT;
    } else if (root) {
      e->leaf_data[l] = rp_root_data(root);
    } else {
      e->leaf_data[l] = (void *)graph->leaves.at[l].constant;
    }
  }
  for (int32_t t = 0; t < graph->targets.n && status == RP_OK; t++) {
    const int32_t value = graph->targets.at[t];
    if (value < 0) continue;
    for (int32_t s = 0; s < t && e->results[t] == NULL; s++)
      if (graph->targets.at[s] == value) {
        e->results[t] = e->results[s];
        e->results[t]->refs++;
      }
    if (e->results[t] == NULL)
      e->results[t] = rp_storage_new(
          device, rp_type_bytes(&graph->values.at[value].type));
    if (e->results[t] == NULL) status = RP_NOMEM;
  }
  return status;
}

static bool index_ok(const void *data, rp_dtype dtype, int64_t i,
                     const rp_index_range *range, int64_t *found) {
  *found = dtype == RP_I32 ? ((const int32_t *)data)[i]
                           : ((const int64_t *)data)[i];
  return (*found >= 0 && *found < range->limit) ||
         (range->has_allowed && *found == range->allowed);
}

/* Where the host can read a leaf's indices; NULL: it cannot. What a held value
   has elsewhere is read into *copy, which is the caller's. */
static const void *index_bytes(const rp_execution *e, int32_t leaf,
                               void **copy) {
  rp_device *device = e->plan->device;
  const rp_graph_leaf *of = &e->plan->graph.leaves.at[leaf];
  rp_tensor *root = rp_bound_tensor(e, leaf);
  if (root == NULL) return of->constant;
  if (root->node->leaf) return rp_leaf_host_bytes(root);
  if (device->memory->is_host) return e->leaf_data[leaf];
  const int64_t size = rp_type_bytes(&of->type);
  *copy = rp_alloc(e->ctx, (size_t)size);
  if (*copy == NULL ||
      device->memory->read(device, *copy, e->leaf_data[leaf], size) != RP_OK)
    return NULL;
  return *copy;
}

static rp_status check_range(const rp_execution *e, const rp_graph_range *check,
                             const void *data) {
  const rp_graph *graph = &e->plan->graph;
  const rp_type *type = &graph->leaves.at[check->leaf].type;
  const int64_t count = rp_type_count(type);
  for (int64_t i = 0; i < count; i++) {
    int64_t found;
    if (index_ok(data, (rp_dtype)type->dtype, i, &check->range, &found))
      continue;
    const char *name = rp_leaf_name(rp_bound_tensor(e, check->leaf));
    return rp_fail(e->ctx, RP_VALUE,
                   "[%s] %s %lld, valid 0..%lld (element %lld of %s)",
                   graph->nodes.at[check->node].op->name, check->range.what,
                   (long long)found, (long long)check->range.limit - 1,
                   (long long)i + 1, *name ? name : "its input");
  }
  return RP_OK;
}

/* Tokens, labels, positions that are leaves are looked at as a whole; a view
   of a part of one asks no more than the whole does. */
static rp_status check_indices(const rp_execution *e) {
  const rp_graph *graph = &e->plan->graph;
  rp_status status = RP_OK;
  for (int32_t r = 0; r < graph->ranges.n && status == RP_OK; r++) {
    const rp_graph_range *check = &graph->ranges.at[r];
    const rp_type *type = &graph->leaves.at[check->leaf].type;
    if (!rp_dtype_is_index((rp_dtype)type->dtype) ||
        rp_type_count(type) == 0)
      continue;
    void *copy = NULL;
    const void *data = index_bytes(e, check->leaf, &copy);
    status = data ? check_range(e, check, data) : e->ctx->status;
    rp_free(e->ctx, copy, (size_t)rp_type_bytes(type));
  }
  return status;
}

static bool updates(const rp_request *request) {
  return request->action == RP_MINIMIZE || request->action == RP_STEP;
}

/* What the guard of a guarded program says: its last target. */
static rp_status read_guard(const rp_execution *e, bool *held) {
  const int32_t last = e->plan->graph.targets.n - 1;
  *held = true;
  if (last < e->set.targets.n) return RP_OK;
  uint8_t guard = 0;
  rp_device *device = e->plan->device;
  const rp_status status =
      device->memory->read(device, &guard, e->results[last]->data, 1);
  *held = guard != 0;
  return status;
}

static bool is_guarded(const rp_graph *graph, const rp_graph_node *node) {
  return node->op->flags & RP_GUARDABLE &&
         node->n_operands > node->op->inputs &&
         rp_graph_in(graph, node, node->n_operands - 1)->type.dtype == RP_BOOL;
}

/* Results become held values, updated leaves get their next version. Forward
   nodes whose effects a guard stopped have had their turn. */
static void commit(rp_execution *e, const rp_request *request, bool held) {
  const rp_graph *graph = &e->plan->graph;
  for (int32_t t = 0; t < e->set.targets.n; t++) {
    rp_tensor *root = e->set.targets.at[t]->root;
    if (e->results[t] == NULL || root->storage) continue;
    root->storage = e->results[t];
    e->results[t] = NULL;
  }
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    if (!held && is_guarded(graph, node)) continue;
    for (int32_t k = 0; k < node->n_operands && node->op->writes; k++) {
      const int32_t leaf = rp_operand_leaf(rp_graph_in(graph, node, k));
      if (node->op->writes >> k & 1u)
        rp_leaf_bump(rp_bound_tensor(e, leaf), node->op->name);
    }
  }
  for (int32_t i = 0; i < e->set.effectful.n; i++)
    e->set.effectful.at[i]->flags |= RP_NODE_EFFECTED;
  if (updates(request) && held) rp_optimizer_end_step(request->optimizer);
  if (request->action == RP_MINIMIZE)
    for (int32_t i = 0; i < e->set.grads.n; i++)
      rp_tensor_clear_grad(e->set.grads.at[i]);
}

/* After a failure: leaves without bytes are so again, a gradient that was not
   there is not. */
static void undo(const rp_execution *e) {
  for (int32_t l = 0; e->fresh && l < e->plan->graph.leaves.n; l++) {
    rp_tensor *root = e->fresh[l] ? rp_bound_tensor(e, l) : NULL;
    if (root == NULL || root->storage == NULL) continue;
    rp_storage_release(root->storage);
    root->storage = NULL;
  }
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static rp_status execute(rp_execution *e, const rp_request *request) {
  rp_context *ctx = e->ctx;
  rp_plan *plan = e->plan;
  const int32_t leaves = plan->graph.leaves.n, targets = plan->graph.targets.n;
  e->leaf_data = rp_alloc(ctx, (size_t)leaves * sizeof(void *));
  e->results = rp_alloc(ctx, (size_t)targets * sizeof(rp_storage *));
  e->fresh = rp_alloc(ctx, (size_t)leaves);
  rp_status status = e->leaf_data && e->results && e->fresh
                         ? rp_run_data_new(plan)
                         : RP_NOMEM;
  if (status == RP_OK) status = make_leaves(e);
  /* The program's own high-water mark, whatever was reached before. */
  rp_account *storage = &plan->device->storage;
  const int64_t peak_before = storage->peak;
  storage->peak = storage->bytes;
  if (status == RP_OK) status = allocate(e);
  if (status == RP_OK) status = check_indices(e);
  if (status == RP_OK)
    status = rp_trace_begin(ctx, plan->program.instructions.n);
  if (status == RP_OK && rp_watches(ctx))
    status = rp_watch_open(&e->watch, plan, &e->set.bindings, e->leaf_data);
  bool held = true;
  if (status == RP_OK) {
    if (updates(request)) rp_optimizer_begin_step(request->optimizer);
    const double start = now();
    status = rp_launch(e);
    plan->launch_seconds = now() - start;
    plan->measured_peak = storage->peak - e->other_bytes;
  }
  if (storage->peak < peak_before) storage->peak = peak_before;
  if (status == RP_OK) status = read_guard(e, &held);
  if (status == RP_OK) commit(e, request, held);
  else undo(e);
  rp_watch_close(&e->watch);
  for (int32_t t = 0; e->results && t < targets; t++)
    if (e->results[t]) rp_storage_release(e->results[t]);
  rp_free(ctx, e->leaf_data, (size_t)leaves * sizeof(void *));
  rp_free(ctx, e->fresh, (size_t)leaves);
  rp_free(ctx, e->results, (size_t)targets * sizeof(rp_storage *));
  return status;
}

/* The bindings of the request: those of the prepare just before, or new
   ones. */
static rp_status take_bindings(rp_execution *e, const rp_request *request) {
  rp_plans *plans = e->ctx->plans;
  const bool same = plans->prepared == e->plan &&
                    plans->ordinal == e->ctx->recorder->ordinal &&
                    !e->ctx->recorder->stale &&
                    memcmp(&plans->request, request, sizeof *request) == 0;
  if (!same) {
    rp_plan *plan = rp_plan_prepare(e->ctx, request);
    if (plan == NULL) return e->ctx->status;
    rp_plan_release(plan);
    if (plan != e->plan)
      return rp_fail(e->ctx, RP_STATE, "[run] the request is not the one this "
                     "plan was prepared for");
  }
  e->set = plans->set;
  plans->set = (rp_binding_set){0};
  plans->prepared = NULL;
  return RP_OK;
}

rp_status rp_plan_run(rp_plan *plan, const rp_request *request) {
  rp_execution e = {.plan = plan, .ctx = plan->ctx};
  if (!plan->ready)
    return rp_fail(plan->ctx, RP_STATE, "[run] the plan is not finished");
  rp_status status = take_bindings(&e, request);
  if (status != RP_OK) return status;
  plan->refs++;
  status = execute(&e, request);
  rp_binding_set_free(&e.set, e.ctx);
  rp_plan_release(plan);
  rp_sweep(plan->ctx);
  return status;
}
