/* Which instances' bytes are taken, by their places in the arena: a set over
   instances whose offsets are known from the start, in order of offset. */
#ifndef RP_PLAN_TAKEN_H
#define RP_PLAN_TAKEN_H

#include "base/memory.h"

enum { RP_TAKEN_LEVELS = 6 }; /* 64^6 > INT32_MAX */

typedef struct rp_taken {
  int32_t *instance_at; /* by rank: offset, then number */
  int32_t *rank_of;     /* by instance */
  const int64_t *offsets;
  int32_t n;
  /* Bit i of level l + 1: word i of level l is not 0; level 0: by rank. */
  uint64_t *words;
  int32_t first[RP_TAKEN_LEVELS + 1]; /* of each level, in words */
  int32_t levels;
} rp_taken;

/* Empty; offsets are borrowed. */
rp_status rp_taken_open(rp_taken *taken, rp_context *ctx,
                        const int64_t *offsets, int32_t n);
void rp_taken_close(rp_taken *taken, rp_context *ctx);
void rp_taken_put(rp_taken *taken, int32_t instance);
/* Of one that is not in it: nothing. */
void rp_taken_drop(rp_taken *taken, int32_t instance);
/* The instance that is last in order among those in front of `offset`, or
   among those before an instance; -1. */
int32_t rp_taken_below(const rp_taken *taken, int64_t offset);
int32_t rp_taken_before(const rp_taken *taken, int32_t instance);

#endif
