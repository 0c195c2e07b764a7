/* The time-memory front of a graph: candidate plans, made without looking at
   any budget, each laid out exactly; those that no other beats in both peak
   and time. A budget takes the fastest that fits; the front is the curve. */
#ifndef RP_PLAN_FRONT_H
#define RP_PLAN_FRONT_H

#include "plan/plan.h"

/* Segments with a list of kept nodes of their own. */
typedef struct rp_candidate {
  RP_ARRAY(rp_segment) segments; /* keep: index into keeps until settled */
  RP_ARRAY(int32_t) keeps;
  int64_t peak_bytes;
  double seconds;
} rp_candidate;

typedef struct rp_front rp_front;
struct rp_front {
  RP_ARRAY(rp_candidate) points; /* peak rising, seconds falling */
  int32_t evaluations;
};

rp_status rp_front_make(rp_front *front, rp_plan *plan,
                        const rp_backend *backend);
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

rp_status rp_stretches_make(rp_stretches *all, rp_plan *plan,
                            const rp_backend *backend);
void rp_stretches_free(rp_stretches *all, rp_context *ctx);

#endif
