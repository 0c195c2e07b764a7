/* Local search on single values, for graphs that blocks and segments serve
   badly: skips, dense connections, a few large values among many small ones.

   keep[j][i]: whether the values of node i, where they are there, stay after
   node j has run for the first time; what node j misses is run again before
   it, each missing node once, in order. That is Checkmate's S (Jain et al.,
   2020), whose R follows from it. A gap is what lies between two neighbouring
   uses of a node in the order of first runs (its own run is the first use, the
   end of the program the last). */
#include "plan/gaps.h"

#include <string.h>

#include "base/context.h"

static bool push(rp_gaps *g, void *array, int32_t x) {
  RP_ARRAY(int32_t) *a = array;
  if (!rp_array_room(g->ctx, a, sizeof(int32_t), 1)) return false;
  a->at[a->n++] = x;
  return true;
}

static const rp_graph_node *node_at(const rp_gaps *g, int32_t i) {
  return &g->graph->nodes.at[i];
}

static bool is_effect(const rp_gaps *g, int32_t i) {
  return node_at(g, i)->op->flags & RP_EFFECT;
}

/* The producer of operand k of a node, -1 for a leaf. */
static int32_t producer(const rp_gaps *g, const rp_graph_node *node,
                        int32_t k) {
  const int32_t v = rp_graph_in(g->graph, node, k)->value;
  return v < 0 ? -1 : g->graph->values.at[v].node;
}

/* ---- a program from the gaps' states ------------------------------------ */

/* Puts what node j misses into restored, in order. */
static rp_status find_missing(rp_gaps *g, int32_t j) {
  g->stack.n = g->restored.n = 0;
  if (!push(g, &g->stack, j)) return RP_NOMEM;
  int32_t lowest = j;
  while (g->stack.n > 0) {
    const rp_graph_node *node = node_at(g, g->stack.at[--g->stack.n]);
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t p = producer(g, node, k);
      if (p < 0 || g->held[p] || g->wanted[p]) continue;
      g->wanted[p] = true;
      if (p < lowest) lowest = p;
      if (!push(g, &g->stack, p)) return RP_NOMEM;
    }
  }
  rp_status status = RP_OK;
  for (int32_t i = lowest; i < j; i++) {
    if (!g->wanted[i]) continue;
    g->wanted[i] = false;
    if (status == RP_OK && !push(g, &g->restored, i)) status = RP_NOMEM;
  }
  return status;
}

static rp_status write_steps(rp_gaps *g) {
  const int32_t n = g->graph->nodes.n;
  g->steps.n = 0;
  memset(g->held, 0, (size_t)n);
  for (int32_t j = 0; j < n; j++) {
    if (is_effect(g, j)) continue;
    if (find_missing(g, j) != RP_OK) return RP_NOMEM;
    for (int32_t r = 0; r < g->restored.n; r++) {
      if (!push(g, &g->steps, g->restored.at[r])) return RP_NOMEM;
      g->held[g->restored.at[r]] = true;
    }
    if (!push(g, &g->steps, j)) return RP_NOMEM;
    g->held[j] = true;
    const bool *keep = g->keep + (size_t)j * (size_t)n;
    for (int32_t i = 0; i <= j; i++) g->held[i] &= keep[i];
  }
  return RP_OK;
}

/* ---- what it costs ------------------------------------------------------ */

/* Live bytes by instruction; bytes that are taken over count once. */
static rp_status find_live(rp_gaps *g, const rp_program *p) {
  const int32_t n = p->instructions.n;
  g->live.n = 0;
  if (!rp_array_room(g->ctx, &g->live, sizeof(int64_t), n + 2) ||
      !rp_array_room(g->ctx, &g->excess, sizeof(int32_t), n + 2))
    return RP_NOMEM;
  g->live.n = n;
  int64_t *live = g->live.at;
  memset(live, 0, (size_t)(n + 2) * sizeof *live);
  for (int32_t v = 0; v < p->instances.n; v++) {
    const rp_instance *instance = &p->instances.at[v];
    if (g->graph->values.at[instance->value].target) continue;
    const int64_t bytes = rp_value_bytes(g->graph, instance->value);
    live[instance->born + (instance->shares >= 0)] += bytes;
    live[instance->last_read + 1] -= bytes;
  }
  for (int32_t i = 1; i < n; i++) live[i] += live[i - 1];
  return RP_OK;
}

static void measure(rp_gaps *g, const rp_program *p) {
  const rp_search *search = g->search;
  g->live_bytes = 0;
  g->excess_bytes = g->seconds = 0;
  int32_t above = 0;
  for (int32_t i = 0; i < p->instructions.n; i++) {
    const rp_instruction *run = &p->instructions.at[i];
    g->excess.at[i] = above;
    if (run->opcode != RP_OP_RUN) continue;
    if (!run->replay) g->place[run->node] = i;
    g->seconds += search->plan->seconds[run->node];
    const int64_t live = g->live.at[i] +
                         rp_align(search->plan->workspace_bytes[run->node]);
    if (live > g->live_bytes) g->live_bytes = live;
    if (live <= g->limit_bytes) continue;
    g->excess_bytes += (double)(live - g->limit_bytes);
    above++;
  }
  g->excess.at[p->instructions.n] = above;
  g->runs += p->n_runs;
}

static rp_status offer(rp_gaps *g) {
  rp_candidate c = {0};
  if (!rp_array_room(g->ctx, &c.steps, sizeof(int32_t), g->steps.n))
    return RP_NOMEM;
  memcpy(c.steps.at, g->steps.at, (size_t)g->steps.n * sizeof(int32_t));
  c.steps.n = g->steps.n;
  return rp_front_offer(g->search, &c, RP_OK);
}

int64_t rp_gaps_limit(const rp_gaps *g, int32_t l) {
  return g->most_bytes - g->most_bytes * l / RP_LIMITS;
}

/* Remembers the present state for the limits that it meets fastest. */
static void remember(rp_gaps *g) {
  const size_t size = (size_t)g->graph->nodes.n * (size_t)g->graph->nodes.n;
  for (int32_t l = 0; l < RP_LIMITS; l++) {
    if (g->live_bytes > rp_gaps_limit(g, l)) break;
    if (g->seconds >= g->best_seconds[l]) continue;
    g->best_seconds[l] = g->seconds;
    memcpy(g->best + (size_t)l * size, g->keep, size);
  }
}

rp_status rp_gaps_evaluate(rp_gaps *g) {
  rp_program program = {0};
  rp_status status = write_steps(g);
  if (status == RP_OK)
    status = rp_schedule_list(&program, g->ctx, g->graph, g->steps.at,
                              g->steps.n);
  if (status == RP_OK) status = find_live(g, &program);
  if (status == RP_OK) measure(g, &program);
  rp_program_free(&program, g->ctx);
  if (status == RP_OK &&
      !rp_front_beats(g->search->front,
                      g->search->persistent_bytes + g->live_bytes,
                      g->seconds))
    status = offer(g);
  if (status == RP_OK) remember(g);
  return status;
}

/* ---- the gaps ---- */

rp_status rp_gaps_find(rp_gaps *g) {
  const rp_graph *graph = g->graph;
  const int32_t n = graph->nodes.n;
  rp_status status = RP_OK;
  for (int32_t v = 0; v < graph->values.n; v++) {
    const rp_graph_value *value = &graph->values.at[v];
    if (value->node >= 0 && (value->keep || value->target))
      g->pinned[value->node] = true;
  }
  for (int32_t i = 0; i < n && status == RP_OK; i++) {
    int32_t from = i;
    for (int32_t j = i + 1; j <= n && status == RP_OK; j++) {
      bool used = j == n;
      for (int32_t k = 0; j < n && !is_effect(g, j) && !used &&
                          k < node_at(g, j)->n_operands; k++)
        used = producer(g, node_at(g, j), k) == i;
      if (!used) continue;
      if (!rp_array_room(g->ctx, &g->all, sizeof(rp_gap), 1))
        status = RP_NOMEM;
      else
        g->all.at[g->all.n++] =
            (rp_gap){.node = i, .from = from, .to = j};
      from = j;
    }
  }
  return status;
}
