#include "plan/front.h"

#include <stdio.h>
#include <string.h>

#include "base/context.h"

/* ---- candidates --------------------------------------------------------- */

void rp_candidate_free(rp_candidate *c, rp_context *ctx) {
  rp_array_free(ctx, &c->segments, sizeof(rp_segment));
  rp_array_free(ctx, &c->keeps, sizeof(int32_t));
  rp_array_free(ctx, &c->steps, sizeof(int32_t));
}

rp_status rp_candidate_add(rp_candidate *c, rp_context *ctx, int32_t first,
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

void rp_candidate_settle(rp_candidate *c) {
  for (int32_t i = 0; i < c->segments.n; i++)
    c->segments.at[i].keep =
        c->keeps.at + (intptr_t)c->segments.at[i].keep;
}

/* ---- the front ---------------------------------------------------------- */

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
    rp_candidate_free(c, ctx);
    return RP_OK;
  }
  int32_t end = at; /* those it beats */
  while (end < front->points.n &&
         front->points.at[end].seconds >= c->seconds)
    rp_candidate_free(&front->points.at[end++], ctx);
  if (end == at &&
      !rp_array_room(ctx, &front->points, sizeof(rp_candidate), 1)) {
    rp_candidate_free(c, ctx);
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

/* The peak that a plan of this time must stay below to be worth having. */
static int64_t useful_bytes(const rp_front *front, double seconds) {
  for (int32_t i = 0; i < front->points.n; i++)
    if (front->points.at[i].seconds <= seconds)
      return front->points.at[i].peak_bytes;
  return INT64_MAX;
}

bool rp_front_beats(const rp_front *front, int64_t peak_bytes,
                    double seconds) {
  return useful_bytes(front, seconds) <= peak_bytes;
}

static rp_status make_program(const rp_plan *plan, const rp_candidate *c,
                              rp_program *program) {
  rp_context *ctx = plan->ctx;
  if (c->steps.n > 0)
    return rp_schedule_list(program, ctx, &plan->graph, c->steps.at,
                            c->steps.n);
  rp_tree tree = {0};
  rp_status status = rp_tree_build(&tree, ctx, &plan->graph, c->segments.at,
                                   c->segments.n);
  if (status == RP_OK)
    status = rp_schedule_tree(program, ctx, &plan->graph, &tree);
  rp_tree_free(&tree, ctx);
  return status;
}

/* Exact peak and time: schedule, layout; the layout only as far as it does
   not say that c is beaten. Its live bytes, which bound it from below, come
   first. */
static rp_status evaluate(const rp_search *search, rp_candidate *c,
                          bool *beaten) {
  const rp_plan *plan = search->plan;
  rp_context *ctx = plan->ctx;
  rp_program program = {0};
  rp_layout layout = {0};
  int64_t live_bytes = 0;
  rp_status status = make_program(plan, c, &program);
  if (status == RP_OK)
    status = rp_layout_bound(&live_bytes, ctx, &plan->graph, &program,
                             plan->workspace_bytes);
  c->seconds = 0;
  for (int32_t i = 0; i < program.instructions.n; i++)
    if (program.instructions.at[i].opcode == RP_OP_RUN)
      c->seconds += plan->seconds[program.instructions.at[i].node];
  const int64_t useful = useful_bytes(search->front, c->seconds);
  const int64_t most_bytes = useful - search->persistent_bytes - 1;
  *beaten = status != RP_OK || live_bytes > most_bytes;
  if (!*beaten)
    status = rp_layout_make(&layout, ctx, &plan->graph, &program,
                            plan->workspace_bytes, most_bytes);
  *beaten |= layout.arena_bytes > most_bytes;
  c->peak_bytes = search->persistent_bytes + (*beaten ? 0 : layout.arena_bytes);
  rp_layout_free(&layout, ctx);
  rp_program_free(&program, ctx);
  return status;
}

rp_status rp_front_offer(const rp_search *search, rp_candidate *c,
                         rp_status status) {
  bool beaten = true;
  if (status == RP_OK) {
    rp_candidate_settle(c);
    status = evaluate(search, c, &beaten);
    search->front->evaluations++;
  }
  if (status == RP_OK && !beaten)
    return insert(search->front, search->plan->ctx, c);
  rp_candidate_free(c, search->plan->ctx);
  return status;
}

/* ---- candidates from outside -------------------------------------------- */

static rp_status copy_segments(rp_candidate *c, rp_context *ctx,
                               const rp_segment *segments, int n_segments) {
  rp_status status = RP_OK;
  for (int i = 0; i < n_segments && status == RP_OK; i++)
    status = rp_candidate_add(c, ctx, segments[i].first, segments[i].last,
                              segments[i].parent, segments[i].keep,
                              segments[i].n_keep);
  if (status != RP_OK) rp_candidate_free(c, ctx);
  return status;
}

/* What has been offered so far, NULL without memory. */
static rp_front *offers(rp_plan *plan) {
  if (plan->offered == NULL)
    plan->offered = rp_alloc(plan->ctx, sizeof *plan->offered);
  return plan->offered;
}

/* Keeps c, made with this status, for the front to take, or frees it. */
static rp_status keep_offered(rp_plan *plan, const char *name, rp_candidate *c,
                              rp_status status) {
  rp_context *ctx = plan->ctx;
  rp_front *offered = offers(plan);
  if (status == RP_OK &&
      (offered == NULL ||
       !rp_array_room(ctx, &offered->points, sizeof(rp_candidate), 1)))
    status = RP_NOMEM;
  if (status == RP_OK) {
    snprintf(c->name, sizeof c->name, "%s", name);
    offered->points.at[offered->points.n++] = *c;
  } else {
    rp_candidate_free(c, ctx);
  }
  return status;
}

rp_status rp_plan_front_offer(rp_plan *plan, const char *name,
                              const rp_segment *segments, int n_segments) {
  if (plan->front) return RP_OK;
  rp_candidate c = {0};
  const rp_status status = copy_segments(&c, plan->ctx, segments, n_segments);
  return status == RP_OK ? keep_offered(plan, name, &c, status) : status;
}

rp_status rp_plan_front_offer_program(rp_plan *plan, const char *name,
                                      const int32_t *steps, int n_steps) {
  if (plan->front) return RP_OK;
  rp_candidate c = {0};
  rp_status status = RP_NOMEM;
  if (rp_array_room(plan->ctx, &c.steps, sizeof *steps, n_steps)) {
    memcpy(c.steps.at, steps, (size_t)n_steps * sizeof *steps);
    c.steps.n = n_steps;
    status = RP_OK;
  }
  return keep_offered(plan, name, &c, status);
}

static rp_status leave_out(rp_front *front, rp_context *ctx, const char *name,
                           const char *reason) {
  if (!rp_array_room(ctx, &front->left_out, sizeof(rp_left_out), 1))
    return RP_NOMEM;
  rp_left_out *left_out = &front->left_out.at[front->left_out.n++];
  snprintf(left_out->text, sizeof left_out->text, "%.39s: %.150s", name,
           reason);
  return RP_OK;
}

rp_status rp_plan_front_leave_out(rp_plan *plan, const char *name,
                                  const char *reason) {
  if (plan->front) return RP_OK;
  rp_front *offered = offers(plan);
  return offered ? leave_out(offered, plan->ctx, name, reason) : RP_NOMEM;
}

/* The front takes what was offered; it is gone afterwards. */
static rp_status take_offered(const rp_search *search) {
  rp_context *ctx = search->plan->ctx;
  rp_front *front = search->front, *offered = search->plan->offered;
  rp_status status = RP_OK;
  if (offered == NULL) return status;
  front->left_out = offered->left_out;
  memset(&offered->left_out, 0, sizeof offered->left_out);
  for (int32_t i = 0; i < offered->points.n && status == RP_OK; i++) {
    rp_candidate c = offered->points.at[i];
    offered->points.at[i] = (rp_candidate){0};
    status = rp_front_offer(search, &c, RP_OK);
    if (status == RP_OK || status == RP_NOMEM) continue;
    status = leave_out(front, ctx, c.name, ctx->message);
  }
  return status;
}

/* ---- entry -------------------------------------------------------------- */

rp_status rp_front_make(rp_front *front, rp_plan *plan) {
  rp_context *ctx = plan->ctx;
  rp_search search = {.front = front, .plan = plan,
                      .persistent_bytes = persistent_bytes(plan)};
  rp_candidate none = {0};
  rp_status status = rp_front_offer(&search, &none, RP_OK);
  if (status == RP_OK) front->none_bytes = front->points.at[0].peak_bytes;
  const int64_t arena_bytes = front->none_bytes - search.persistent_bytes;
  if (status == RP_OK) status = take_offered(&search);
  if (status == RP_OK) status = rp_front_cut(&search, arena_bytes);
  if (status == RP_OK) status = rp_front_offer_table(&search, arena_bytes);
  if (status == RP_OK) status = rp_front_offer_plain(&search);
  if (status == RP_OK) status = rp_front_refine(&search);
  if (status == RP_OK) status = rp_front_search_gaps(&search);
  rp_stretches_free(&search.stretches, ctx);
  if (status != RP_OK) rp_front_free(front, ctx);
  return status;
}

void rp_front_free(rp_front *front, rp_context *ctx) {
  for (int32_t i = 0; i < front->points.n; i++)
    rp_candidate_free(&front->points.at[i], ctx);
  rp_array_free(ctx, &front->points, sizeof(rp_candidate));
  rp_array_free(ctx, &front->left_out, sizeof(rp_left_out));
}

static void free_front(rp_front **front, rp_context *ctx) {
  if (*front == NULL) return;
  rp_front_free(*front, ctx);
  rp_free(ctx, *front, sizeof **front);
  *front = NULL;
}

static rp_status ensure_front(rp_plan *plan) {
  if (plan->front) return RP_OK;
  rp_front *front = rp_alloc(plan->ctx, sizeof *front);
  if (front == NULL) return RP_NOMEM;
  const rp_status status = rp_front_make(front, plan);
  free_front(&plan->offered, plan->ctx);
  if (status == RP_OK) plan->front = front;
  else rp_free(plan->ctx, front, sizeof *front);
  return status;
}

rp_status rp_plan_front_chain(rp_plan *plan, rp_front_chain *out) {
  const rp_status status = ensure_front(plan);
  if (status == RP_OK) *out = plan->front->chain;
  return status;
}

const char *rp_plan_front_left_out(rp_plan *plan, int i) {
  if (ensure_front(plan) != RP_OK) return NULL;
  const rp_front *front = plan->front;
  return i >= 0 && i < front->left_out.n ? front->left_out.at[i].text : NULL;
}

bool rp_plan_has_front(const rp_plan *plan) { return plan->front != NULL; }

int64_t rp_plan_none_bytes(rp_plan *plan) {
  return ensure_front(plan) == RP_OK ? plan->front->none_bytes : -1;
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
                          .n_segments = point->segments.n,
                          .steps = point->steps.at,
                          .n_steps = point->steps.n};
  return RP_OK;
}

rp_status rp_plan_evaluate(rp_plan *plan, rp_front_point *point) {
  rp_front none = {0};
  const rp_search search = {.front = &none, .plan = plan,
                            .persistent_bytes = persistent_bytes(plan)};
  /* Borrowed: an evaluation changes neither. */
  rp_candidate c = {0};
  c.segments.at = (rp_segment *)point->segments;
  c.segments.n = point->n_segments;
  c.steps.at = (int32_t *)point->steps;
  c.steps.n = point->n_steps;
  bool beaten;
  const rp_status status = evaluate(&search, &c, &beaten);
  if (status != RP_OK) return status;
  point->peak_bytes = c.peak_bytes;
  point->seconds = c.seconds;
  return RP_OK;
}

void rp_plan_front_free(rp_plan *plan) {
  free_front(&plan->offered, plan->ctx);
  free_front(&plan->front, plan->ctx);
}
