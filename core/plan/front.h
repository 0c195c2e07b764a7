/* The time-memory front of a graph: candidate plans, made without looking at
   any budget, each laid out exactly; those that no other beats in both peak
   and time. A budget takes the fastest that fits; the front is the curve. */
#ifndef RP_PLAN_FRONT_H
#define RP_PLAN_FRONT_H

#include "plan/plan.h"

/* Segments with a list of kept nodes of their own, or an explicit list. */
typedef struct rp_candidate {
  RP_ARRAY(rp_segment) segments; /* keep: index into keeps until settled */
  RP_ARRAY(int32_t) keeps;
  RP_ARRAY(int32_t) steps;       /* when not empty: as for _set_program */
  char name[40];                 /* when from outside */
  int64_t peak_bytes;
  double seconds;
} rp_candidate;

void rp_candidate_free(rp_candidate *c, rp_context *ctx);
/* Adds a segment; its keep list is an index until rp_front_offer. */
rp_status rp_candidate_add(rp_candidate *c, rp_context *ctx, int32_t first,
                           int32_t last, int32_t parent, const int32_t *keep,
                           int32_t n_keep);
void rp_candidate_settle(rp_candidate *c);

/* A candidate from outside that is no plan of the graph. */
typedef struct rp_left_out {
  char text[200]; /* its name and the reason */
} rp_left_out;

typedef struct rp_front rp_front;
struct rp_front {
  RP_ARRAY(rp_candidate) points; /* peak rising, seconds falling */
  RP_ARRAY(rp_left_out) left_out;
  rp_front_chain chain;
  int64_t none_bytes;            /* the peak of `none`, front or not */
  int32_t evaluations;
};

rp_status rp_front_make(rp_front *front, rp_plan *plan);
void rp_front_free(rp_front *front, rp_context *ctx);

/* Blocks of the graph with their options, in slots of slot_bytes. */
typedef struct rp_stretch {
  int32_t first, last; /* forward nodes */
  int32_t n_options;
  struct {
    int32_t *keep;     /* nodes; NULL and n -1: everything */
    int32_t n;
    int64_t kept_bytes, restored_bytes;
    double seconds;
  } options[12];
  int64_t input_bytes, output_bytes, forward_bytes, backward_bytes;
  double forward_seconds;
} rp_stretch;

typedef RP_ARRAY(rp_stretch) rp_stretches;

/* Each stretch is `each` blocks of the view. */
rp_status rp_stretches_make(rp_stretches *all, rp_plan *plan, int32_t each);
void rp_stretches_free(rp_stretches *all, rp_context *ctx);

/* The making of a front. */
typedef struct rp_search {
  rp_front *front;
  rp_plan *plan;
  int64_t persistent_bytes;
  rp_stretches stretches;
} rp_search;

/* Is a plan of at least this peak, and of this time, beaten already? */
bool rp_front_beats(const rp_front *front, int64_t peak_bytes,
                    double seconds);
/* Takes c, made with this status, into the front or frees it. */
rp_status rp_front_offer(const rp_search *search, rp_candidate *c,
                         rp_status status);

/* Cuts the graph into stretches: blocks, merged where a table of so many that
   differ is too large (plan/table.c). most_bytes: of the arena under none. */
rp_status rp_front_cut(rp_search *search, int64_t most_bytes);
/* Candidates from options and layers (plan/candidates.c), from the chain
   programme's table (plan/table.c); by local search on segments
   (plan/refine.c) and on gaps (plan/gaps.c). */
rp_status rp_front_offer_plain(const rp_search *search);
/* Merges the stretches of a long chain to a few, in the end, which are the
   search's from then on. */
rp_status rp_front_offer_table(rp_search *search, int64_t most_bytes);
rp_status rp_front_refine(const rp_search *search);
rp_status rp_front_search_gaps(const rp_search *search);

#endif
