/* The context: what would otherwise be global. Base owns the accounts and
   the messages; later stages hang their state here and free it in
   exec/context.c, the only file that knows all of them. */
#ifndef RP_BASE_CONTEXT_H
#define RP_BASE_CONTEXT_H

#include "base/memory.h"
#include "base/status.h"

enum { RP_MESSAGE_SIZE = 1024, RP_NOTICES = 8, RP_NOTICE_SIZE = 400 };

struct rp_context {
  rp_status status;
  char message[RP_MESSAGE_SIZE];
  struct {
    char text[RP_NOTICES][RP_NOTICE_SIZE];
    char taken[RP_NOTICE_SIZE];
    int first, count;
  } notices;
  rp_accounts accounts;
  uint64_t seed;
  int threads;
  int32_t anomaly;    /* rp_anomaly: what runs look for */
  bool verify_replay;
  rp_rates rates;     /* 0: the backend's */
  bool fuses;   /* rp_fusion_enable */
  bool gathers; /* rp_gathering_enable */

  rp_device *devices[RP_DEVICES]; /* exec/device.c; by slot, NULL: not open */
  struct rp_recorder *recorder; /* graph/record.c */
  struct rp_plans *plans;       /* exec/cache.c */
  struct rp_trace *trace;       /* exec/trace.c, NULL: off */
};

#endif
