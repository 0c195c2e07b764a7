/* Local search on segments: moves from the points of the front, each judged by
   its laid-out program. */
#include <string.h>

#include "base/context.h"
#include "plan/front.h"

/* What refinement may spend: evaluations, and nodes looked at by them,
   whichever ends first. Both are stated, so a plan is the same on every
   machine. */
enum { REFINEMENTS = 600 };
static const double REFINED_NODES = 1.1e6;

/* ---- refinement --------------------------------------------------------- */

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
    status = rp_candidate_add(to, ctx, s->first, s->last, parent, s->keep,
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
    status = rp_candidate_add(to, ctx, s->first, s->last, s->parent,
                         i == at ? keep : s->keep, i == at ? n : s->n_keep);
  }
  return status;
}

/* The moves from one point: leave a segment out; another kept set for a
   segment that is one stretch; one kept node more or less. */
static rp_status refine_point(const rp_search *search,
                              const rp_candidate *point, int32_t budget) {
  const rp_stretches *all = &search->stretches;
  rp_front *front = search->front;
  rp_context *ctx = search->plan->ctx;
  const int32_t end = front->evaluations + budget;
  rp_status status = RP_OK;
  for (int32_t s = 0; s < point->segments.n && status == RP_OK; s++) {
    if (front->evaluations >= end) break;
    rp_candidate less = {0};
    status = copy_without(&less, ctx, point, s);
    status = rp_front_offer(search, &less, status);
    const rp_segment *segment = &point->segments.at[s];
    const rp_stretch *stretch = stretch_of(all, segment);
    if (stretch == NULL || !is_leaf_segment(point, s)) continue;
    for (int32_t k = 1; k < stretch->n_options && status == RP_OK &&
                        front->evaluations < end; k++) {
      rp_candidate other = {0};
      status = copy_with_keep(&other, ctx, point, s, stretch->options[k].keep,
                              stretch->options[k].n);
      status = rp_front_offer(search, &other, status);
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
      status = rp_front_offer(search, &other, status);
    }
  }
  return status;
}

/* The moves from point i of the front, on a copy: the points move when better
   ones come in. What they cost is taken from *left. */
static rp_status refine_at(const rp_search *search, int32_t i, int32_t budget,
                           int32_t *left) {
  rp_context *ctx = search->plan->ctx;
  rp_front *front = search->front;
  rp_candidate point = {0};
  rp_status status = copy_without(&point, ctx, &front->points.at[i], -1);
  if (status == RP_OK) rp_candidate_settle(&point);
  const int32_t before = front->evaluations;
  if (status == RP_OK)
    status = refine_point(search, &point, budget < *left ? budget : *left);
  *left -= front->evaluations - before;
  rp_candidate_free(&point, ctx);
  return status;
}

/* From the point of least memory, while that lowers it: what it needs decides
   which budgets can be met at all. */
static rp_status refine_least(const rp_search *search, int32_t budget) {
  rp_front *front = search->front;
  int64_t before = INT64_MAX;
  rp_status status = RP_OK;
  while (status == RP_OK && budget > 0 &&
         front->points.at[0].peak_bytes < before) {
    before = front->points.at[0].peak_bytes;
    status = refine_at(search, 0, budget, &budget);
  }
  return status;
}

/* The least point, then rounds over all there are, while there is budget. */
rp_status rp_front_refine(const rp_search *search) {
  rp_front *front = search->front;
  int32_t left = REFINEMENTS;
  const int32_t affordable =
      (int32_t)(REFINED_NODES / (search->plan->graph.nodes.n + 1));
  if (affordable < left) left = affordable;
  rp_status status = refine_least(search, left / 4);
  left -= left / 4;
  for (int round = 0; round < 3 && left > 0 && status == RP_OK; round++) {
    const int32_t n = front->points.n;
    const int32_t each = left / (n * (3 - round)) + 1;
    for (int32_t i = 0; i < n && left > 0 && status == RP_OK; i++) {
      if (i >= front->points.n) break;
      status = refine_at(search, i, each, &left);
    }
  }
  return status;
}
