/* The accounted allocator: every byte the library holds is asked for here.
   Each device has an account of storage (leaf bytes, held values, the arena:
   what a plan predicts); the context has one of recipes (nodes, plans, tables:
   the rest).
   Invariant: an account's bytes equal the sum of sizes handed out and not
   freed; the peak is its running maximum since the last reset. */
#ifndef RP_BASE_MEMORY_H
#define RP_BASE_MEMORY_H

#include "base/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rp_accounts {
  rp_account recipes;
  int64_t requests, fail_at;
} rp_accounts;

/* Aligned bytes for storage, or NULL with RP_NOMEM said. The device's account
   is charged rp_device_align(size). Size 0 returns a pointer that may be
   freed. */
void *rp_storage_alloc(rp_device *device, int64_t size);
void rp_storage_free(rp_device *device, void *p, int64_t size);
/* The device's arena is then of at least that size, aligned. RP_NOMEM: there
   is none. */
rp_status rp_arena_resize(rp_device *device, int64_t size);

/* Zeroed, resizable blocks for everything else. NULL with RP_NOMEM said;
   rp_grow leaves the old block valid when it fails. */
void *rp_alloc(rp_context *ctx, size_t size);
void *rp_grow(rp_context *ctx, void *p, size_t old_size, size_t size);
void rp_free(rp_context *ctx, void *p, size_t size);

/* A growing array of T: {T *at; int n, capacity;} */
#define RP_ARRAY(T) struct { T *at; int32_t n, capacity; }
/* Makes room for one more; false with RP_NOMEM said. */
bool rp_array_room(rp_context *ctx, void *array, size_t element_size,
                   int32_t more);
void rp_array_free(rp_context *ctx, void *array, size_t element_size);

#ifdef __cplusplus
}
#endif

#endif
