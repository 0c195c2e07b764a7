/* Effects in few calls. The scheduler puts each effect right behind what it
   waits for, which frees its gradient soonest. Where a call costs more than the
   work (a launch on a GPU), effects of one kind had better run side by side: an
   effect may wait for later ones while there is room for what it reads.

   One walk over the program decides. Effects of a kind that wait are a batch;
   it runs where its last member stands, so what it holds back is held between
   a member's place and the last one's. A batch ends where the next instruction
   has no room for that beside the arena's peak, or must come after it. Of one
   kind of effect no legal choice has fewer calls: each batch takes in all it
   can, and what comes after it gains nothing from an earlier end.

   A layout has the last word, which may need more than what is live: where the
   arena would grow, less is held back, by halves down to nothing.

   Invariant of the walk: place[m] of a member of an open batch is the member
   before it, -1 for the first; that of every other RUN so far is the RUN that
   it runs with, itself or a later one. */
#include <string.h>

#include "base/context.h"
#include "plan/plan.h"

typedef struct batch {
  const void *kind;
  int32_t id, last;
  int64_t held; /* bytes that would be free by now */
} batch;

typedef struct gatherer {
  rp_context *ctx;
  const rp_graph *graph;
  const rp_program *program;
  const void *const *kinds; /* by node */
  int64_t most_live, most_held;
  int64_t *live;    /* by instruction, as scheduled */
  int32_t *place;   /* by instruction */
  bool *taken_over; /* by instance: its bytes live on under another name */
  int32_t *wanted;  /* by instance: the last batch that reads it, or 0 */
  int32_t *reads, *writes; /* by leaf: the last batch that does, or 0 */
  RP_ARRAY(batch) open;
  int32_t n_batches;
  int64_t held;      /* by all that is open */
  int64_t held_peak; /* by one batch, the most so far */
} gatherer;

static const rp_graph_node *node_of(const gatherer *g, int32_t i) {
  return &g->graph->nodes.at[g->program->instructions.at[i].node];
}

/* ---- what is live ------------------------------------------------------- */

/* Needs live of n + 1 zeros. */
static void find_live(gatherer *g, const int64_t *workspace_bytes) {
  const rp_program *p = g->program;
  for (int32_t v = 0; v < p->instances.n; v++)
    if (p->instances.at[v].shares >= 0)
      g->taken_over[p->instances.at[v].shares] = true;
  for (int32_t v = 0; v < p->instances.n; v++) {
    const rp_instance *instance = &p->instances.at[v];
    if (g->graph->values.at[instance->value].target) continue;
    const int64_t bytes = rp_value_bytes(g->graph, instance->value);
    if (instance->shares < 0) g->live[instance->born] += bytes;
    if (!g->taken_over[v]) g->live[instance->last_read + 1] -= bytes;
  }
  for (int32_t i = 1; i < p->instructions.n; i++) g->live[i] += g->live[i - 1];
  for (int32_t i = 0; i < p->instructions.n; i++)
    if (p->instructions.at[i].opcode == RP_OP_RUN)
      g->live[i] += rp_align(workspace_bytes[p->instructions.at[i].node]);
}

/* ---- batches ------------------------------------------------------------ */

static batch *find(gatherer *g, int32_t id) {
  for (int32_t b = 0; b < g->open.n; b++)
    if (g->open.at[b].id == id) return &g->open.at[b];
  return NULL;
}

static batch *of_kind(gatherer *g, const void *kind) {
  for (int32_t b = 0; b < g->open.n; b++)
    if (g->open.at[b].kind == kind) return &g->open.at[b];
  return NULL;
}

static void end(gatherer *g, batch *b) {
  for (int32_t m = b->last; m >= 0;) {
    const int32_t before = g->place[m];
    g->place[m] = b->last;
    m = before;
  }
  g->held -= b->held;
  *b = g->open.at[--g->open.n];
}

static void end_all(gatherer *g) {
  while (g->open.n > 0) end(g, &g->open.at[0]);
}

/* Ends what must have run before RUN i: what reads or writes leaves that it
   writes, or writes leaves that it reads; whatever it may be that reads bytes
   which it takes over. */
static void end_before(gatherer *g, int32_t i) {
  const rp_graph_node *node = node_of(g, i);
  const int32_t first_ref = g->program->instructions.at[i].first_ref;
  for (int32_t k = 0; k < node->n_operands; k++) {
    const int32_t leaf = rp_operand_leaf(rp_graph_in(g->graph, node, k));
    if (leaf < 0) continue;
    batch *b = find(g, g->writes[leaf]);
    if (b) end(g, b);
    if (node->op->writes >> k & 1u && g->reads[leaf] > 0) end_all(g);
  }
  for (int32_t k = 0; k < node->n_values; k++) {
    const int32_t out = g->program->refs.at[first_ref + node->n_operands + k];
    const int32_t from = g->program->instances.at[out].shares;
    if (from >= 0 && g->wanted[from] > 0) end_all(g);
  }
}

static void make_room(gatherer *g, int32_t i) {
  while (g->open.n > 0 && g->live[i] + g->held > g->most_live) {
    batch *most = &g->open.at[0];
    for (int32_t b = 1; b < g->open.n; b++)
      if (g->open.at[b].held > most->held) most = &g->open.at[b];
    end(g, most);
  }
}

static rp_status join(gatherer *g, int32_t i) {
  const rp_instruction *run = &g->program->instructions.at[i];
  const rp_graph_node *node = node_of(g, i);
  batch *b = of_kind(g, g->kinds[run->node]);
  if (b == NULL) {
    if (!rp_array_room(g->ctx, &g->open, sizeof(batch), 1)) return RP_NOMEM;
    b = &g->open.at[g->open.n++];
    *b = (batch){.kind = g->kinds[run->node], .id = ++g->n_batches,
                 .last = -1};
  }
  g->place[i] = b->last;
  b->last = i;
  for (int32_t k = 0; k < node->n_operands; k++) {
    const int32_t ref = g->program->refs.at[run->first_ref + k];
    if (ref >= 0) g->wanted[ref] = b->id;
    else if (node->op->writes >> k & 1u) g->writes[-1 - ref] = b->id;
    else g->reads[-1 - ref] = b->id;
  }
  return RP_OK;
}

/* What RUN i reads last is held from here on where a batch still wants it. */
static void hold(gatherer *g, int32_t i) {
  const rp_graph_node *node = node_of(g, i);
  const int32_t *refs =
      g->program->refs.at + g->program->instructions.at[i].first_ref;
  for (int32_t k = 0; k < node->n_operands; k++) {
    if (refs[k] < 0 || g->taken_over[refs[k]]) continue;
    const rp_instance *instance = &g->program->instances.at[refs[k]];
    bool met = instance->last_read != i ||
               g->graph->values.at[instance->value].target;
    for (int32_t j = 0; j < k; j++) met |= refs[j] == refs[k];
    batch *b = met ? NULL : find(g, g->wanted[refs[k]]);
    if (b == NULL) continue;
    const int64_t bytes = rp_value_bytes(g->graph, instance->value);
    b->held += bytes;
    g->held += bytes;
    if (b->held > g->held_peak) g->held_peak = b->held;
    if (b->held > g->most_held) end(g, b);
  }
}

/* Fills place; *n is how many RUNs join another. */
static rp_status decide(gatherer *g, int32_t *n) {
  const rp_program *p = g->program;
  rp_status status = RP_OK;
  g->held_peak = 0;
  memset(g->wanted, 0, (size_t)p->instances.n * sizeof(int32_t));
  memset(g->reads, 0, (size_t)g->graph->leaves.n * sizeof(int32_t));
  memset(g->writes, 0, (size_t)g->graph->leaves.n * sizeof(int32_t));
  for (int32_t i = 0; i < p->instructions.n && status == RP_OK; i++) {
    g->place[i] = i;
    if (p->instructions.at[i].opcode != RP_OP_RUN) continue;
    end_before(g, i);
    make_room(g, i);
    if (g->kinds[p->instructions.at[i].node]) status = join(g, i);
    hold(g, i);
  }
  end_all(g);
  *n = 0;
  for (int32_t i = 0; i < p->instructions.n; i++) *n += g->place[i] != i;
  return status;
}

/* ---- the program that follows ------------------------------------------- */

/* The RUNs alone, in their new order. waiting, next: room for an entry an
   instruction. */
static rp_status reorder(const gatherer *g, rp_program *made, int32_t *waiting,
                         int32_t *next) {
  const rp_program *p = g->program;
  if (!rp_array_room(g->ctx, &made->instructions, sizeof(rp_instruction),
                     p->n_runs) ||
      !rp_array_room(g->ctx, &made->instances, sizeof(rp_instance),
                     p->instances.n) ||
      !rp_array_room(g->ctx, &made->refs, sizeof(int32_t), p->refs.n))
    return RP_NOMEM;
  made->n_runs = p->n_runs;
  made->n_replays = p->n_replays;
  made->refs.n = p->refs.n;
  if (p->refs.n > 0)
    memcpy(made->refs.at, p->refs.at, (size_t)p->refs.n * sizeof(int32_t));
  made->instances.n = p->instances.n;
  if (p->instances.n > 0)
    memcpy(made->instances.at, p->instances.at,
           (size_t)p->instances.n * sizeof(rp_instance));
  const int32_t n = p->instructions.n;
  for (int32_t i = 0; i < n; i++) waiting[i] = -1;
  for (int32_t i = n - 1; i >= 0; i--) {
    next[i] = g->place[i] == i ? -1 : waiting[g->place[i]];
    if (g->place[i] != i) waiting[g->place[i]] = i;
  }
  for (int32_t i = 0; i < n; i++) {
    if (p->instructions.at[i].opcode != RP_OP_RUN || g->place[i] != i) continue;
    bool joins = false;
    for (int32_t m = waiting[i]; m >= 0; m = next[m], joins = true) {
      made->instructions.at[made->instructions.n] = p->instructions.at[m];
      made->instructions.at[made->instructions.n++].joins = joins;
    }
    const rp_graph_node *node = node_of(g, i);
    const int32_t *outs = p->refs.at + p->instructions.at[i].first_ref +
                          node->n_operands;
    for (int32_t k = 0; k < node->n_values; k++)
      made->instances.at[outs[k]].born = made->instructions.n;
    made->instructions.at[made->instructions.n] = p->instructions.at[i];
    made->instructions.at[made->instructions.n++].joins = joins;
  }
  for (int32_t v = 0; v < made->instances.n; v++)
    made->instances.at[v].dead = -1;
  return RP_OK;
}

static rp_status build(const gatherer *g, rp_program *made) {
  const size_t size = (size_t)g->program->instructions.n * sizeof(int32_t);
  int32_t *waiting = rp_alloc(g->ctx, size), *next = rp_alloc(g->ctx, size);
  rp_status status =
      waiting && next ? reorder(g, made, waiting, next) : RP_NOMEM;
  if (status == RP_OK) status = rp_lives_find(made, g->ctx, g->graph, false);
  rp_free(g->ctx, waiting, size);
  rp_free(g->ctx, next, size);
  return status;
}

/* ---- entry -------------------------------------------------------------- */

static rp_status gatherer_open(gatherer *g, const int64_t *workspace_bytes) {
  const size_t n = (size_t)g->program->instructions.n;
  const size_t instances = (size_t)g->program->instances.n;
  const size_t leaves = (size_t)g->graph->leaves.n * sizeof(int32_t);
  g->live = rp_alloc(g->ctx, (n + 1) * sizeof(int64_t));
  g->place = rp_alloc(g->ctx, n * sizeof(int32_t));
  g->taken_over = rp_alloc(g->ctx, instances);
  g->wanted = rp_alloc(g->ctx, instances * sizeof(int32_t));
  g->reads = rp_alloc(g->ctx, leaves);
  g->writes = rp_alloc(g->ctx, leaves);
  if (!g->live || !g->place || !g->taken_over || !g->wanted || !g->reads ||
      !g->writes)
    return RP_NOMEM;
  find_live(g, workspace_bytes);
  return RP_OK;
}

static void gatherer_close(gatherer *g) {
  const size_t n = (size_t)g->program->instructions.n;
  const size_t instances = (size_t)g->program->instances.n;
  const size_t leaves = (size_t)g->graph->leaves.n * sizeof(int32_t);
  rp_free(g->ctx, g->live, (n + 1) * sizeof(int64_t));
  rp_free(g->ctx, g->place, n * sizeof(int32_t));
  rp_free(g->ctx, g->taken_over, instances);
  rp_free(g->ctx, g->wanted, instances * sizeof(int32_t));
  rp_free(g->ctx, g->reads, leaves);
  rp_free(g->ctx, g->writes, leaves);
  rp_array_free(g->ctx, &g->open, sizeof(batch));
}

rp_status rp_gather(rp_program *program, rp_layout *layout, rp_context *ctx,
                    const rp_graph *graph, const int64_t *workspace_bytes,
                    const void *const *kinds) {
  gatherer g = {.ctx = ctx, .graph = graph, .program = program,
                .kinds = kinds, .most_live = layout->live_bytes,
                .most_held = INT64_MAX};
  rp_program made = {0};
  rp_layout placed = {0};
  rp_status status = gatherer_open(&g, workspace_bytes);
  int32_t n = 0, tried = 0;
  bool fits = false;
  while (status == RP_OK) {
    status = decide(&g, &n);
    if (status != RP_OK || n == 0) break;
    if (n != tried) {
      status = build(&g, &made);
      if (status == RP_OK)
        status = rp_layout_make(&placed, ctx, graph, &made, workspace_bytes,
                                layout->arena_bytes);
      fits = status == RP_OK && placed.arena_bytes <= layout->arena_bytes &&
             placed.live_bytes <= layout->live_bytes;
      if (status != RP_OK || fits) break;
      rp_program_free(&made, ctx);
      rp_layout_free(&placed, ctx);
    }
    tried = n;
    if (g.most_held == 0) break;
    g.most_held = g.held_peak < g.most_held ? g.held_peak / 2
                                            : g.most_held / 2;
  }
  gatherer_close(&g);
  if (fits) {
    rp_program_free(program, ctx);
    rp_layout_free(layout, ctx);
    *program = made;
    *layout = placed;
  } else {
    rp_program_free(&made, ctx);
    rp_layout_free(&placed, ctx);
  }
  return status;
}
