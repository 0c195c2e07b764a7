/* How long values live in a list of RUNs: until the last that reads them. A
   FREE follows it; where RUNs are handed over in one call, all of them. */
#include <string.h>

#include "base/context.h"
#include "plan/plan.h"

/* Picks the operand whose bytes output 0 takes over, if any: dead after this
   RUN, read by it in one way only, and allowed by the op. */
static int32_t shared_instance(const rp_program *p, const rp_graph *graph,
                               int32_t at) {
  const rp_instruction *run = &p->instructions.at[at];
  const rp_graph_node *node = &graph->nodes.at[run->node];
  if (node->n_values == 0) return -1;
  const int32_t out = p->refs.at[run->first_ref + node->n_operands];
  if (graph->values.at[p->instances.at[out].value].target) return -1;
  for (int32_t k = 0; k < node->n_operands; k++) {
    const int32_t ref = p->refs.at[run->first_ref + k];
    if (ref < 0 || !rp_may_share(graph, node, k)) continue;
    const rp_instance *instance = &p->instances.at[ref];
    if (instance->last_read != at) continue;
    if (graph->values.at[instance->value].target) continue;
    bool alone = true;
    for (int32_t j = 0; j < node->n_operands; j++)
      if (j != k && p->refs.at[run->first_ref + j] == ref)
        alone &= rp_may_share(graph, node, j);
    if (alone) return ref;
  }
  return -1;
}

static void find_last_reads(rp_program *p, const rp_graph *graph) {
  for (int32_t v = 0; v < p->instances.n; v++)
    p->instances.at[v].last_read = p->instances.at[v].born;
  for (int32_t i = 0; i < p->instructions.n; i++) {
    const rp_instruction *run = &p->instructions.at[i];
    const int32_t n = graph->nodes.at[run->node].n_operands;
    for (int32_t k = 0; k < n; k++) {
      const int32_t ref = p->refs.at[run->first_ref + k];
      if (ref >= 0) p->instances.at[ref].last_read = i;
    }
  }
}

static void find_shares(rp_program *p, const rp_graph *graph) {
  for (int32_t i = 0; i < p->instructions.n; i++) {
    const int32_t from = shared_instance(p, graph, i);
    if (from < 0) continue;
    const rp_instruction *run = &p->instructions.at[i];
    const int32_t n = graph->nodes.at[run->node].n_operands;
    p->instances.at[p->refs.at[run->first_ref + n]].shares = from;
  }
}

/* The instance that is taken over has no FREE of its own: its bytes live on
   under another name, so its FREE comes before the RUN's next instruction like
   any other, but layout gives both one place. */
static rp_status place_frees(rp_program *p, rp_context *ctx,
                             const rp_graph *graph) {
  const int32_t n_runs = p->instructions.n;
  int32_t *first = rp_alloc(ctx, (size_t)n_runs * sizeof(int32_t));
  int32_t *next = rp_alloc(ctx, (size_t)p->instances.n * sizeof(int32_t));
  int32_t *moved = rp_alloc(ctx, (size_t)n_runs * sizeof(int32_t));
  rp_program made = {0};
  rp_status status = first && next && moved ? RP_OK : RP_NOMEM;
  if (status == RP_OK &&
      !rp_array_room(ctx, &made.instructions, sizeof(rp_instruction),
                     n_runs + p->instances.n))
    status = RP_NOMEM;
  if (status == RP_OK) {
    memset(first, 0xff, (size_t)n_runs * sizeof(int32_t));
    for (int32_t v = p->instances.n - 1; v >= 0; v--) {
      rp_instance *instance = &p->instances.at[v];
      if (graph->values.at[instance->value].target) continue;
      int32_t at = instance->last_read;
      while (at + 1 < n_runs && p->instructions.at[at + 1].joins) at++;
      next[v] = first[at];
      first[at] = v;
    }
    for (int32_t i = 0; i < n_runs; i++) {
      moved[i] = made.instructions.n;
      made.instructions.at[made.instructions.n++] = p->instructions.at[i];
      for (int32_t v = first[i]; v >= 0; v = next[v]) {
        p->instances.at[v].dead = made.instructions.n;
        made.instructions.at[made.instructions.n++] =
            (rp_instruction){.opcode = RP_OP_FREE, .node = -1, .first_ref = -1,
                             .instance = v};
      }
    }
    for (int32_t v = 0; v < p->instances.n; v++) {
      rp_instance *instance = &p->instances.at[v];
      instance->born = moved[instance->born];
      instance->last_read = moved[instance->last_read];
      if (instance->dead < 0) instance->dead = made.instructions.n;
    }
    rp_array_free(ctx, &p->instructions, sizeof(rp_instruction));
    p->instructions.at = made.instructions.at;
    p->instructions.n = made.instructions.n;
    p->instructions.capacity = made.instructions.capacity;
  }
  rp_free(ctx, first, (size_t)n_runs * sizeof(int32_t));
  rp_free(ctx, next, (size_t)p->instances.n * sizeof(int32_t));
  rp_free(ctx, moved, (size_t)n_runs * sizeof(int32_t));
  return status;
}

rp_status rp_lives_find(rp_program *program, rp_context *ctx,
                        const rp_graph *graph, bool shares) {
  find_last_reads(program, graph);
  if (shares) find_shares(program, graph);
  return place_frees(program, ctx, graph);
}
