/* Loops over OpenMP threads in pieces whose bounds depend on the problem
   alone, so that any number of threads gives the same bits.
   A kernel splits its work into `n` independent items (rows, tiles); each
   item writes its own outputs; sums across items are taken in item order by
   one thread. */
#ifndef RP_CPU_PARALLEL_H
#define RP_CPU_PARALLEL_H

#include <omp.h>
#include <stdint.h>

/* Elements below which a loop stays on one thread: a fork costs about as
   much as touching this many. */
enum { RP_PARALLEL_MIN = 16384, RP_TILE = 4096 };

/* Use as: #pragma omp parallel for schedule(static) if (rp_worth(total)) */
static inline int rp_worth(int64_t elements) {
  return elements >= RP_PARALLEL_MIN;
}

#endif
