/* What is looked at while a program runs, where it is switched on: values
   that are not finite, and replays that differ from the first run.

   A watched program runs its effects last (rp_graph.effects_last), so a
   failure that is found here has changed no leaf. */
#ifndef RP_EXEC_WATCH_H
#define RP_EXEC_WATCH_H

#include "exec/cache.h"

/* Borrows all but prints. prints[v] is of value v's first run, by graph value;
   leaf_prints by graph leaf, of its bytes before the first instruction. Both
   are NULL where replays are not verified. */
typedef struct rp_watch {
  const rp_plan *plan;
  const rp_bindings *bindings;
  void *const *leaf_data;
  bool *replayed; /* by node */
  uint64_t *prints, *leaf_prints;
  void *copy;      /* of what lies on a device, for the host to look at */
  int64_t copy_bytes;
  int32_t anomaly; /* rp_anomaly */
} rp_watch;

/* Whether ctx watches at all: part of a plan's key. */
bool rp_watches(const rp_context *ctx);
/* RP_NOMEM. */
rp_status rp_watch_open(rp_watch *watch, const rp_plan *plan,
                        const rp_bindings *bindings, void *const *leaf_data);
/* Looks at what instruction `at`, a RUN of the plan, has just made. out is
   its outputs. RP_VALUE for an anomaly, RP_INTERNAL for a replay that
   differs. */
rp_status rp_watch_outputs(rp_watch *watch, int32_t at, const rp_array *out);
void rp_watch_close(rp_watch *watch);

/* A fingerprint of the bytes: arrays that differ in one 8-byte word alone
   never share theirs, others do with probability 2^-64. The same for any
   number of threads. */
uint64_t rp_fingerprint(const void *data, int64_t size_bytes);

#endif
