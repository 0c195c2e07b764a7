/* What a plan keeps for its runs. See rp_run_data_new. */
#include <string.h>

#include "base/context.h"
#include "exec/run.h"

static void free_run_data(rp_plan *plan, struct rp_run_data *run) {
  rp_device *device = plan->device;
  rp_recordings_free(&run->recordings, device);
  rp_bound_close(&run->bound, plan->ctx);
  for (int32_t t = 0; run->slots && t < plan->graph.targets.n; t++)
    if (run->slots[t] >= 0) {
      device->delivered[run->slots[t]] = 0;
      device->backend->give_slot(device, run->slots[t]);
    }
  rp_free(plan->ctx, run->slots,
          (size_t)plan->graph.targets.n * sizeof *run->slots);
  rp_free(plan->ctx, run->arrays, (size_t)run->n * sizeof *run->arrays);
  rp_free(plan->ctx, run->many, (size_t)run->most * sizeof *run->many);
  rp_free(plan->ctx, run, sizeof *run);
}

static void run_data_free(rp_plan *plan) {
  free_run_data(plan, plan->run);
  plan->run = NULL;
}

/* Slots for the smallest results, as far as there are any. */
static rp_status take_slots(const rp_plan *plan, struct rp_run_data *run) {
  rp_device *device = plan->device;
  const int32_t n = plan->graph.targets.n;
  run->slots = rp_alloc(plan->ctx, (size_t)n * sizeof *run->slots);
  if (run->slots == NULL) return RP_NOMEM;
  for (int32_t t = 0; t < n; t++) {
    const int32_t value = plan->graph.targets.at[t];
    const bool wanted =
        device->backend->take_slot &&
        rp_bound_result(&run->bound, plan, t) != NULL &&
        rp_type_bytes(&plan->graph.values.at[value].type) <= RP_SLOT;
    run->slots[t] = wanted ? device->backend->take_slot(device) : -1;
  }
  return RP_OK;
}

/* Types and strides; data comes with each run. */
static void describe_arrays(const rp_plan *plan, rp_array *arrays) {
  const rp_graph *graph = &plan->graph;
  const rp_program *program = &plan->program;
  for (int32_t i = 0; i < program->instructions.n; i++) {
    const rp_instruction *at = &program->instructions.at[i];
    if (at->opcode != RP_OP_RUN) continue;
    const rp_graph_node *node = &graph->nodes.at[at->node];
    rp_array *array = arrays + at->first_ref;
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
}

/* Whether some index that a kernel reads is no leaf of the request, which is
   looked at beforehand. */
static bool may_fault(const rp_plan *plan) {
  if (plan->device->backend->take_fault == NULL) return false;
  const rp_graph *graph = &plan->graph;
  for (int32_t i = 0; i < graph->nodes.n; i++) {
    const rp_graph_node *node = &graph->nodes.at[i];
    if (node->op->ranges == NULL) continue;
    for (int32_t k = 0; k < node->n_operands; k++) {
      const rp_operand *in = rp_graph_in(graph, node, k);
      const bool is_integer = in->type.dtype == RP_I32 ||
                              in->type.dtype == RP_I64;
      if (is_integer && rp_operand_leaf(in) < 0) return true;
    }
  }
  return false;
}

static int32_t longest_call(const rp_program *program) {
  int32_t most = 0;
  for (int32_t i = 0; i < program->instructions.n;) {
    const int32_t n = rp_call_length(program, i);
    if (n > 1 && n > most) most = n;
    i += n;
  }
  return most;
}

rp_status rp_run_data_new(rp_plan *plan) {
  if (plan->run) return RP_OK;
  rp_context *ctx = plan->ctx;
  struct rp_run_data *run = rp_alloc(ctx, sizeof *run);
  if (run == NULL) return RP_NOMEM;
  run->n = plan->program.refs.n;
  run->arrays = rp_alloc(ctx, (size_t)run->n * sizeof *run->arrays);
  run->most = longest_call(&plan->program);
  run->many = rp_alloc(ctx, (size_t)run->most * sizeof *run->many);
  if (run->arrays == NULL || run->many == NULL ||
      rp_bound_open(&run->bound, plan) != RP_OK ||
      take_slots(plan, run) != RP_OK) {
    free_run_data(plan, run);
    return RP_NOMEM;
  }
  describe_arrays(plan, run->arrays);
  run->may_fault = may_fault(plan);
  plan->run = run;
  plan->free_run = run_data_free;
  return RP_OK;
}
