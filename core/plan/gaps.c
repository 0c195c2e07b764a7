/* Local search on single values, for graphs that blocks and segments serve
   badly: skips, dense connections, a few large values among many small ones.

   keep[j][i]: whether the values of node i, where they are there, stay after
   node j has run for the first time; what node j misses is run again before
   it, each missing node once, in order. That is Checkmate's S (Jain et al.,
   2020), whose R follows from it. A gap is what lies between two neighbouring
   uses of a node in the order of first runs (its own run is the first use, the
   end of the program the last).

   For a ladder of limits, from what keeping all needs downwards: gaps that span
   an instruction above the limit are given up, the one first that costs least a
   byte of excess; simulated annealing moves on from there; then what need not be
   given up is taken back. Every program that is met on the way is offered to
   the front. */
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "plan/front.h"

/* LIMITS: the ladder's steps. MOVES: of annealing, a gap and limit. RUNS: how
   many RUNs may be looked at, over all programs; so a plan is the same on every
   machine. Heat and energy are in units of the time that keeping all takes;
   chosen on bench/planner's graphs. */
enum { LIMITS = 24, NODES_MOST = 400, MOVES = 20 };
static const double RUNS = 2e6;
static const double HOT = 0.15, COLD = 0.003, EXCESS_WEIGHT = 4;

typedef struct gap {
  int32_t node, from, to; /* uses; to is the number of nodes at the end */
} gap;

typedef struct gaps {
  const rp_search *search;
  rp_context *ctx;
  const rp_graph *graph;
  RP_ARRAY(gap) all;
  bool *keep, *saved;        /* n x n; and what a move writes over */
  bool *held, *wanted, *pinned; /* by node */
  int32_t *place;            /* by node: its first RUN's instruction */
  RP_ARRAY(int32_t) steps;   /* the program */
  RP_ARRAY(int32_t) stack, restored;
  RP_ARRAY(int64_t) live;    /* by instruction of the program */
  RP_ARRAY(int32_t) excess;  /* instructions above the limit, before each */
  int64_t limit_bytes, live_bytes;
  double excess_bytes, seconds; /* excess: summed over instructions */
  double runs;
  uint64_t seed;
  /* For each limit of the ladder the fastest state within it, met so far. */
  bool *best;                /* LIMITS x n x n */
  double best_seconds[LIMITS];
  int64_t most_bytes;        /* live bytes when all is kept */
  double all_kept_seconds;
} gaps;

static bool push(gaps *g, void *array, int32_t x) {
  RP_ARRAY(int32_t) *a = array;
  if (!rp_array_room(g->ctx, a, sizeof(int32_t), 1)) return false;
  a->at[a->n++] = x;
  return true;
}

static const rp_graph_node *node_at(const gaps *g, int32_t i) {
  return &g->graph->nodes.at[i];
}

static bool is_effect(const gaps *g, int32_t i) {
  return node_at(g, i)->op->flags & RP_EFFECT;
}

/* The producer of operand k of a node, -1 for a leaf. */
static int32_t producer(const gaps *g, const rp_graph_node *node, int32_t k) {
  const int32_t v = rp_graph_in(g->graph, node, k)->value;
  return v < 0 ? -1 : g->graph->values.at[v].node;
}

/* ---- a program from the gaps' states ---------------------------------------- */

/* Puts what node j misses into restored, in order. */
static rp_status find_missing(gaps *g, int32_t j) {
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

static rp_status write_steps(gaps *g) {
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

/* ---- what it costs ------------------------------------------------------------- */

/* Live bytes by instruction; bytes that are taken over count once. */
static rp_status find_live(gaps *g, const rp_program *p) {
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

static void measure(gaps *g, const rp_program *p) {
  const rp_search *search = g->search;
  g->live_bytes = 0;
  g->excess_bytes = g->seconds = 0;
  int32_t above = 0;
  for (int32_t i = 0; i < p->instructions.n; i++) {
    const rp_instruction *run = &p->instructions.at[i];
    g->excess.at[i] = above;
    if (run->opcode != RP_OP_RUN) continue;
    if (!run->replay) g->place[run->node] = i;
    g->seconds += rp_node_seconds(node_at(g, run->node), search->backend);
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

static rp_status offer(gaps *g) {
  rp_candidate c = {0};
  if (!rp_array_room(g->ctx, &c.steps, sizeof(int32_t), g->steps.n))
    return RP_NOMEM;
  memcpy(c.steps.at, g->steps.at, (size_t)g->steps.n * sizeof(int32_t));
  c.steps.n = g->steps.n;
  return rp_front_offer(g->search, &c, RP_OK);
}

static int64_t limit_at(const gaps *g, int32_t l) {
  return g->most_bytes - g->most_bytes * l / LIMITS;
}

/* Remembers the present state for the limits that it meets fastest. */
static void remember(gaps *g) {
  const size_t size = (size_t)g->graph->nodes.n * (size_t)g->graph->nodes.n;
  for (int32_t l = 0; l < LIMITS && g->live_bytes <= limit_at(g, l); l++) {
    if (g->seconds >= g->best_seconds[l]) continue;
    g->best_seconds[l] = g->seconds;
    memcpy(g->best + (size_t)l * size, g->keep, size);
  }
}

/* The program of the present states: live bytes, excess, seconds; offered to
   the front when nothing there beats it. */
static rp_status evaluate(gaps *g) {
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

/* ---- moves ---------------------------------------------------------------------- */

/* Sets keep[from..to-1][node], saving what was there at `at` of saved. */
static void set(gaps *g, int32_t node, int32_t from, int32_t to, bool kept,
                int32_t at) {
  const size_t n = (size_t)g->graph->nodes.n;
  bool *column = g->keep + node, *saved = g->saved + (size_t)at * n;
  for (int32_t j = from; j < to; j++) {
    saved[j] = column[(size_t)j * n];
    column[(size_t)j * n] = kept || g->pinned[node];
  }
}

static void put_back(gaps *g, int32_t node, int32_t from, int32_t to,
                     int32_t at) {
  const size_t n = (size_t)g->graph->nodes.n;
  for (int32_t j = from; j < to; j++)
    g->keep[(size_t)j * n + (size_t)node] = g->saved[(size_t)at * n +
                                                     (size_t)j];
}

static bool is_kept(const gaps *g, const gap *it) {
  const size_t n = (size_t)g->graph->nodes.n;
  for (int32_t j = it->from; j < it->to; j++)
    if (!g->keep[(size_t)j * n + (size_t)it->node]) return false;
  return true;
}

/* Whether an instruction above the limit lies between the gap's ends, by the
   program measured last. */
static bool spans_excess(const gaps *g, const gap *it) {
  const int32_t n = g->live.n;
  const int32_t from = g->place[it->from] + 1;
  const int32_t to = it->to < g->graph->nodes.n ? g->place[it->to] : n;
  return from < to && g->excess.at[to] > g->excess.at[from];
}

/* Gives gaps up until nothing exceeds the limit, or no gap lowers the excess.
   Each time the one that costs least a byte of excess. */
static rp_status descend(gaps *g) {
  rp_status status = evaluate(g);
  RP_ARRAY(int32_t) open = {0};
  while (status == RP_OK && g->excess_bytes > 0 && g->runs < RUNS) {
    const double excess = g->excess_bytes, seconds = g->seconds;
    open.n = 0;
    for (int32_t i = 0; i < g->all.n; i++) {
      const gap *it = &g->all.at[i];
      if (!g->pinned[it->node] && spans_excess(g, it) && is_kept(g, it) &&
          !push(g, &open, i))
        status = RP_NOMEM;
    }
    double best = INFINITY;
    const gap *chosen = NULL;
    for (int32_t k = 0; k < open.n && status == RP_OK; k++) {
      const gap *it = &g->all.at[open.at[k]];
      set(g, it->node, it->from, it->to, false, 0);
      status = evaluate(g);
      put_back(g, it->node, it->from, it->to, 0);
      if (g->excess_bytes >= excess) continue;
      const double price = (g->seconds - seconds) /
                           (excess - g->excess_bytes);
      if (price >= best) continue;
      best = price;
      chosen = it;
    }
    if (chosen) set(g, chosen->node, chosen->from, chosen->to, false, 0);
    if (status == RP_OK) status = evaluate(g);
    if (chosen == NULL) break;
  }
  rp_array_free(g->ctx, &open, sizeof(int32_t));
  return status;
}

/* Takes gaps back while that saves time within the limit, each alone or with
   another given up for it. */
static rp_status polish(gaps *g) {
  rp_status status = evaluate(g);
  double seconds = g->seconds;
  bool better = true;
  while (better && status == RP_OK && g->runs < RUNS) {
    better = false;
    for (int32_t i = 0; i < g->all.n && status == RP_OK; i++) {
      const gap *it = &g->all.at[i];
      if (is_kept(g, it) || g->runs >= RUNS) continue;
      set(g, it->node, it->from, it->to, true, 0);
      status = evaluate(g);
      bool taken = g->excess_bytes <= 0 && g->seconds < seconds;
      const bool faster = g->seconds < seconds;
      for (int32_t k = 0; k < g->all.n && faster && !taken &&
                          status == RP_OK; k++) {
        const gap *other = &g->all.at[k];
        if (k == i || g->pinned[other->node] || !is_kept(g, other)) continue;
        set(g, other->node, other->from, other->to, false, 1);
        status = evaluate(g);
        taken = g->excess_bytes <= 0 && g->seconds < seconds;
        if (!taken) put_back(g, other->node, other->from, other->to, 1);
      }
      if (!taken) put_back(g, it->node, it->from, it->to, 0);
      else seconds = g->seconds;
      better |= taken;
    }
  }
  return status;
}

/* Numbers 0..n-1, the same everywhere (Knuth's MMIX). */
static int32_t draw(gaps *g, int32_t n) {
  g->seed = g->seed * 6364136223846793005u + 1442695040888963407u;
  return (int32_t)((g->seed >> 33) % (uint64_t)n);
}

/* Seconds over those of keeping all, and what exceeds the limit over it. */
static double energy(const gaps *g) {
  return g->seconds / g->all_kept_seconds +
         EXCESS_WEIGHT * g->excess_bytes / (double)g->limit_bytes;
}

/* Simulated annealing (Kirkpatrick et al., 1983) from the present state; leaves
   the best that was met. A move sets one gap or two, or parts of them. */
static rp_status anneal(gaps *g) {
  const size_t size = (size_t)g->graph->nodes.n * (size_t)g->graph->nodes.n;
  const double share = RUNS / (2 * LIMITS * (double)g->graph->nodes.n);
  const int32_t moves =
      share < MOVES * g->all.n ? (int32_t)share : MOVES * g->all.n;
  bool *best = rp_alloc(g->ctx, size);
  if (best == NULL) return RP_NOMEM;
  rp_status status = evaluate(g);
  double now = energy(g), least = now;
  memcpy(best, g->keep, size);
  for (int32_t m = 0; m < moves && status == RP_OK && g->runs < RUNS; m++) {
    const double heat = HOT * pow(COLD / HOT, (double)m / moves);
    gap changed[2];
    const int32_t changes = 1 + draw(g, 2);
    for (int32_t c = 0; c < changes; c++) {
      gap it = g->all.at[draw(g, g->all.n)];
      const int32_t length = it.to - it.from;
      if (length > 1 && draw(g, 4) == 0) it.from += draw(g, length);
      if (length > 1 && draw(g, 4) == 0) it.to = it.from + 1 +
                                                draw(g, it.to - it.from);
      set(g, it.node, it.from, it.to, draw(g, 2), c);
      changed[c] = it;
    }
    status = evaluate(g);
    const double then = energy(g);
    if (then > now && exp((now - then) / heat) * 65536 < draw(g, 65536)) {
      for (int32_t c = changes - 1; c >= 0; c--)
        put_back(g, changed[c].node, changed[c].from, changed[c].to, c);
      continue;
    }
    now = then;
    if (now >= least) continue;
    least = now;
    memcpy(best, g->keep, size);
  }
  memcpy(g->keep, best, size);
  rp_free(g->ctx, best, size);
  if (status == RP_OK) status = evaluate(g);
  return status;
}

/* ---- entry ----------------------------------------------------------------------- */

static rp_status add_gaps(gaps *g) {
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
      if (!rp_array_room(g->ctx, &g->all, sizeof(gap), 1))
        status = RP_NOMEM;
      else
        g->all.at[g->all.n++] =
            (gap){.node = i, .from = from, .to = j};
      from = j;
    }
  }
  return status;
}

/* Starts from the best that is known within limit l, if any. */
static bool recall(gaps *g, int32_t l) {
  const size_t size = (size_t)g->graph->nodes.n * (size_t)g->graph->nodes.n;
  g->limit_bytes = limit_at(g, l);
  if (isinf(g->best_seconds[l])) return false;
  memcpy(g->keep, g->best + (size_t)l * size, size);
  return true;
}

/* Down the ladder, until two limits in a row are not met; then up again, with
   what was met on the way. */
static rp_status walk_ladder(gaps *g) {
  for (int32_t l = 0; l < LIMITS; l++) g->best_seconds[l] = INFINITY;
  rp_status status = evaluate(g);
  g->most_bytes = g->live_bytes;
  g->all_kept_seconds = g->seconds;
  int32_t unmet = 0, l = 1;
  for (; l < LIMITS && unmet < 2 && status == RP_OK; l++) {
    if (!recall(g, l)) status = descend(g);
    if (status == RP_OK) status = anneal(g);
    if (status == RP_OK && g->excess_bytes <= 0) status = polish(g);
    unmet = isinf(g->best_seconds[l]) ? unmet + 1 : 0;
  }
  for (l--; l > 0 && status == RP_OK; l--) {
    if (!recall(g, l)) continue;
    status = anneal(g);
    if (status == RP_OK) status = polish(g);
  }
  return status;
}

rp_status rp_front_search_gaps(const rp_search *search) {
  const rp_graph *graph = &search->plan->graph;
  rp_context *ctx = search->plan->ctx;
  const size_t n = (size_t)graph->nodes.n;
  /* Checkpoints by hand stand, which an explicit list would not heed. */
  if (graph->segment_parents.n > 0 || n > NODES_MOST) return RP_OK;
  gaps g = {.search = search, .ctx = ctx, .graph = graph,
            .limit_bytes = INT64_MAX,
            .keep = rp_alloc(ctx, n * n),
            .best = rp_alloc(ctx, LIMITS * n * n),
            .saved = rp_alloc(ctx, 2 * n),
            .place = rp_alloc(ctx, n * sizeof(int32_t)),
            .held = rp_alloc(ctx, n), .wanted = rp_alloc(ctx, n),
            .pinned = rp_alloc(ctx, n)};
  rp_status status = g.keep && g.best && g.saved && g.place && g.held && g.wanted &&
                             g.pinned ? RP_OK : RP_NOMEM;
  if (status == RP_OK) {
    memset(g.keep, true, n * n);
    status = add_gaps(&g);
  }
  if (status == RP_OK) status = walk_ladder(&g);
  rp_free(ctx, g.keep, n * n);
  rp_free(ctx, g.best, LIMITS * n * n);
  rp_free(ctx, g.saved, 2 * n);
  rp_free(ctx, g.place, n * sizeof(int32_t));
  rp_free(ctx, g.held, n);
  rp_free(ctx, g.wanted, n);
  rp_free(ctx, g.pinned, n);
  rp_array_free(ctx, &g.all, sizeof(gap));
  rp_array_free(ctx, &g.steps, sizeof(int32_t));
  rp_array_free(ctx, &g.stack, sizeof(int32_t));
  rp_array_free(ctx, &g.restored, sizeof(int32_t));
  rp_array_free(ctx, &g.live, sizeof(int64_t));
  rp_array_free(ctx, &g.excess, sizeof(int32_t));
  return status;
}
