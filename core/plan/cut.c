/* Vertices: available(v) and replayed(v), both on the source side when true.
     source -> available(v)      infinite, when v is needed
     available(v) -> replayed(v) keep_cost: available but not replayed is kept
     replayed(v) -> sink         replay_cost
     replayed(v) -> available(u) infinite, for each input u of v
   A finite cut pays for exactly one consistent choice. Maximum flow by
   Dinic's algorithm. */
#include "plan/cut.h"

#include <math.h>
#include <string.h>

#include "base/context.h"

typedef struct edge {
  int32_t to, next;
  double room;
} edge;

typedef struct network {
  rp_context *ctx;
  RP_ARRAY(edge) edges; /* e and e ^ 1 are each other's reverse */
  int32_t *first, *level, *at, *queue;
  int32_t n;
} network;

static bool add_edge(network *g, int32_t from, int32_t to, double room) {
  if (!rp_array_room(g->ctx, &g->edges, sizeof(edge), 2)) return false;
  g->edges.at[g->edges.n] = (edge){to, g->first[from], room};
  g->first[from] = g->edges.n++;
  g->edges.at[g->edges.n] = (edge){from, g->first[to], 0};
  g->first[to] = g->edges.n++;
  return true;
}

static bool find_levels(network *g, int32_t source, int32_t sink) {
  memset(g->level, 0xff, (size_t)g->n * sizeof *g->level);
  int32_t head = 0, tail = 0;
  g->level[source] = 0;
  g->queue[tail++] = source;
  while (head < tail) {
    const int32_t v = g->queue[head++];
    for (int32_t e = g->first[v]; e >= 0; e = g->edges.at[e].next)
      if (g->edges.at[e].room > 0 && g->level[g->edges.at[e].to] < 0) {
        g->level[g->edges.at[e].to] = g->level[v] + 1;
        g->queue[tail++] = g->edges.at[e].to;
      }
  }
  return g->level[sink] >= 0;
}

/* One augmenting path along the levels; queue holds its edges. */
static double augment(network *g, int32_t source, int32_t sink) {
  int32_t depth = 0, v = source;
  while (v != sink) {
    int32_t e = g->at[v];
    while (e >= 0 && !(g->edges.at[e].room > 0 &&
                       g->level[g->edges.at[e].to] == g->level[v] + 1))
      e = g->edges.at[e].next;
    g->at[v] = e;
    if (e >= 0) {
      g->queue[depth++] = e;
      v = g->edges.at[e].to;
    } else if (depth == 0) {
      return 0;
    } else { /* a dead end: back, past the edge that led here */
      const int32_t back = g->queue[--depth];
      v = g->edges.at[back ^ 1].to;
      g->at[v] = g->edges.at[back].next;
    }
  }
  double flow = INFINITY;
  for (int32_t i = 0; i < depth; i++)
    if (g->edges.at[g->queue[i]].room < flow)
      flow = g->edges.at[g->queue[i]].room;
  for (int32_t i = 0; i < depth; i++) {
    g->edges.at[g->queue[i]].room -= flow;
    g->edges.at[g->queue[i] ^ 1].room += flow;
  }
  return flow;
}

static rp_status build(network *g, const rp_cut_value *values, int32_t n,
                       const int32_t *inputs) {
  const int32_t source = 2 * n, sink = 2 * n + 1;
  bool ok = true;
  for (int32_t v = 0; v < n && ok; v++) {
    const int32_t available = 2 * v, replayed = 2 * v + 1;
    if (values[v].needed) ok = add_edge(g, source, available, INFINITY);
    ok = ok && add_edge(g, available, replayed, values[v].keep_cost) &&
         add_edge(g, replayed, sink, values[v].replay_cost);
    for (int32_t k = 0; k < values[v].n_inputs && ok; k++)
      ok = add_edge(g, replayed, 2 * inputs[values[v].first_input + k],
                    INFINITY);
  }
  return ok ? RP_OK : RP_NOMEM;
}

rp_status rp_cut_solve(rp_context *ctx, const rp_cut_value *values, int32_t n,
                       const int32_t *inputs, bool *keep) {
  network g = {.ctx = ctx, .n = 2 * n + 2};
  const size_t size = (size_t)g.n * sizeof(int32_t);
  g.first = rp_alloc(ctx, size);
  g.level = rp_alloc(ctx, size);
  g.at = rp_alloc(ctx, size);
  g.queue = rp_alloc(ctx, size);
  rp_status status =
      g.first && g.level && g.at && g.queue ? RP_OK : RP_NOMEM;
  if (status == RP_OK) {
    memset(g.first, 0xff, size);
    status = build(&g, values, n, inputs);
  }
  const int32_t source = 2 * n, sink = 2 * n + 1;
  while (status == RP_OK && find_levels(&g, source, sink)) {
    memcpy(g.at, g.first, size);
    while (augment(&g, source, sink) > 0) {}
  }
  /* level >= 0 is the source side of the minimum cut. */
  for (int32_t v = 0; v < n && status == RP_OK; v++)
    keep[v] = g.level[2 * v] >= 0 && g.level[2 * v + 1] < 0;
  rp_free(ctx, g.first, size);
  rp_free(ctx, g.level, size);
  rp_free(ctx, g.at, size);
  rp_free(ctx, g.queue, size);
  rp_array_free(ctx, &g.edges, sizeof(edge));
  return status;
}
