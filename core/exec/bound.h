/* What a program on a device that cannot read the host's memory is bound to
   anew for each run: draws of its random nodes, numbers, and room for small
   results. One block a plan, in storage, written before the first instruction:
   addresses stay, so what was recorded of the program stays good.

   Invariants: the block is draws (seed, number), then a slot of 64 bytes for
   each leaf that is a number, a constant or an optimizer's numbers, then a slot
   for each small result. On the host's own devices there is none: size 0. */
#ifndef RP_EXEC_BOUND_H
#define RP_EXEC_BOUND_H

#include "exec/cache.h"

enum { RP_SMALL_RESULT = 4096 };

/* Whether the leaf's bytes travel with each run. */
static inline bool rp_leaf_travels(const rp_graph_leaf *leaf) {
  return leaf->anywhere || leaf->binding < 0;
}

typedef struct rp_bound {
  rp_storage *block;
  char *host;         /* the bytes to be written: written_bytes of them */
  int64_t written_bytes, size;
} rp_bound;

/* Bytes of the block: part of the plan's peak. 0 where there is none. */
int64_t rp_bound_bytes(const rp_plan *plan);
rp_status rp_bound_open(rp_bound *bound, const rp_plan *plan);
void rp_bound_close(rp_bound *bound, rp_context *ctx);

/* Device addresses: of stream i's draw, of the first slot of a leaf (those of
   the others that travel follow, RP_SLOT bytes each, in order), of target t's
   small result (NULL where it is not small). */
const uint64_t *rp_bound_draw(const rp_bound *bound, int32_t i);
char *rp_bound_leaves(const rp_bound *bound, const rp_plan *plan);
void *rp_bound_result(const rp_bound *bound, const rp_plan *plan, int32_t t);

/* Writes this run's draws and numbers. */
rp_status rp_bound_write(rp_bound *bound, const rp_plan *plan,
                         const rp_bindings *bindings);

#endif
