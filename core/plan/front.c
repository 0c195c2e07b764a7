#include "plan/front.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "plan/chain.h"

/* The table's slots; and what refinement may spend: evaluations, and nodes
   looked at by them, whichever ends first. Both are stated, so a plan is the
   same on every machine. */
enum { SLOTS = 200, REFINEMENTS = 600 };
static const double REFINED_NODES = 1.5e6;

/* ---- candidates ------------------------------------------------------------------- */

static void candidate_free(rp_candidate *c, rp_context *ctx) {
  rp_array_free(ctx, &c->segments, sizeof(rp_segment));
  rp_array_free(ctx, &c->keeps, sizeof(int32_t));
}

/* Adds a segment; its keep list is given as an index until settle. */
static rp_status add_segment(rp_candidate *c, rp_context *ctx, int32_t first,
                             int32_t last, int32_t parent, const int32_t *keep,
                             int32_t n_keep) {
  if (!rp_array_room(ctx, &c->segments, sizeof(rp_segment), 1) ||
      !rp_array_room(ctx, &c->keeps, sizeof(int32_t), n_keep))
    return RP_NOMEM;
  c->segments.at[c->segments.n++] =
      (rp_segment){.first = first, .last = last, .parent = parent,
                   .keep = (const int32_t *)(intptr_t)c->keeps.n,
                   .n_keep = n_keep};
  if (n_keep > 0)
    memcpy(c->keeps.at + c->keeps.n, keep, (size_t)n_keep * sizeof *keep);
  c->keeps.n += n_keep;
  return RP_OK;
}

static void settle(rp_candidate *c) {
  for (int32_t i = 0; i < c->segments.n; i++)
    c->segments.at[i].keep =
        c->keeps.at + (intptr_t)c->segments.at[i].keep;
}

/* ---- the front -------------------------------------------------------------------- */

/* Takes c, evaluated, into the front or frees it. */
static rp_status insert(rp_front *front, rp_context *ctx, rp_candidate *c) {
  int32_t at = 0;
  while (at < front->points.n &&
         front->points.at[at].peak_bytes < c->peak_bytes)
    at++;
  const bool beaten =
      (at > 0 && front->points.at[at - 1].seconds <= c->seconds) ||
      (at < front->points.n &&
       front->points.at[at].peak_bytes == c->peak_bytes &&
       front->points.at[at].seconds <= c->seconds);
  if (beaten) {
    candidate_free(c, ctx);
    return RP_OK;
  }
  int32_t end = at; /* those it beats */
  while (end < front->points.n &&
         front->points.at[end].seconds >= c->seconds)
    candidate_free(&front->points.at[end++], ctx);
  if (end == at &&
      !rp_array_room(ctx, &front->points, sizeof(rp_candidate), 1)) {
    candidate_free(c, ctx);
    return RP_NOMEM;
  }
  memmove(&front->points.at[at + 1], &front->points.at[end],
          (size_t)(front->points.n - end) * sizeof(rp_candidate));
  front->points.n += 1 - (end - at);
  front->points.at[at] = *c;
  return RP_OK;
}

static int64_t persistent_bytes(const rp_plan *plan) {
  rp_plan_info info;
  rp_plan_describe(plan, &info);
  return info.persistent_bytes;
}

/* Is a plan of at least this peak, and of this time, beaten already? */
static bool is_beaten(const rp_front *front, int64_t peak_bytes,
                      double seconds) {
  for (int32_t i = 0; i < front->points.n; i++)
    if (front->points.at[i].peak_bytes <= peak_bytes &&
        front->points.at[i].seconds <= seconds)
      return true;
  return false;
}

/* Exact peak and time: tree, schedule, layout; the layout only where the live
   bytes, which bound it from below, do not already say that c is beaten. */
static rp_status evaluate(const rp_front *front, const rp_plan *plan,
                          const rp_backend *backend, int64_t persistent,
                          rp_candidate *c, bool *beaten) {
  rp_context *ctx = plan->ctx;
  rp_tree tree = {0};
  rp_program program = {0};
  rp_layout layout = {0};
  int64_t live_bytes = 0;
  rp_status status = rp_tree_build(&tree, ctx, &plan->graph, c->segments.at,
                                   c->segments.n);
  if (status == RP_OK)
    status = rp_schedule_tree(&program, ctx, &plan->graph, &tree);
  if (status == RP_OK)
    status = rp_layout_bound(&live_bytes, ctx, &plan->graph, &program,
                             plan->workspace_bytes);
  c->seconds = 0;
  for (int32_t i = 0; i < program.instructions.n; i++)
    if (program.instructions.at[i].opcode == RP_OP_RUN)
      c->seconds += rp_node_seconds(
          &plan->graph.nodes.at[program.instructions.at[i].node], backend);
  *beaten = status != RP_OK ||
            is_beaten(front, persistent + live_bytes, c->seconds);
  if (!*beaten)
    status = rp_layout_make(&layout, ctx, &plan->graph, &program,
                            plan->workspace_bytes);
  c->peak_bytes = persistent + layout.arena_bytes;
  rp_layout_free(&layout, ctx);
  rp_program_free(&program, ctx);
  rp_tree_free(&tree, ctx);
  return status;
}

/* Takes c, made with this status, into the front or frees it. */
static rp_status offer(rp_front *front, const rp_plan *plan,
                       const rp_backend *backend, int64_t persistent,
                       rp_candidate *c, rp_status status) {
  bool beaten = true;
  if (status == RP_OK) {
    settle(c);
    status = evaluate(front, plan, backend, persistent, c, &beaten);
    front->evaluations++;
  }
  if (status == RP_OK && !beaten) return insert(front, plan->ctx, c);
  candidate_free(c, plan->ctx);
  return status;
}

/* ---- from the table ------------------------------------------------------------------ */

static int32_t slots_of(int64_t bytes, int64_t slot) {
  return (int32_t)((bytes + slot - 1) / slot);
}

static void chain_blocks(const rp_stretches *all, int64_t slot,
                         rp_chain_block *blocks) {
  for (int32_t i = 0; i < all->n; i++) {
    const rp_stretch *s = &all->at[i];
    blocks[i] = (rp_chain_block){
        .input = slots_of(s->input_bytes, slot),
        .forward = slots_of(s->forward_bytes, slot),
        .forward_seconds = s->forward_seconds,
        .n_options = s->n_options};
    for (int32_t k = 0; k < s->n_options; k++)
      blocks[i].options[k] = (rp_chain_option){
          .kept = slots_of(s->options[k].kept_bytes, slot),
          .backward = slots_of(s->options[k].restored_bytes +
                               s->backward_bytes, slot),
          .seconds = s->options[k].seconds};
  }
}

/* Segments of blocks i..j in m slots, as the table chose. Recursion goes to
   the inside of a segment only; its depth is at most the number of blocks. */
static rp_status read_table(rp_candidate *c, rp_context *ctx,
                            const rp_chain *chain, const rp_stretches *all,
                            int32_t m, int32_t i, int32_t j, int32_t parent) {
  rp_status status = RP_OK;
  while (i <= j && status == RP_OK) {
    const int32_t choice = rp_chain_choice(chain, m, i, j);
    if (choice < 0)
      return rp_fail(ctx, RP_INTERNAL, "the chain table has no entry");
    const rp_stretch *s = &all->at[i];
    if (choice < RP_CHAIN_OPTIONS) {
      if (choice > 0) /* option 0 keeps everything */
        status = add_segment(c, ctx, s->first, s->last, parent,
                             s->options[choice].keep, s->options[choice].n);
      m -= chain->blocks[i].options[choice].kept;
      i++;
      continue;
    }
    const int32_t p = i + choice - RP_CHAIN_OPTIONS;
    const int32_t own = c->segments.n;
    status = add_segment(c, ctx, s->first, all->at[p - 1].last, parent, NULL,
                         0);
    if (status == RP_OK)
      status = read_table(c, ctx, chain, all, m, i, p - 1, own);
    m -= chain->blocks[p].input;
    i = p;
  }
  return status;
}

static rp_status offer_table(rp_front *front, rp_plan *plan,
                             const rp_backend *backend, int64_t persistent,
                             const rp_stretches *all, int64_t most) {
  rp_context *ctx = plan->ctx;
  const int64_t slot = most / SLOTS + 1;
  const size_t size = (size_t)all->n * sizeof(rp_chain_block);
  rp_chain_block *blocks = rp_alloc(ctx, size);
  if (blocks == NULL) return RP_NOMEM;
  chain_blocks(all, slot, blocks);
  rp_chain chain = {0};
  rp_status status = rp_chain_solve(&chain, ctx, blocks, all->n, SLOTS);
  double before = -1;
  for (int32_t m = 0; m <= SLOTS && status == RP_OK && all->n > 0; m++) {
    const double seconds = rp_chain_seconds(&chain, m, 0, all->n - 1);
    if (isinf(seconds) || seconds == before) continue;
    before = seconds; /* the least memory of each time */
    rp_candidate c = {0};
    status = read_table(&c, ctx, &chain, all, m, 0, all->n - 1, -1);
    status = offer(front, plan, backend, persistent, &c, status);
  }
  rp_chain_free(&chain, ctx);
  rp_free(ctx, blocks, size);
  return status;
}

/* ---- plain candidates ------------------------------------------------------------------ */

/* One option of every stretch: the k-th, or the last it has. */
static rp_status offer_options(rp_front *front, rp_plan *plan,
                               const rp_backend *backend, int64_t persistent,
                               const rp_stretches *all) {
  rp_status status = RP_OK;
  for (int32_t k = 0; k < RP_CHAIN_OPTIONS && status == RP_OK; k++) {
    rp_candidate c = {0};
    for (int32_t i = 0; i < all->n && status == RP_OK; i++) {
      const rp_stretch *s = &all->at[i];
      const int32_t at = k < s->n_options ? k : s->n_options - 1;
      if (at > 0)
        status = add_segment(&c, plan->ctx, s->first, s->last, -1,
                             s->options[at].keep, s->options[at].n);
    }
    status = offer(front, plan, backend, persistent, &c, status);
  }
  return status;
}

/* Layers in runs of n, every run, or every second run, a segment. */
static rp_status offer_layers(rp_front *front, rp_plan *plan,
                              const rp_backend *backend, int64_t persistent) {
  const rp_view *view = rp_plan_view(plan);
  if (view == NULL) return RP_NOMEM;
  rp_status status = RP_OK;
  for (int32_t n = 1; n <= view->n_layers && status == RP_OK; n *= 2)
    for (int32_t every = 1; every <= 2 && status == RP_OK; every++) {
      rp_candidate c = {0};
      for (int32_t i = 0; i < view->n_layers && status == RP_OK;
           i += n * every) {
        const int32_t end =
            i + n <= view->n_layers ? i + n - 1 : view->n_layers - 1;
        status = add_segment(&c, plan->ctx, view->layers[i].first,
                             view->layers[end].last, -1, NULL, 0);
      }
      status = offer(front, plan, backend, persistent, &c, status);
    }
  return status;
}

/* Pieces of about equal saved bytes, as Chen et al. (2016) cut: every piece a
   segment, or all but the last, with which backward begins. */
static rp_status offer_pieces(rp_front *front, rp_plan *plan,
                              const rp_backend *backend, int64_t persistent,
                              const rp_stretches *all) {
  double total = 0;
  for (int32_t i = 0; i < all->n; i++)
    total += (double)all->at[i].options[0].kept_bytes;
  rp_status status = RP_OK;
  for (int32_t pieces = 2; pieces <= all->n && status == RP_OK;
       pieces += 1 + pieces / 8)
    for (int whole = 0; whole < 2 && status == RP_OK; whole++) {
      rp_candidate c = {0};
      int32_t first = 0;
      double sum = 0;
      for (int32_t i = 0; i < all->n && status == RP_OK; i++) {
        sum += (double)all->at[i].options[0].kept_bytes;
        const bool ends = i == all->n - 1;
        if (!ends && sum < total / pieces) continue;
        if (!ends || whole)
          status = add_segment(&c, plan->ctx, all->at[first].first,
                               all->at[i].last, -1, NULL, 0);
        first = i + 1;
        sum = 0;
      }
      status = offer(front, plan, backend, persistent, &c, status);
    }
  return status;
}

/* ---- refinement ---------------------------------------------------------------------- */

/* A copy of `from` without segment `left_out` (-1: none), whose children go
   to its parent. */
static rp_status copy_without(rp_candidate *to, rp_context *ctx,
                              const rp_candidate *from, int32_t left_out) {
  rp_status status = RP_OK;
  for (int32_t i = 0; i < from->segments.n && status == RP_OK; i++) {
    const rp_segment *s = &from->segments.at[i];
    if (i == left_out) continue;
    int32_t parent = s->parent;
    if (parent == left_out && left_out >= 0)
      parent = from->segments.at[left_out].parent;
    if (left_out >= 0 && parent > left_out) parent--;
    status = add_segment(to, ctx, s->first, s->last, parent, s->keep,
                         s->n_keep);
  }
  return status;
}

static const rp_stretch *stretch_of(const rp_stretches *all,
                                    const rp_segment *segment) {
  for (int32_t i = 0; i < all->n; i++)
    if (all->at[i].first == segment->first && all->at[i].last == segment->last)
      return &all->at[i];
  return NULL;
}

static bool is_leaf_segment(const rp_candidate *c, int32_t segment) {
  for (int32_t i = segment + 1; i < c->segments.n; i++)
    if (c->segments.at[i].parent == segment) return false;
  return true;
}

/* Like `from`, but segment `at` keeps these nodes. */
static rp_status copy_with_keep(rp_candidate *to, rp_context *ctx,
                                const rp_candidate *from, int32_t at,
                                const int32_t *keep, int32_t n) {
  rp_status status = RP_OK;
  for (int32_t i = 0; i < from->segments.n && status == RP_OK; i++) {
    const rp_segment *s = &from->segments.at[i];
    status = add_segment(to, ctx, s->first, s->last, s->parent,
                         i == at ? keep : s->keep, i == at ? n : s->n_keep);
  }
  return status;
}

/* The moves from one point: leave a segment out; another kept set for a
   segment that is one stretch; one kept node more or less. */
static rp_status refine_point(rp_front *front, rp_plan *plan,
                              const rp_backend *backend, int64_t persistent,
                              const rp_stretches *all,
                              const rp_candidate *point, int32_t budget) {
  rp_context *ctx = plan->ctx;
  const int32_t end = front->evaluations + budget;
  rp_status status = RP_OK;
  for (int32_t s = 0; s < point->segments.n && status == RP_OK; s++) {
    if (front->evaluations >= end) break;
    rp_candidate less = {0};
    status = copy_without(&less, ctx, point, s);
    status = offer(front, plan, backend, persistent, &less, status);
    const rp_segment *segment = &point->segments.at[s];
    const rp_stretch *stretch = stretch_of(all, segment);
    if (stretch == NULL || !is_leaf_segment(point, s)) continue;
    for (int32_t k = 1; k < stretch->n_options && status == RP_OK &&
                        front->evaluations < end; k++) {
      rp_candidate other = {0};
      status = copy_with_keep(&other, ctx, point, s, stretch->options[k].keep,
                              stretch->options[k].n);
      status = offer(front, plan, backend, persistent, &other, status);
    }
    int32_t keep[256];
    for (int32_t i = segment->first; i <= segment->last && status == RP_OK &&
                                     front->evaluations < end; i++) {
      int32_t n = 0;
      bool was = false;
      for (int32_t k = 0; k < segment->n_keep && n < 255; k++) {
        was |= segment->keep[k] == i;
        if (segment->keep[k] != i) keep[n++] = segment->keep[k];
      }
      if (!was) keep[n++] = i;
      rp_candidate other = {0};
      status = copy_with_keep(&other, ctx, point, s, keep, n);
      status = offer(front, plan, backend, persistent, &other, status);
    }
  }
  return status;
}

/* Rounds over the points there are, while there is budget. The points move
   when better ones come in, so each round works on copies. */
static rp_status refine(rp_front *front, rp_plan *plan,
                        const rp_backend *backend, int64_t persistent,
                        const rp_stretches *all) {
  rp_context *ctx = plan->ctx;
  int32_t left = REFINEMENTS;
  const int32_t affordable =
      (int32_t)(REFINED_NODES / (plan->graph.nodes.n + 1));
  if (affordable < left) left = affordable;
  rp_status status = RP_OK;
  for (int round = 0; round < 3 && left > 0 && status == RP_OK; round++) {
    const int32_t n = front->points.n;
    const int32_t each = left / (n * (3 - round)) + 1;
    for (int32_t i = 0; i < n && left > 0 && status == RP_OK; i++) {
      if (i >= front->points.n) break;
      rp_candidate point = {0};
      status = copy_without(&point, ctx, &front->points.at[i], -1);
      if (status == RP_OK) settle(&point);
      const int32_t before = front->evaluations;
      if (status == RP_OK)
        status = refine_point(front, plan, backend, persistent, all, &point,
                              each < left ? each : left);
      left -= front->evaluations - before;
      candidate_free(&point, ctx);
    }
  }
  return status;
}

/* ---- entry ------------------------------------------------------------------------------ */

rp_status rp_front_make(rp_front *front, rp_plan *plan,
                        const rp_backend *backend) {
  rp_context *ctx = plan->ctx;
  const int64_t persistent = persistent_bytes(plan);
  rp_stretches all = {0};
  rp_candidate none = {0};
  rp_status status =
      offer(front, plan, backend, persistent, &none, RP_OK);
  const int64_t most =
      status == RP_OK ? front->points.at[0].peak_bytes - persistent : 0;
  if (status == RP_OK) status = rp_stretches_make(&all, plan, backend);
  if (status == RP_OK)
    status = offer_layers(front, plan, backend, persistent);
  if (status == RP_OK)
    status = offer_options(front, plan, backend, persistent, &all);
  if (status == RP_OK)
    status = offer_pieces(front, plan, backend, persistent, &all);
  if (status == RP_OK)
    status = offer_table(front, plan, backend, persistent, &all, most);
  if (status == RP_OK)
    status = refine(front, plan, backend, persistent, &all);
  rp_stretches_free(&all, ctx);
  if (status != RP_OK) rp_front_free(front, ctx);
  return status;
}

void rp_front_free(rp_front *front, rp_context *ctx) {
  for (int32_t i = 0; i < front->points.n; i++)
    candidate_free(&front->points.at[i], ctx);
  rp_array_free(ctx, &front->points, sizeof(rp_candidate));
}

static rp_status ensure_front(rp_plan *plan) {
  if (plan->front) return RP_OK;
  rp_front *front = rp_alloc(plan->ctx, sizeof *front);
  if (front == NULL) return RP_NOMEM;
  const rp_status status = rp_front_make(front, plan, plan->backend);
  if (status == RP_OK) plan->front = front;
  else rp_free(plan->ctx, front, sizeof *front);
  return status;
}

int rp_plan_front(rp_plan *plan) {
  return ensure_front(plan) == RP_OK ? plan->front->points.n : -1;
}

rp_status rp_plan_front_point(rp_plan *plan, int i, rp_front_point *out) {
  const rp_status status = ensure_front(plan);
  if (status != RP_OK) return status;
  if (i < 0 || i >= plan->front->points.n)
    return rp_fail(plan->ctx, RP_VALUE, "point %d of the front: there are %d",
                   i + 1, (int)plan->front->points.n);
  const rp_candidate *point = &plan->front->points.at[i];
  *out = (rp_front_point){.peak_bytes = point->peak_bytes,
                          .seconds = point->seconds,
                          .segments = point->segments.at,
                          .n_segments = point->segments.n};
  return RP_OK;
}

void rp_plan_front_free(rp_plan *plan) {
  if (plan->front == NULL) return;
  rp_front_free(plan->front, plan->ctx);
  rp_free(plan->ctx, plan->front, sizeof *plan->front);
  plan->front = NULL;
}
