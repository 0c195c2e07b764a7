/* When each instruction of the last run started and ended, for those who ask:
   off by default, and then a run pays one test an instruction.

   Invariant: stamps has room for 2 * room entries; those of instruction i are
   2i (start) and 2i + 1 (end), in nanoseconds of the monotonic clock, both 0
   for a FREE, which takes no time. */
#ifndef RP_EXEC_TRACE_H
#define RP_EXEC_TRACE_H

#include <stdint.h>

#include "reprise.h"

typedef struct rp_trace {
  int64_t *stamps;
  int32_t n, room; /* instructions of the last run, and the most so far */
} rp_trace;

/* Room for a run of n instructions, all 0; nothing where tracing is off. */
rp_status rp_trace_begin(rp_context *ctx, int32_t n);
int64_t rp_trace_now(void);
static inline void rp_trace_note(rp_trace *trace, int32_t i, int64_t start_ns) {
  trace->stamps[2 * i] = start_ns;
  trace->stamps[2 * i + 1] = rp_trace_now();
}

#endif
