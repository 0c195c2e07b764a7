/* What a finished plan tells: sizes, instructions, instances, segments. */
#include <string.h>

#include "base/context.h"
#include "plan/plan.h"

/* Which part of the breakdown a live instance belongs to. */
static int64_t *part_of(const rp_plan *plan, const rp_instance *instance,
                        rp_plan_info *out) {
  const rp_graph *graph = &plan->graph;
  const int32_t node = graph->values.at[instance->value].node;
  if (node >= graph->n_forward) return &out->gradient_bytes;
  if (instance->replay) return &out->recomputed_bytes;
  const int32_t reader =
      plan->program.instructions.at[instance->last_read].node;
  return reader >= graph->n_forward ? &out->kept_bytes : &out->other_bytes;
}

static void describe_peak(const rp_plan *plan, rp_plan_info *out) {
  const rp_program *p = &plan->program;
  const int32_t at = plan->layout.peak_instruction;
  for (int32_t v = 0; v < p->instances.n; v++) {
    const rp_instance *instance = &p->instances.at[v];
    if (plan->layout.offsets[v] < 0 || instance->born > at ||
        instance->last_read < at)
      continue;
    /* Bytes taken over at this very instruction are counted once. */
    if (instance->shares >= 0 && instance->born == at) continue;
    *part_of(plan, instance, out) +=
        rp_value_bytes(&plan->graph, instance->value);
  }
  if (p->instructions.n > 0 && plan->layout.workspaces[at] >= 0)
    out->workspace_bytes = rp_align(
        plan->workspace_bytes[p->instructions.at[at].node]);
}

void rp_plan_describe(const rp_plan *plan, rp_plan_info *out) {
  memset(out, 0, sizeof *out);
  const rp_graph *graph = &plan->graph;
  const rp_program *p = &plan->program;
  for (int32_t l = 0; l < graph->leaves.n; l++) {
    const rp_graph_leaf *leaf = &graph->leaves.at[l];
    if (leaf->role == RP_NUMBER) continue; /* inside its recipe */
    if (leaf->anywhere && !plan->device->memory->is_host) continue;
    const int64_t size = rp_graph_align(graph, rp_type_bytes(&leaf->type));
    out->role_bytes[leaf->role] += size;
    out->persistent_bytes += size;
  }
  for (int32_t v = 0; v < graph->values.n; v++)
    if (graph->values.at[v].target) {
      out->target_bytes += rp_value_bytes(graph, v);
      out->persistent_bytes += rp_value_bytes(graph, v);
    }
  out->role_bytes[RP_NUMBER] = plan->bound_bytes;
  out->persistent_bytes += plan->bound_bytes;
  out->arena_bytes = plan->layout.arena_bytes;
  out->live_bytes = plan->layout.live_bytes;
  out->peak_bytes = out->persistent_bytes + out->arena_bytes;
  out->peak_instruction = plan->layout.peak_instruction;
  out->n_instructions = p->instructions.n;
  out->n_runs = p->n_runs;
  out->n_replays = p->n_replays;
  out->n_segments = plan->tree.n_given;
  out->device = plan->device->slot;
  for (int32_t i = 0; i < p->instructions.n; i++) {
    const rp_instruction *run = &p->instructions.at[i];
    if (run->opcode != RP_OP_RUN) continue;
    const rp_graph_node *node = &graph->nodes.at[run->node];
    const double seconds = plan->seconds[run->node];
    out->step_flops += node->flops;
    out->step_seconds += seconds;
    if (run->replay) {
      out->replay_flops += node->flops;
      out->replay_seconds += seconds;
    } else if (run->node < graph->n_forward) {
      out->forward_flops += node->flops;
      out->forward_seconds += seconds;
    }
  }
  if (plan->ready) describe_peak(plan, out);
}

rp_status rp_plan_instruction(const rp_plan *plan, int i,
                              rp_instruction_info *out) {
  const rp_program *p = &plan->program;
  if (i < 0 || i >= p->instructions.n)
    return rp_fail(plan->ctx, RP_VALUE, "instruction %d: there are %d", i + 1,
                   (int)p->instructions.n);
  const rp_instruction *at = &p->instructions.at[i];
  *out = (rp_instruction_info){.opcode = at->opcode, .node = at->node,
                               .instance = at->instance,
                               .replay = at->replay, .joins = at->joins};
  out->light = at->replay && !plan->is_list &&
               plan->tree.innermost[at->node] >= plan->tree.n_given;
  if (at->opcode == RP_OP_FREE) {
    const rp_graph_value *value =
        &plan->graph.values.at[p->instances.at[at->instance].value];
    out->node = value->node;
    out->output = value->output;
  }
  for (int32_t v = 0; v < p->instances.n; v++) {
    const rp_instance *instance = &p->instances.at[v];
    if (plan->layout.offsets[v] >= 0 && instance->born <= i &&
        instance->last_read >= i &&
        !(instance->shares >= 0 && instance->born == i))
      out->live_bytes += rp_value_bytes(&plan->graph, instance->value);
  }
  if (plan->layout.workspaces[i] >= 0)
    out->live_bytes += rp_align(plan->workspace_bytes[at->node]);
  return RP_OK;
}

int rp_plan_instances(const rp_plan *plan) {
  return plan->program.instances.n + plan->program.instructions.n;
}

/* Instances first, then one entry an instruction for its workspace. */
rp_status rp_plan_instance(const rp_plan *plan, int i,
                           rp_instance_info *out) {
  const rp_program *p = &plan->program;
  if (i < 0 || i >= rp_plan_instances(plan))
    return rp_fail(plan->ctx, RP_VALUE, "instance %d: there are %d", i + 1,
                   rp_plan_instances(plan));
  if (i < p->instances.n) {
    const rp_instance *instance = &p->instances.at[i];
    const rp_graph_value *value = &plan->graph.values.at[instance->value];
    *out = (rp_instance_info){
        .node = value->node, .output = value->output, .born = instance->born,
        .dead = instance->dead, .offset = plan->layout.offsets[i],
        .read_by = instance->last_read > instance->born ? instance->last_read
                                                        : -1,
        .size_bytes = rp_value_bytes(&plan->graph, instance->value),
        .type = value->type,
        .replay = instance->replay, .in_arena = plan->layout.offsets[i] >= 0};
    return RP_OK;
  }
  const int32_t at = i - p->instances.n;
  const rp_instruction *run = &p->instructions.at[at];
  const bool has = plan->layout.workspaces[at] >= 0;
  *out = (rp_instance_info){
      .node = run->node, .output = -1, .born = at, .dead = at, .read_by = at,
      .offset = plan->layout.workspaces[at],
      .size_bytes = has ? rp_align(plan->workspace_bytes[run->node]) : 0,
      .replay = run->replay, .workspace = true, .in_arena = has};
  return RP_OK;
}

rp_status rp_plan_segment(const rp_plan *plan, int i, rp_segment *out) {
  if (i < 0 || i >= plan->tree.n_given)
    return rp_fail(plan->ctx, RP_VALUE, "segment %d: there are %d", i + 1,
                   (int)plan->tree.n_given);
  *out = plan->tree.segments.at[i];
  return RP_OK;
}

int64_t rp_plan_measured_peak(const rp_plan *plan) {
  return plan->measured_peak;
}
double rp_plan_measured_seconds(const rp_plan *plan) {
  const double seconds =
      plan->timer ? plan->device->backend->seconds(plan->device, plan->timer)
                  : -1;
  return seconds < 0 ? plan->launch_seconds : seconds;
}

double rp_plan_launch_seconds(const rp_plan *plan) {
  return plan->launch_seconds;
}
