/* Instructions, one by one or from a recording. */
#include <string.h>

#include "base/context.h"
#include "exec/run.h"
#include "exec/trace.h"
#include "graph/recorder.h"

/* ---- addresses ---------------------------------------------------------- */

static void *instance_data(const rp_execution *e, int32_t instance) {
  const rp_plan *plan = e->plan;
  const int64_t offset = plan->layout.offsets[instance];
  if (offset >= 0) return (char *)plan->device->arena.data + offset;
  const int32_t value = plan->program.instances.at[instance].value;
  for (int32_t t = 0; t < plan->graph.targets.n; t++) {
    if (plan->graph.targets.at[t] != value) continue;
    void *small = rp_bound_result(&plan->run->bound, plan, t);
    return small ? small : e->results[t]->data;
  }
  return NULL;
}

static void point_arrays(const rp_execution *e) {
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

/* ---- instructions ------------------------------------------------------- */

static rp_kernel_args args_of(const rp_execution *e, int32_t i) {
  const rp_plan *plan = e->plan;
  const rp_device *device = plan->device;
  const rp_instruction *at = &plan->program.instructions.at[i];
  const rp_graph_node *node = &plan->graph.nodes.at[at->node];
  const rp_array *arrays = plan->run->arrays + at->first_ref;
  const int64_t workspace = plan->layout.workspaces[i];
  const rp_stream stream =
      node->stream >= 0 ? e->set.bindings.streams.at[node->stream]
                        : (rp_stream){0};
  return (rp_kernel_args){
      .in = arrays,
      .out = arrays + node->n_operands,
      .n_in = node->n_operands,
      .n_out = node->n_values,
      .ints = node->ints,
      .reals = node->reals,
      .n_ints = node->n_ints,
      .n_reals = node->n_reals,
      .node = at->node,
      .workspace =
          workspace >= 0 ? (char *)device->arena.data + workspace : NULL,
      .state = plan->kernels[at->node].state,
      .seed = stream.seed,
      .stream = stream.draw,
      .draw = node->stream >= 0
                  ? rp_bound_draw(&plan->run->bound, node->stream) : NULL,
      .device = device->state,
      .ctx = e->ctx,
  };
}

/* Says where it was. */
static rp_status name_failure(const rp_execution *e, int32_t i,
                              rp_status status) {
  if (status == RP_OK) return RP_OK;
  const rp_plan *plan = e->plan;
  const rp_graph_node *node =
      &plan->graph.nodes.at[plan->program.instructions.at[i].node];
  const char *scope = rp_scope_text(e->ctx, node->place.scope);
  return *scope ? rp_fail(e->ctx, status, "[%s] %s (in %s)", node->op->name,
                          e->ctx->message, scope)
                : rp_fail(e->ctx, status, "[%s] %s", node->op->name,
                          e->ctx->message);
}

static const rp_kernel *kernel_of(const rp_execution *e, int32_t i) {
  const rp_plan *plan = e->plan;
  return plan->kernels[plan->program.instructions.at[i].node].kernel;
}

static rp_status run_instruction(rp_execution *e, int32_t i) {
  const rp_kernel_args args = args_of(e, i);
  const rp_status status = kernel_of(e, i)->run(&args);
  if (status != RP_OK) return name_failure(e, i, status);
  return e->watch.plan ? rp_watch_outputs(&e->watch, i, args.out) : RP_OK;
}

/* n effects in one call. */
static rp_status run_many(rp_execution *e, int32_t i, int32_t n) {
  rp_kernel_args *many = e->plan->run->many;
  for (int32_t k = 0; k < n; k++) many[k] = args_of(e, i + k);
  return name_failure(e, i, kernel_of(e, i)->run_many(many, n));
}

/* Sends the small results among what instruction i has made on their way. */
static rp_status deliver(const rp_execution *e, int32_t i) {
  const rp_plan *plan = e->plan;
  rp_device *device = plan->device;
  const rp_graph *graph = &plan->graph;
  const rp_instruction *at = &plan->program.instructions.at[i];
  const rp_graph_node *node = &graph->nodes.at[at->node];
  rp_status status = RP_OK;
  for (int32_t t = 0; t < graph->targets.n && status == RP_OK; t++) {
    const int32_t value = graph->targets.at[t];
    if (plan->run->slots[t] < 0 || value < node->first_value ||
        value >= node->first_value + node->n_values)
      continue;
    status = device->backend->deliver(
        device, plan->run->slots[t],
        rp_bound_result(&plan->run->bound, plan, t),
        rp_type_bytes(&graph->values.at[value].type));
  }
  return status;
}

static rp_status run_all(rp_execution *e) {
  const rp_program *program = &e->plan->program;
  const rp_backend *backend = e->plan->device->backend;
  rp_trace *trace = e->ctx->trace;
  rp_status status = RP_OK;
  for (int32_t i = 0; i < program->instructions.n && status == RP_OK; i++) {
    if (program->instructions.at[i].opcode != RP_OP_RUN) continue;
    /* Who times or watches instructions gets them one by one. */
    const int32_t n =
        trace || e->watch.plan ? 1 : rp_call_length(program, i);
    if (n > 1) {
      status = run_many(e, i, n);
      i += n - 1;
      continue;
    }
    const int64_t start_ns = trace ? rp_trace_now() : 0;
    status = run_instruction(e, i);
    if (status == RP_OK && backend->deliver) status = deliver(e, i);
    if (trace == NULL) continue;
    if (status == RP_OK && backend->synchronize)
      status = backend->synchronize(e->plan->device);
    rp_trace_note(trace, i, start_ns);
  }
  return status;
}

/* ---- from a recording --------------------------------------------------- */

/* What a recording's addresses are made of: leaves, large results, the arena.
   RP_NOMEM. */
static void **addresses_of(const rp_execution *e, int32_t *n) {
  const rp_graph *graph = &e->plan->graph;
  *n = graph->leaves.n + graph->targets.n + 1;
  void **addresses = rp_alloc(e->ctx, (size_t)*n * sizeof *addresses);
  if (addresses == NULL) return NULL;
  void **at = addresses;
  for (int32_t l = 0; l < graph->leaves.n; l++) *at++ = e->leaf_data[l];
  for (int32_t t = 0; t < graph->targets.n; t++)
    *at++ = e->results[t] &&
                    !rp_bound_result(&e->plan->run->bound, e->plan, t)
                ? e->results[t]->data : NULL;
  *at = e->plan->device->arena.data;
  return addresses;
}

static rp_status record(rp_execution *e, void *const *addresses, int32_t n,
                        void **made) {
  rp_device *device = e->plan->device;
  rp_status status = device->backend->record(device);
  if (status != RP_OK) return status;
  status = run_all(e);
  if (status != RP_OK) {
    (void)device->backend->end_record(device, NULL);
    return status;
  }
  status = device->backend->end_record(device, made);
  if (status == RP_OK)
    status = rp_recordings_add(&e->plan->run->recordings, device, *made,
                               addresses, n);
  return status;
}

/* A program runs as it is the first time, when libraries load what they need,
   and is recorded the second. One that cannot be recorded runs as it is: until
   it is replayed, nothing of it has run. */
static rp_status run_recorded(rp_execution *e) {
  struct rp_run_data *run = e->plan->run;
  rp_device *device = e->plan->device;
  int32_t n = 0;
  void **addresses = addresses_of(e, &n);
  if (addresses == NULL) return RP_NOMEM;
  void *made = rp_recordings_find(&run->recordings, addresses, n);
  rp_status status = made ? RP_OK : record(e, addresses, n, &made);
  rp_free(e->ctx, addresses, (size_t)n * sizeof *addresses);
  if (status == RP_OK) return device->backend->replay(device, made);
  status = run_all(e);
  if (status != RP_OK || run->is_unrecordable) return status;
  run->is_unrecordable = true;
  rp_notice(e->ctx, "[run] a program could not be recorded (%s) and runs op by "
            "op, which takes the host longer", e->ctx->message);
  return RP_OK;
}

/* ---- a whole run -------------------------------------------------------- */

static rp_status copy_small_results(const rp_execution *e) {
  rp_device *device = e->plan->device;
  const rp_graph *graph = &e->plan->graph;
  const struct rp_run_data *run = e->plan->run;
  rp_status status = RP_OK;
  for (int32_t t = 0; t < graph->targets.n && status == RP_OK; t++) {
    void *from = rp_bound_result(&run->bound, e->plan, t);
    if (from == NULL) continue;
    rp_storage *to = e->results[t];
    status = device->memory->copy(device, to->data, from, to->size);
    if (run->slots[t] < 0) continue;
    to->slot = run->slots[t];
    to->run = device->delivered[to->slot] = device->runs;
  }
  return status;
}

/* A fault on the device is known when it has run. */
static rp_status check_fault(const rp_execution *e) {
  rp_device *device = e->plan->device;
  rp_status status = device->backend->synchronize(device);
  rp_fault fault;
  if (status != RP_OK || !device->backend->take_fault(device, &fault))
    return status;
  const rp_graph_node *node = &e->plan->graph.nodes.at[fault.node];
  const char *scope = rp_scope_text(e->ctx, node->place.scope);
  return rp_fail(e->ctx, RP_VALUE, "[%s] index %lld, valid 0..%lld%s%s%s",
                 node->op->name, (long long)fault.found,
                 (long long)fault.limit - 1, *scope ? " (in " : "", scope,
                 *scope ? ")" : "");
}

/* A run that failed otherwise takes its fault along: effects of later ones
   would write nothing. */
static void drop_fault(const rp_execution *e) {
  rp_device *device = e->plan->device;
  rp_fault fault;
  if (device->backend->synchronize(device) == RP_OK)
    (void)device->backend->take_fault(device, &fault);
}

/* The next run, and what it reads and writes from outside. From here on slots
   may hold its results, whether it succeeds or not. */
static void note_use(const rp_execution *e) {
  const rp_graph *graph = &e->plan->graph;
  rp_device *device = e->plan->device;
  const int64_t run = ++device->runs;
  for (int32_t t = 0; t < graph->targets.n; t++)
    if (e->plan->run->slots[t] >= 0)
      device->delivered[e->plan->run->slots[t]] = 0;
  for (int32_t l = 0; l < graph->leaves.n; l++) {
    const rp_tensor *root = rp_bound_tensor(e, l);
    if (root && root->storage) root->storage->used = run;
  }
  for (int32_t t = 0; t < graph->targets.n; t++)
    if (e->results[t]) e->results[t]->used = run;
}

rp_status rp_launch(rp_execution *e) {
  struct rp_run_data *run = e->plan->run;
  rp_device *device = e->plan->device;
  if (device->backend->enter) device->backend->enter(device);
  point_arrays(e);
  rp_status status = rp_bound_write(&run->bound, e->plan, &e->set.bindings);
  if (status != RP_OK) return status;
  const bool recorded = device->records && run->has_run &&
                        !run->is_unrecordable && !e->ctx->trace &&
                        !e->watch.plan;
  note_use(e);
  if (device->backend->time)
    device->backend->time(device, &e->plan->timer, true);
  const bool loads = !run->has_run && device->backend->loading;
  if (loads) device->backend->loading(device, true);
  status = recorded ? run_recorded(e) : run_all(e);
  if (loads) device->backend->loading(device, false);
  run->has_run = true;
  if (device->backend->time)
    device->backend->time(device, &e->plan->timer, false);
  if (status == RP_OK) status = copy_small_results(e);
  /* Behind the copies, whose storage may be another's soon. */
  if (device->backend->ran) device->backend->ran(device);
  if (run->may_fault && status == RP_OK) return check_fault(e);
  if (run->may_fault) drop_fault(e);
  return status;
}
