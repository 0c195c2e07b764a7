/* Running a finished plan: leaves get their bytes, results their storage, the
   arena its size; then the instructions run.

   Everything that can fail for want of memory or for a bad index happens
   before the first instruction, and instructions that can fail (an index that
   was computed) come before the first effect: parameters are never half
   updated. */
#include <string.h>
#include <time.h>

#include "base/context.h"
#include "exec/arena.h"
#include "exec/cache.h"
#include "exec/trace.h"
#include "exec/watch.h"
#include "graph/optimizer.h"
#include "graph/record.h"
#include "graph/recorder.h"

/* What a run needs of a plan beyond its program: arrays with room for data
   pointers, made once. */
struct rp_run_data {
  rp_array *arrays; /* by ref */
  int32_t n;
};

static void run_data_free(rp_plan *plan) {
  rp_free(plan->ctx, plan->run->arrays,
          (size_t)plan->run->n * sizeof *plan->run->arrays);
  rp_free(plan->ctx, plan->run, sizeof *plan->run);
  plan->run = NULL;
}

static rp_status run_data_new(rp_plan *plan) {
  if (plan->run) return RP_OK;
  rp_context *ctx = plan->ctx;
  const rp_graph *graph = &plan->graph;
  const rp_program *program = &plan->program;
  struct rp_run_data *run = rp_alloc(ctx, sizeof *run);
  if (run == NULL) return RP_NOMEM;
  run->n = program->refs.n;
  run->arrays = rp_alloc(ctx, (size_t)run->n * sizeof *run->arrays);
  if (run->arrays == NULL) {
    rp_free(ctx, run, sizeof *run);
    return RP_NOMEM;
  }
  for (int32_t i = 0; i < program->instructions.n; i++) {
    const rp_instruction *at = &program->instructions.at[i];
    if (at->opcode != RP_OP_RUN) continue;
    const rp_graph_node *node = &graph->nodes.at[at->node];
    rp_array *array = run->arrays + at->first_ref;
    for (int32_t k = 0; k < node->n_operands; k++, array++) {
      const rp_operand *in = rp_graph_in(graph, node, k);
      array->type = in->type;
      memcpy(array->strides, in->strides.at, sizeof array->strides);
    }
    for (int32_t k = 0; k < node->n_values; k++, array++) {
      rp_strides strides = {0};
      array->type = graph->values.at[node->first_value + k].type;
      rp_strides_contiguous(&array->type, &strides);
      memcpy(array->strides, strides.at, sizeof array->strides);
    }
  }
  plan->run = run;
  plan->free_run = run_data_free;
  return RP_OK;
}

/* ---- one run --------------------------------------------------------------------- */

typedef struct execution {
  rp_plan *plan;
  rp_context *ctx;
  rp_binding_set set;
  void **leaf_data;      /* by graph leaf */
  bool *fresh;           /* by graph leaf: its first bytes came with this run */
  rp_storage **results;  /* by graph target, NULL for leaves */
  int64_t other_bytes;   /* storage that is not this program's */
  rp_watch watch;        /* plan NULL: nothing is watched */
} execution;

/* The tensor bound to a leaf; NULL for a constant. */
static rp_tensor *bound(const execution *e, int32_t leaf) {
  const int32_t binding = e->plan->graph.leaves.at[leaf].binding;
  return binding < 0 ? NULL : e->set.bindings.tensors.at[binding];
}

/* First bytes of leaves that are made by a recipe. These are programs of
   their own, so they run before this one looks at memory. */
static rp_status make_leaves(execution *e) {
  const rp_graph *graph = &e->plan->graph;
  for (int32_t l = 0; l < graph->leaves.n; l++) {
    rp_tensor *root = bound(e, l);
    if (root == NULL || root->node->leaf == NULL || root->storage) continue;
    e->fresh[l] = root->node->leaf->recipe == NULL;
    const rp_status status = rp_leaf_make(root);
    if (status != RP_OK) return status;
  }
  return RP_OK;
}

static int64_t held_size(const rp_tensor *root) {
  return root->storage ? rp_align(root->storage->size) : 0;
}

static rp_status allocate(execution *e) {
  const rp_graph *graph = &e->plan->graph;
  rp_context *ctx = e->ctx;
  const int64_t before = ctx->accounts.bytes[RP_STORAGE];
  const int64_t arena = e->plan->layout.arena_bytes;
  int64_t own = ctx->arena->size < arena ? ctx->arena->size : arena;
  for (int32_t l = 0; l < graph->leaves.n; l++) {
    const rp_tensor *root = bound(e, l);
    if (root && graph->leaves.at[l].role != RP_NUMBER) own += held_size(root);
  }
  e->other_bytes = before - own;
  rp_status status = rp_arena_reserve(ctx, arena);
  for (int32_t l = 0; l < graph->leaves.n && status == RP_OK; l++) {
    rp_tensor *root = bound(e, l);
    if (root == NULL) {
      e->leaf_data[l] = (void *)graph->leaves.at[l].constant;
      continue;
    }
    if (root->node->leaf) status = rp_leaf_materialize(root);
    e->leaf_data[l] = rp_root_data(root);
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
          ctx, rp_type_bytes(&graph->values.at[value].type));
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

/* Tokens, labels, positions that are leaves are looked at as a whole; a view
   of a part of one asks no more than the whole does. */
static rp_status check_indices(const execution *e) {
  const rp_graph *graph = &e->plan->graph;
  for (int32_t r = 0; r < graph->ranges.n; r++) {
    const rp_graph_range *check = &graph->ranges.at[r];
    const rp_graph_leaf *leaf = &graph->leaves.at[check->leaf];
    const rp_dtype dtype = (rp_dtype)leaf->type.dtype;
    if (dtype != RP_I32 && dtype != RP_I64) continue;
    const int64_t count = rp_type_count(&leaf->type);
    for (int64_t i = 0; i < count; i++) {
      int64_t found;
      if (index_ok(e->leaf_data[check->leaf], dtype, i, &check->range, &found))
        continue;
      const char *name = rp_leaf_name(bound(e, check->leaf));
      return rp_fail(e->ctx, RP_VALUE,
                     "[%s] %s %lld, valid 0..%lld (element %lld of %s)",
                     graph->nodes.at[check->node].op->name, check->range.what,
                     (long long)found, (long long)check->range.limit - 1,
                     (long long)i + 1, *name ? name : "its input");
    }
  }
  return RP_OK;
}

static void *instance_data(const execution *e, int32_t instance) {
  const int64_t offset = e->plan->layout.offsets[instance];
  if (offset >= 0) return (char *)e->ctx->arena->data + offset;
  const int32_t value = e->plan->program.instances.at[instance].value;
  for (int32_t t = 0; t < e->plan->graph.targets.n; t++)
    if (e->plan->graph.targets.at[t] == value) return e->results[t]->data;
  return NULL;
}

static void point_arrays(const execution *e) {
  const rp_program *program = &e->plan->program;
  const rp_graph *graph = &e->plan->graph;
  for (int32_t i = 0; i < program->instructions.n; i++) {
    const rp_instruction *at = &program->instructions.at[i];
    if (at->opcode != RP_OP_RUN) continue;
    const rp_graph_node *node = &graph->nodes.at[at->node];
    for (int32_t k = 0; k < node->n_operands + node->n_values; k++) {
      const int32_t ref = program->refs.at[at->first_ref + k];
      rp_array *array = &e->plan->run->arrays[at->first_ref + k];
      char *data = ref < 0 ? e->leaf_data[-1 - ref] : instance_data(e, ref);
      if (k < node->n_operands && data) {
        const rp_operand *in = rp_graph_in(graph, node, k);
        data += in->strides.offset *
                (int64_t)rp_dtype_size((rp_dtype)in->type.dtype);
      }
      array->data = data;
    }
  }
}

static rp_status run_instruction(execution *e, int32_t i) {
  const rp_plan *plan = e->plan;
  const rp_instruction *at = &plan->program.instructions.at[i];
  const rp_graph_node *node = &plan->graph.nodes.at[at->node];
  const rp_array *arrays = plan->run->arrays + at->first_ref;
  const int64_t workspace = plan->layout.workspaces[i];
  const rp_stream stream =
      node->stream >= 0 ? e->set.bindings.streams.at[node->stream]
                        : (rp_stream){0};
  const rp_kernel_args args = {
      .in = arrays,
      .out = arrays + node->n_operands,
      .n_in = node->n_operands,
      .n_out = node->n_values,
      .ints = node->ints,
      .reals = node->reals,
      .n_ints = node->n_ints,
      .n_reals = node->n_reals,
      .workspace =
          workspace >= 0 ? (char *)e->ctx->arena->data + workspace : NULL,
      .state = plan->kernels[at->node].state,
      .seed = stream.seed,
      .stream = stream.draw,
      .ctx = e->ctx,
  };
  const rp_status status = plan->kernels[at->node].kernel->run(&args);
  if (status == RP_OK)
    return e->watch.plan ? rp_watch_outputs(&e->watch, i, args.out) : RP_OK;
  const char *scope = rp_scope_text(e->ctx, node->place.scope);
  return *scope ? rp_fail(e->ctx, status, "[%s] %s (in %s)", node->op->name,
                          e->ctx->message, scope)
                : rp_fail(e->ctx, status, "[%s] %s", node->op->name,
                          e->ctx->message);
}

static bool updates(const rp_request *request) {
  return request->action == RP_MINIMIZE || request->action == RP_STEP;
}

/* What the guard of a guarded program says: its last target. */
static bool guard_held(const execution *e) {
  const int32_t last = e->plan->graph.targets.n - 1;
  return last < e->set.targets.n || *(const uint8_t *)e->results[last]->data;
}

static bool is_guarded(const rp_graph_node *node) {
  return node->op->flags & RP_GUARDABLE && node->n_operands > node->op->inputs;
}

/* Results become held values, updated leaves get their next version. Forward
   nodes whose effects a guard stopped have had their turn. */
static void commit(execution *e, const rp_request *request) {
  const rp_graph *graph = &e->plan->graph;
  const bool held = guard_held(e);
  for (int32_t t = 0; t < e->set.targets.n; t++) {
    rp_tensor *root = e->set.targets.at[t]->root;
    if (e->results[t] == NULL || root->storage) continue;
    root->storage = e->results[t];
    e->results[t] = NULL;
  }
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    if (!held && is_guarded(node)) continue;
    for (int32_t k = 0; k < node->n_operands && node->op->writes; k++)
      if (node->op->writes >> k & 1u)
        rp_leaf_bump(bound(e, rp_operand_leaf(rp_graph_in(graph, node, k))),
                     node->op->name);
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
static void undo(const execution *e) {
  for (int32_t l = 0; e->fresh && l < e->plan->graph.leaves.n; l++) {
    rp_tensor *root = e->fresh[l] ? bound(e, l) : NULL;
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

static rp_status execute(execution *e, const rp_request *request) {
  rp_context *ctx = e->ctx;
  rp_plan *plan = e->plan;
  const int32_t leaves = plan->graph.leaves.n, targets = plan->graph.targets.n;
  e->leaf_data = rp_alloc(ctx, (size_t)leaves * sizeof(void *));
  e->results = rp_alloc(ctx, (size_t)targets * sizeof(rp_storage *));
  e->fresh = rp_alloc(ctx, (size_t)leaves);
  rp_status status = e->leaf_data && e->results && e->fresh
                         ? run_data_new(plan)
                         : RP_NOMEM;
  if (status == RP_OK) status = make_leaves(e);
  /* The program's own high-water mark, whatever was reached before. */
  const int64_t peak_before = ctx->accounts.peak[RP_STORAGE];
  ctx->accounts.peak[RP_STORAGE] = ctx->accounts.bytes[RP_STORAGE];
  if (status == RP_OK) status = allocate(e);
  if (status == RP_OK) status = check_indices(e);
  if (status == RP_OK)
    status = rp_trace_begin(ctx, plan->program.instructions.n);
  if (status == RP_OK && rp_watches(ctx))
    status = rp_watch_open(&e->watch, plan, &e->set.bindings, e->leaf_data);
  if (status == RP_OK) {
    if (updates(request)) rp_optimizer_begin_step(request->optimizer);
    point_arrays(e);
    const double start = now();
    for (int32_t i = 0; i < plan->program.instructions.n && status == RP_OK;
         i++)
      if (plan->program.instructions.at[i].opcode == RP_OP_RUN) {
        const int64_t start_ns = ctx->trace ? rp_trace_now() : 0;
        status = run_instruction(e, i);
        if (ctx->trace) rp_trace_note(ctx->trace, i, start_ns);
      }
    plan->measured_seconds = now() - start;
    plan->measured_peak = ctx->accounts.peak[RP_STORAGE] - e->other_bytes;
  }
  if (ctx->accounts.peak[RP_STORAGE] < peak_before)
    ctx->accounts.peak[RP_STORAGE] = peak_before;
  if (status == RP_OK) commit(e, request);
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
static rp_status take_bindings(execution *e, const rp_request *request) {
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
  execution e = {.plan = plan, .ctx = plan->ctx};
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
