#include "exec/bound.h"

#include <string.h>

#include "base/context.h"

static int64_t draws_bytes(const rp_plan *plan) {
  return (int64_t)plan->graph.n_streams * 2 * (int64_t)sizeof(uint64_t);
}

static int64_t leaves_offset(const rp_plan *plan) {
  return (draws_bytes(plan) + RP_SLOT - 1) / RP_SLOT * RP_SLOT;
}

static int64_t results_offset(const rp_plan *plan) {
  int64_t at = leaves_offset(plan);
  for (int32_t l = 0; l < plan->graph.leaves.n; l++)
    at += rp_leaf_travels(&plan->graph.leaves.at[l]) ? RP_SLOT : 0;
  return at;
}

/* Of target t where it is a value, small, and not that of an earlier target:
   its bytes in the block; else 0. */
static int64_t result_bytes(const rp_plan *plan, int32_t t) {
  const int32_t value = plan->graph.targets.at[t];
  if (value < 0) return 0;
  for (int32_t s = 0; s < t; s++)
    if (plan->graph.targets.at[s] == value) return 0;
  const int64_t size = rp_type_bytes(&plan->graph.values.at[value].type);
  return size <= RP_SMALL_RESULT ? (size + RP_SLOT - 1) / RP_SLOT * RP_SLOT
                                 : 0;
}

int64_t rp_bound_bytes(const rp_plan *plan) {
  if (plan->device->memory->is_host) return 0;
  int64_t size = results_offset(plan);
  for (int32_t t = 0; t < plan->graph.targets.n; t++)
    size += result_bytes(plan, t);
  return rp_device_align(plan->device, size);
}

rp_status rp_bound_open(rp_bound *bound, const rp_plan *plan) {
  rp_context *ctx = plan->ctx;
  *bound = (rp_bound){.size = rp_bound_bytes(plan)};
  if (bound->size == 0) return RP_OK;
  bound->written_bytes = results_offset(plan);
  bound->host = rp_alloc(ctx, (size_t)bound->written_bytes);
  bound->block = bound->host ? rp_storage_new(plan->device, bound->size)
                             : NULL;
  if (bound->block) return RP_OK;
  rp_bound_close(bound, ctx);
  return RP_NOMEM;
}

void rp_bound_close(rp_bound *bound, rp_context *ctx) {
  rp_free(ctx, bound->host, (size_t)bound->written_bytes);
  if (bound->block) rp_storage_release(bound->block);
  *bound = (rp_bound){0};
}

const uint64_t *rp_bound_draw(const rp_bound *bound, int32_t i) {
  return bound->block ? (const uint64_t *)bound->block->data + 2 * i : NULL;
}

char *rp_bound_leaves(const rp_bound *bound, const rp_plan *plan) {
  return bound->block ? (char *)bound->block->data + leaves_offset(plan) : NULL;
}

void *rp_bound_result(const rp_bound *bound, const rp_plan *plan, int32_t t) {
  if (bound->block == NULL || result_bytes(plan, t) == 0) return NULL;
  int64_t at = results_offset(plan);
  for (int32_t s = 0; s < t; s++) at += result_bytes(plan, s);
  return (char *)bound->block->data + at;
}

rp_status rp_bound_write(rp_bound *bound, const rp_plan *plan,
                         const rp_bindings *bindings) {
  if (bound->written_bytes == 0) return RP_OK;
  const rp_graph *graph = &plan->graph;
  uint64_t *draws = (uint64_t *)bound->host;
  for (int32_t i = 0; i < graph->n_streams; i++) {
    draws[2 * i] = bindings->streams.at[i].seed;
    draws[2 * i + 1] = bindings->streams.at[i].draw;
  }
  char *slot = bound->host + leaves_offset(plan);
  for (int32_t l = 0; l < graph->leaves.n; l++) {
    const rp_graph_leaf *leaf = &graph->leaves.at[l];
    if (!rp_leaf_travels(leaf)) continue;
    const void *from =
        leaf->binding < 0 ? leaf->constant
                          : rp_root_data(bindings->tensors.at[leaf->binding]);
    memcpy(slot, from, (size_t)rp_type_bytes(&leaf->type));
    slot += RP_SLOT;
  }
  rp_device *device = plan->device;
  return device->memory->write(device, bound->block->data, bound->host,
                               bound->written_bytes, device->runs + 1);
}
