/* A state of the search on single values and what its program costs; see
   gaps.c for what a state is, ladder.c for the search. */
#ifndef RP_PLAN_GAPS_H
#define RP_PLAN_GAPS_H

#include "plan/front.h"

enum { RP_LIMITS = 24 }; /* the ladder's steps */

typedef struct rp_gap {
  int32_t node, from, to; /* uses; to is the number of nodes at the end */
} rp_gap;

typedef struct rp_gaps {
  const rp_search *search;
  rp_context *ctx;
  const rp_graph *graph;
  RP_ARRAY(rp_gap) all;
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
  bool *best;                /* RP_LIMITS x n x n */
  double best_seconds[RP_LIMITS];
  int64_t most_bytes;        /* live bytes when all is kept */
  double all_kept_seconds;
} rp_gaps;

/* The program of the present state: live bytes, excess, seconds; remembered for
   the limits that it meets fastest, offered to the front when nothing there
   beats it. */
rp_status rp_gaps_evaluate(rp_gaps *g);
int64_t rp_gaps_limit(const rp_gaps *g, int32_t l);
/* Fills in gaps and pinned. */
rp_status rp_gaps_find(rp_gaps *g);

#endif
