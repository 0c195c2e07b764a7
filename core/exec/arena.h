/* The arena: one block a context, as large as the largest program that has
   run needs; reused by the next. Nothing in it outlives a program. */
#ifndef RP_EXEC_ARENA_H
#define RP_EXEC_ARENA_H

#include "base/memory.h"

typedef struct rp_arena {
  void *data;
  int64_t size;
} rp_arena;

/* Makes it at least size_bytes: the old block is given back before the new
   one is asked for, so both are never held. RP_NOMEM: no arena. */
rp_status rp_arena_reserve(rp_context *ctx, int64_t size_bytes);

#endif
