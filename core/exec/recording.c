#include "exec/recording.h"

#include <string.h>

#include "exec/backend.h"

static void forget(rp_recording *recording, rp_device *device, int32_t n) {
  if (recording->made) device->backend->forget(device, recording->made);
  rp_free(device->ctx, recording->addresses, (size_t)n * sizeof(void *));
  *recording = (rp_recording){0};
}

void *rp_recordings_find(rp_recordings *all, void *const *addresses,
                         int32_t n) {
  all->runs++;
  for (int i = 0; i < RP_RECORDINGS; i++) {
    rp_recording *recording = &all->at[i];
    if (recording->made == NULL ||
        memcmp(recording->addresses, addresses, (size_t)n * sizeof(void *)))
      continue;
    recording->used = all->runs;
    return recording->made;
  }
  return NULL;
}

rp_status rp_recordings_add(rp_recordings *all, rp_device *device, void *made,
                            void *const *addresses, int32_t n) {
  rp_recording *oldest = &all->at[0];
  for (int i = 1; i < RP_RECORDINGS; i++)
    if (all->at[i].used < oldest->used) oldest = &all->at[i];
  forget(oldest, device, n);
  oldest->addresses = rp_alloc(device->ctx, (size_t)n * sizeof(void *));
  if (oldest->addresses == NULL) {
    device->backend->forget(device, made);
    return RP_NOMEM;
  }
  memcpy(oldest->addresses, addresses, (size_t)n * sizeof(void *));
  oldest->made = made;
  oldest->used = all->runs;
  all->n_addresses = n;
  return RP_OK;
}

void rp_recordings_free(rp_recordings *all, rp_device *device) {
  for (int i = 0; i < RP_RECORDINGS; i++)
    forget(&all->at[i], device, all->n_addresses);
}
