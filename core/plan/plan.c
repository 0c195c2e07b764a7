/* The plan: stages put together, and what it tells of itself. */
#include "plan/plan.h"

#include <math.h>
#include <string.h>

#include "base/context.h"

/* ---- seconds ------------------------------------------------------------ */

/* The analytic model of a kernel that has a cost of its own. */
static double kernel_seconds(const rp_kernel *kernel,
                             const rp_kernel_args *args,
                             const rp_rates *rates, double otherwise) {
  double flops, bytes;
  if (kernel->cost == NULL || !kernel->cost(args, &flops, &bytes))
    return otherwise;
  return flops / rates->flops_per_second + bytes / rates->bytes_per_second;
}

/* Of products: those of bf16 do twice the FLOPs a second. */
static double analytic_seconds(const rp_graph *graph,
                               const rp_graph_node *node,
                               const rp_rates *rates) {
  const double moved = node->bytes / rates->bytes_per_second;
  if (!(node->op->flags & RP_COSTLY)) return moved;
  const bool narrow =
      node->n_operands > 0 &&
      rp_graph_in(graph, node, 0)->type.dtype == RP_BF16;
  const double computed =
      node->flops / rates->flops_per_second / (narrow ? 2 : 1);
  return computed > moved ? computed : moved;
}

rp_status rp_plan_set_seconds(rp_plan *plan, const double *seconds, int n) {
  if (plan->ready)
    return rp_fail(plan->ctx, RP_STATE, "[set_seconds] the plan is finished");
  if (n != plan->graph.nodes.n)
    return rp_fail(plan->ctx, RP_VALUE, "[set_seconds] %d seconds for %d nodes",
                   n, (int)plan->graph.nodes.n);
  for (int i = 0; i < n; i++)
    if (!(seconds[i] >= 0 && seconds[i] < HUGE_VAL))
      return rp_fail(plan->ctx, RP_VALUE, "[set_seconds] node %d takes %g "
                     "seconds", i + 1, seconds[i]);
  memcpy(plan->seconds, seconds, (size_t)n * sizeof *seconds);
  rp_plan_front_free(plan);
  rp_view_free(plan);
  return RP_OK;
}

/* ---- kernels ------------------------------------------------------------ */

/* The arrays of a node's operands and outputs, without data. arrays has room
   for both. */
static void describe_arrays(const rp_graph *graph, const rp_graph_node *node,
                            rp_array *arrays) {
  for (int32_t k = 0; k < node->n_operands; k++) {
    const rp_operand *in = rp_graph_in(graph, node, k);
    arrays[k] = (rp_array){.type = in->type};
    memcpy(arrays[k].strides, in->strides.at, sizeof arrays[k].strides);
  }
  for (int32_t k = 0; k < node->n_values; k++) {
    rp_array *out = &arrays[node->n_operands + k];
    *out = (rp_array){.type = graph->values.at[node->first_value + k].type};
    rp_strides strides = {0};
    rp_strides_contiguous(&out->type, &strides);
    memcpy(out->strides, strides.at, sizeof out->strides);
  }
}

static rp_status prepare_kernel(rp_plan *plan, int32_t index,
                                const rp_rates *rates) {
  const rp_backend *backend = plan->device->backend;
  const rp_graph_node *node = &plan->graph.nodes.at[index];
  rp_context *ctx = plan->ctx;
  const int32_t n_arrays = node->n_operands + node->n_values;
  rp_array *arrays = rp_alloc(ctx, (size_t)n_arrays * sizeof *arrays);
  if (arrays == NULL) return RP_NOMEM;
  describe_arrays(&plan->graph, node, arrays);
  const rp_dtype dtype = (rp_dtype)arrays[0].type.dtype;
  const rp_kernel *kernel = rp_backend_find(backend, node->op, dtype);
  rp_status status = RP_OK;
  if (kernel == NULL)
    status = rp_fail(ctx, RP_UNSUPPORTED, "[%s] has no %s kernel on %s",
                     rp_graph_node_name(node), rp_dtype_name(dtype),
                     backend->name);
  plan->kernels[index].kernel = kernel;
  if (status == RP_OK && kernel->prepare) {
    rp_kernel_args args = {
        .in = arrays, .out = arrays + node->n_operands,
        .n_in = node->n_operands, .n_out = node->n_values,
        .ints = node->ints, .reals = node->reals, .n_ints = node->n_ints,
        .n_reals = node->n_reals, .fusion = node->fusion,
        .node = index, .device = plan->device->state, .ctx = ctx};
    status = kernel->prepare(&args, &plan->kernels[index].state,
                             &plan->workspace_bytes[index]);
    plan->workspace_bytes[index] =
        rp_device_align(plan->device, plan->workspace_bytes[index]);
    args.state = plan->kernels[index].state;
    if (status == RP_OK)
      plan->seconds[index] =
          kernel_seconds(kernel, &args, rates, plan->seconds[index]);
  }
  rp_free(ctx, arrays, (size_t)n_arrays * sizeof *arrays);
  return status;
}

rp_plan *rp_plan_new(rp_context *ctx, rp_graph *graph, rp_key *key,
                     rp_device *device) {
  rp_plan *plan = rp_alloc(ctx, sizeof *plan);
  if (plan == NULL) {
    rp_graph_free(graph, ctx);
    rp_key_free(key, ctx);
    return NULL;
  }
  plan->ctx = ctx;
  plan->refs = 1;
  plan->device = device;
  plan->graph = *graph;
  plan->key = *key;
  plan->n_kernels = graph->nodes.n;
  if (device->backend->enter) device->backend->enter(device);
  const size_t n = (size_t)plan->n_kernels;
  plan->kernels = rp_alloc(ctx, n * sizeof *plan->kernels);
  plan->workspace_bytes = rp_alloc(ctx, n * sizeof(int64_t));
  plan->seconds = rp_alloc(ctx, n * sizeof(double));
  rp_status status = plan->kernels && plan->workspace_bytes && plan->seconds
                         ? RP_OK : RP_NOMEM;
  const rp_rates rates = rp_device_rates(device);
  for (int32_t i = 0; i < plan->n_kernels && status == RP_OK; i++)
    plan->seconds[i] = analytic_seconds(&plan->graph, &plan->graph.nodes.at[i],
                                        &rates);
  if (device->backend->loading) device->backend->loading(device, true);
  for (int32_t i = 0; i < plan->n_kernels && status == RP_OK; i++)
    status = prepare_kernel(plan, i, &rates);
  if (device->backend->loading) device->backend->loading(device, false);
  if (status == RP_OK) return plan;
  rp_plan_release(plan);
  return NULL;
}

void rp_plan_release(rp_plan *plan) {
  if (plan == NULL || --plan->refs > 0) return;
  rp_context *ctx = plan->ctx;
  for (int32_t i = 0; plan->kernels && i < plan->n_kernels; i++)
    if (plan->kernels[i].state)
      plan->kernels[i].kernel->destroy(plan->kernels[i].state);
  const size_t n = (size_t)plan->n_kernels;
  rp_free(ctx, plan->kernels, n * sizeof *plan->kernels);
  rp_free(ctx, plan->workspace_bytes, n * sizeof(int64_t));
  rp_free(ctx, plan->seconds, n * sizeof(double));
  if (plan->run) plan->free_run(plan);
  if (plan->timer)
    plan->device->backend->free_timer(plan->device, plan->timer);
  rp_plan_front_free(plan);
  rp_view_free(plan);
  rp_layout_free(&plan->layout, ctx);
  rp_program_free(&plan->program, ctx);
  rp_tree_free(&plan->tree, ctx);
  rp_graph_free(&plan->graph, ctx);
  rp_key_free(&plan->key, ctx);
  rp_free(ctx, plan, sizeof *plan);
}

bool rp_plan_is_ready(const rp_plan *plan) { return plan->ready; }

/* ---- strategy in, program out ------------------------------------------- */

static rp_status must_wait(const rp_plan *plan, const char *what) {
  if (!plan->ready) return RP_OK;
  return rp_fail(plan->ctx, RP_STATE, "[%s] the plan is finished", what);
}

rp_status rp_plan_set_segments(rp_plan *plan, const rp_segment *segments,
                               int n_segments) {
  const rp_status status = must_wait(plan, "set_segments");
  if (status != RP_OK) return status;
  rp_program_free(&plan->program, plan->ctx);
  rp_tree_free(&plan->tree, plan->ctx);
  plan->is_list = false;
  return rp_tree_build(&plan->tree, plan->ctx, &plan->graph, segments,
                       n_segments);
}

rp_status rp_plan_set_program(rp_plan *plan, const int32_t *steps,
                              int n_steps) {
  rp_status status = rp_plan_set_segments(plan, NULL, 0);
  if (status != RP_OK) return status;
  plan->is_list = true;
  return rp_schedule_list(&plan->program, plan->ctx, &plan->graph, steps,
                          n_steps);
}

/* Effects side by side where the backend takes many in one call. */
static rp_status gather(rp_plan *plan) {
  rp_context *ctx = plan->ctx;
  if (!ctx->gathers) return RP_OK;
  const size_t size = (size_t)plan->n_kernels * sizeof(void *);
  const void **kinds = rp_alloc(ctx, size);
  if (kinds == NULL) return RP_NOMEM;
  int32_t n = 0;
  for (int32_t i = 0; i < plan->n_kernels; i++) {
    const rp_kernel *kernel = plan->kernels[i].kernel;
    if (!(plan->graph.nodes.at[i].op->flags & RP_EFFECT) ||
        kernel->run_many == NULL || plan->workspace_bytes[i] > 0)
      continue;
    kinds[i] = kernel;
    n++;
  }
  const rp_status status =
      n > 1 ? rp_gather(&plan->program, &plan->layout, ctx, &plan->graph,
                        plan->workspace_bytes, kinds)
            : RP_OK;
  rp_free(ctx, kinds, size);
  return status;
}

rp_status rp_plan_finish(rp_plan *plan) {
  rp_context *ctx = plan->ctx;
  rp_status status = must_wait(plan, "finish");
  if (status != RP_OK) return status;
  if (plan->tree.effective == NULL && plan->graph.values.n >= 0)
    status = rp_tree_build(&plan->tree, ctx, &plan->graph, NULL, 0);
  if (status == RP_OK && plan->program.instructions.n == 0)
    status = rp_schedule_tree(&plan->program, ctx, &plan->graph, &plan->tree);
  if (status == RP_OK)
    status = rp_layout_make(&plan->layout, ctx, &plan->graph, &plan->program,
                            plan->workspace_bytes, INT64_MAX);
  if (status == RP_OK) status = gather(plan);
  if (status == RP_OK)
    status = rp_verify(ctx, &plan->graph, &plan->program, &plan->layout,
                       plan->workspace_bytes);
  plan->ready = status == RP_OK;
  if (!plan->ready) {
    rp_layout_free(&plan->layout, ctx);
    rp_program_free(&plan->program, ctx);
    rp_tree_free(&plan->tree, ctx);
  }
  return status;
}
