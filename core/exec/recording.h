/* Recordings of a program on a device that can replay them (rp_backend.record):
   noted once, then started as one. A recording holds addresses, so there is one
   for each set of addresses that the program's leaves and large results had;
   the rest of what a program touches stays where it is (exec/bound.h, the
   arena). */
#ifndef RP_EXEC_RECORDING_H
#define RP_EXEC_RECORDING_H

#include "base/memory.h"

enum { RP_RECORDINGS = 4 };

typedef struct rp_recording {
  void *made;       /* the backend's */
  void **addresses;
  uint64_t used;    /* when it was replayed last */
} rp_recording;

typedef struct rp_recordings {
  rp_recording at[RP_RECORDINGS];
  int32_t n_addresses;
  uint64_t runs;
} rp_recordings;

/* The recording made with these addresses, or NULL. */
void *rp_recordings_find(rp_recordings *all, void *const *addresses,
                         int32_t n);
/* Takes `made`; the one used longest ago goes. RP_NOMEM: it is forgotten. */
rp_status rp_recordings_add(rp_recordings *all, rp_device *device, void *made,
                            void *const *addresses, int32_t n);
void rp_recordings_free(rp_recordings *all, rp_device *device);

#endif
