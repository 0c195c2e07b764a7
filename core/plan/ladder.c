/* The search on single values. For a ladder of limits, from what keeping all
   needs downwards: gaps that span an instruction above the limit are given up,
   the one first that costs least a byte of excess; simulated annealing moves on
   from there; then what need not be given up is taken back. Every program that
   is met on the way is offered to the front. */
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "plan/gaps.h"

/* MOVES: of annealing, a gap and limit. RUNS: how many RUNs may be looked at,
   over all programs; so a plan is the same on every machine. Heat and energy
   are in units of the time that keeping all takes; chosen on bench/planner's
   graphs. */
enum { NODES_MOST = 400, MOVES = 20 };
static const double RUNS = 2e6;
static const double HOT = 0.15, COLD = 0.003, EXCESS_WEIGHT = 4;

static bool push(rp_gaps *g, void *array, int32_t x) {
  RP_ARRAY(int32_t) *a = array;
  if (!rp_array_room(g->ctx, a, sizeof(int32_t), 1)) return false;
  a->at[a->n++] = x;
  return true;
}

/* ---- moves -------------------------------------------------------------- */

/* Sets keep[from..to-1][node], saving what was there at `at` of saved. */
static void set(rp_gaps *g, int32_t node, int32_t from, int32_t to, bool kept,
                int32_t at) {
  const size_t n = (size_t)g->graph->nodes.n;
  bool *column = g->keep + node, *saved = g->saved + (size_t)at * n;
  for (int32_t j = from; j < to; j++) {
    saved[j] = column[(size_t)j * n];
    column[(size_t)j * n] = kept || g->pinned[node];
  }
}

static void put_back(rp_gaps *g, int32_t node, int32_t from, int32_t to,
                     int32_t at) {
  const size_t n = (size_t)g->graph->nodes.n;
  for (int32_t j = from; j < to; j++)
    g->keep[(size_t)j * n + (size_t)node] = g->saved[(size_t)at * n +
                                                     (size_t)j];
}

static bool is_kept(const rp_gaps *g, const rp_gap *it) {
  const size_t n = (size_t)g->graph->nodes.n;
  for (int32_t j = it->from; j < it->to; j++)
    if (!g->keep[(size_t)j * n + (size_t)it->node]) return false;
  return true;
}

/* Whether an instruction above the limit lies between the gap's ends, by the
   program measured last. */
static bool spans_excess(const rp_gaps *g, const rp_gap *it) {
  const int32_t n = g->live.n;
  const int32_t from = g->place[it->from] + 1;
  const int32_t to = it->to < g->graph->nodes.n ? g->place[it->to] : n;
  return from < to && g->excess.at[to] > g->excess.at[from];
}

/* Gives gaps up until nothing exceeds the limit, or no gap lowers the excess.
   Each time the one that costs least a byte of excess. */
static rp_status descend(rp_gaps *g) {
  rp_status status = rp_gaps_evaluate(g);
  RP_ARRAY(int32_t) open = {0};
  while (status == RP_OK && g->excess_bytes > 0 && g->runs < RUNS) {
    const double excess = g->excess_bytes, seconds = g->seconds;
    open.n = 0;
    for (int32_t i = 0; i < g->all.n; i++) {
      const rp_gap *it = &g->all.at[i];
      if (!g->pinned[it->node] && spans_excess(g, it) && is_kept(g, it) &&
          !push(g, &open, i))
        status = RP_NOMEM;
    }
    double best = INFINITY;
    const rp_gap *chosen = NULL;
    for (int32_t k = 0; k < open.n && status == RP_OK; k++) {
      const rp_gap *it = &g->all.at[open.at[k]];
      set(g, it->node, it->from, it->to, false, 0);
      status = rp_gaps_evaluate(g);
      put_back(g, it->node, it->from, it->to, 0);
      if (g->excess_bytes >= excess) continue;
      const double price = (g->seconds - seconds) /
                           (excess - g->excess_bytes);
      if (price >= best) continue;
      best = price;
      chosen = it;
    }
    if (chosen) set(g, chosen->node, chosen->from, chosen->to, false, 0);
    if (status == RP_OK) status = rp_gaps_evaluate(g);
    if (chosen == NULL) break;
  }
  rp_array_free(g->ctx, &open, sizeof(int32_t));
  return status;
}

/* Takes gaps back while that saves time within the limit, each alone or with
   another given up for it. */
static rp_status polish(rp_gaps *g) {
  rp_status status = rp_gaps_evaluate(g);
  double seconds = g->seconds;
  bool better = true;
  while (better && status == RP_OK && g->runs < RUNS) {
    better = false;
    for (int32_t i = 0; i < g->all.n && status == RP_OK; i++) {
      const rp_gap *it = &g->all.at[i];
      if (is_kept(g, it) || g->runs >= RUNS) continue;
      set(g, it->node, it->from, it->to, true, 0);
      status = rp_gaps_evaluate(g);
      bool taken = g->excess_bytes <= 0 && g->seconds < seconds;
      const bool faster = g->seconds < seconds;
      for (int32_t k = 0; k < g->all.n && faster && !taken &&
                          status == RP_OK; k++) {
        const rp_gap *other = &g->all.at[k];
        if (k == i || g->pinned[other->node] || !is_kept(g, other)) continue;
        set(g, other->node, other->from, other->to, false, 1);
        status = rp_gaps_evaluate(g);
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
static int32_t draw(rp_gaps *g, int32_t n) {
  g->seed = g->seed * 6364136223846793005u + 1442695040888963407u;
  return (int32_t)((g->seed >> 33) % (uint64_t)n);
}

/* Seconds over those of keeping all, and what exceeds the limit over it. */
static double energy(const rp_gaps *g) {
  return g->seconds / g->all_kept_seconds +
         EXCESS_WEIGHT * g->excess_bytes / (double)g->limit_bytes;
}

/* Simulated annealing (Kirkpatrick et al., 1983) from the present state; leaves
   the best that was met. A move sets one gap or two, or parts of them. */
static rp_status anneal(rp_gaps *g) {
  const size_t size = (size_t)g->graph->nodes.n * (size_t)g->graph->nodes.n;
  const double share = RUNS / (2 * RP_LIMITS * (double)g->graph->nodes.n);
  const int32_t moves =
      share < MOVES * g->all.n ? (int32_t)share : MOVES * g->all.n;
  bool *best = rp_alloc(g->ctx, size);
  if (best == NULL) return RP_NOMEM;
  rp_status status = rp_gaps_evaluate(g);
  double now = energy(g), least = now;
  memcpy(best, g->keep, size);
  for (int32_t m = 0; m < moves && status == RP_OK && g->runs < RUNS; m++) {
    const double heat = HOT * pow(COLD / HOT, (double)m / moves);
    rp_gap changed[2];
    const int32_t changes = 1 + draw(g, 2);
    for (int32_t c = 0; c < changes; c++) {
      rp_gap it = g->all.at[draw(g, g->all.n)];
      const int32_t length = it.to - it.from;
      if (length > 1 && draw(g, 4) == 0) it.from += draw(g, length);
      if (length > 1 && draw(g, 4) == 0) it.to = it.from + 1 +
                                                draw(g, it.to - it.from);
      set(g, it.node, it.from, it.to, draw(g, 2), c);
      changed[c] = it;
    }
    status = rp_gaps_evaluate(g);
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
  if (status == RP_OK) status = rp_gaps_evaluate(g);
  return status;
}

/* ---- entry -------------------------------------------------------------- */

/* Starts from the best that is known within limit l, if any. */
static bool recall(rp_gaps *g, int32_t l) {
  const size_t size = (size_t)g->graph->nodes.n * (size_t)g->graph->nodes.n;
  g->limit_bytes = rp_gaps_limit(g, l);
  if (isinf(g->best_seconds[l])) return false;
  memcpy(g->keep, g->best + (size_t)l * size, size);
  return true;
}

/* Down the ladder, until two limits in a row are not met; then up again, with
   what was met on the way. */
static rp_status walk_ladder(rp_gaps *g) {
  for (int32_t l = 0; l < RP_LIMITS; l++) g->best_seconds[l] = INFINITY;
  rp_status status = rp_gaps_evaluate(g);
  g->most_bytes = g->live_bytes;
  g->all_kept_seconds = g->seconds;
  int32_t unmet = 0, l = 1;
  for (; l < RP_LIMITS && unmet < 2 && status == RP_OK; l++) {
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
  rp_gaps g = {.search = search, .ctx = ctx, .graph = graph,
            .limit_bytes = INT64_MAX,
            .keep = rp_alloc(ctx, n * n),
            .best = rp_alloc(ctx, RP_LIMITS * n * n),
            .saved = rp_alloc(ctx, 2 * n),
            .place = rp_alloc(ctx, n * sizeof(int32_t)),
            .held = rp_alloc(ctx, n), .wanted = rp_alloc(ctx, n),
            .pinned = rp_alloc(ctx, n)};
  const bool ready = g.keep && g.best && g.saved && g.place && g.held &&
                     g.wanted && g.pinned;
  rp_status status = ready ? RP_OK : RP_NOMEM;
  if (status == RP_OK) {
    memset(g.keep, true, n * n);
    status = rp_gaps_find(&g);
  }
  if (status == RP_OK) status = walk_ladder(&g);
  rp_free(ctx, g.keep, n * n);
  rp_free(ctx, g.best, RP_LIMITS * n * n);
  rp_free(ctx, g.saved, 2 * n);
  rp_free(ctx, g.place, n * sizeof(int32_t));
  rp_free(ctx, g.held, n);
  rp_free(ctx, g.wanted, n);
  rp_free(ctx, g.pinned, n);
  rp_array_free(ctx, &g.all, sizeof(rp_gap));
  rp_array_free(ctx, &g.steps, sizeof(int32_t));
  rp_array_free(ctx, &g.stack, sizeof(int32_t));
  rp_array_free(ctx, &g.restored, sizeof(int32_t));
  rp_array_free(ctx, &g.live, sizeof(int64_t));
  rp_array_free(ctx, &g.excess, sizeof(int32_t));
  return status;
}
