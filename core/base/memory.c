#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/context.h"

/* Counts a request and says whether fault injection wants it refused. */
static bool refused(rp_accounts *accounts) {
  accounts->requests++;
  return accounts->fail_at > 0 && --accounts->fail_at == 0;
}

static void charge(rp_account *account, int64_t bytes) {
  account->bytes += bytes;
  if (account->bytes > account->peak) account->peak = account->bytes;
}

/* ---- storage ------------------------------------------------------------- */

static rp_status no_storage(const rp_device *device, int64_t size) {
  const bool named = device->slot != RP_CPU;
  return rp_fail(device->ctx, RP_NOMEM,
                 "out of memory%s%s: %lld bytes of storage refused (%lld held)",
                 named ? " on " : "", named ? device->name : "",
                 (long long)size, (long long)device->storage.bytes);
}

void *rp_storage_alloc(rp_device *device, int64_t size) {
  const int64_t taken = rp_device_align(device, size);
  void *p = refused(&device->ctx->accounts)
                ? NULL : device->memory->alloc(device, taken);
  if (p == NULL) {
    no_storage(device, size);
    return NULL;
  }
  charge(&device->storage, taken);
  return p;
}

void rp_storage_free(rp_device *device, void *p, int64_t size) {
  if (p == NULL) return;
  const int64_t taken = rp_device_align(device, size);
  device->storage.bytes -= taken;
  device->memory->release(device, p, taken);
}

rp_status rp_arena_resize(rp_device *device, int64_t size) {
  const int64_t taken = rp_device_align(device, size);
  const int64_t before = device->arena.size;
  device->storage.bytes -= before;
  device->arena.size = 0;
  if (taken > 0 && refused(&device->ctx->accounts)) {
    device->arena.data = device->memory->resize_arena(
        device, device->arena.data, before, 0);
    return no_storage(device, size);
  }
  device->arena.data = device->memory->resize_arena(
      device, device->arena.data, before, taken);
  if (taken == 0) return RP_OK;
  if (device->arena.data == NULL) return no_storage(device, size);
  device->arena.size = taken;
  charge(&device->storage, taken);
  return RP_OK;
}

/* ---- the host's memory -------------------------------------------------- */

static void *host_alloc(rp_device *device, int64_t size) {
  (void)device;
  return aligned_alloc(RP_ALIGN, (size_t)(size ? size : RP_ALIGN));
}

static void host_release(rp_device *device, void *p, int64_t size) {
  (void)device;
  (void)size;
  free(p);
}

static void *host_resize_arena(rp_device *device, void *p, int64_t old_size,
                               int64_t size) {
  (void)old_size;
  free(p);
  return size ? host_alloc(device, size) : NULL;
}

static rp_status host_zero(rp_device *device, void *p, int64_t size) {
  (void)device;
  memset(p, 0, (size_t)size);
  return RP_OK;
}

static rp_status host_copy(rp_device *device, void *to, const void *from,
                           int64_t size) {
  (void)device;
  memcpy(to, from, (size_t)size);
  return RP_OK;
}

static rp_status host_write(rp_device *device, void *to, const void *from,
                            int64_t size, int64_t after) {
  (void)after;
  return host_copy(device, to, from, size);
}

const rp_device_memory rp_host_memory = {
    .alignment = RP_ALIGN, .is_host = true, .alloc = host_alloc,
    .release = host_release, .resize_arena = host_resize_arena,
    .zero = host_zero, .write = host_write, .read = host_copy,
    .copy = host_copy,
};

/* ---- recipes ------------------------------------------------------------ */

static void *no_memory(rp_context *ctx, size_t size) {
  rp_fail(ctx, RP_NOMEM, "out of memory: %zu bytes for recipes refused", size);
  return NULL;
}

void *rp_alloc(rp_context *ctx, size_t size) {
  void *p = refused(&ctx->accounts) ? NULL : calloc(1, size ? size : 1);
  if (p == NULL) return no_memory(ctx, size);
  charge(&ctx->accounts.recipes, (int64_t)size);
  return p;
}

void *rp_grow(rp_context *ctx, void *p, size_t old_size, size_t size) {
  void *grown = refused(&ctx->accounts) ? NULL : realloc(p, size ? size : 1);
  if (grown == NULL) return no_memory(ctx, size);
  if (size > old_size) memset((char *)grown + old_size, 0, size - old_size);
  charge(&ctx->accounts.recipes, (int64_t)size - (int64_t)old_size);
  return grown;
}

void rp_free(rp_context *ctx, void *p, size_t size) {
  if (p == NULL) return;
  ctx->accounts.recipes.bytes -= (int64_t)size;
  free(p);
}

/* The layout of every RP_ARRAY. */
typedef RP_ARRAY(void) any_array;

bool rp_array_room(rp_context *ctx, void *array, size_t element_size,
                   int32_t more) {
  any_array *a = array;
  const int64_t wanted = (int64_t)a->n + more;
  if (wanted <= a->capacity) return true;
  int64_t capacity = a->capacity ? a->capacity : 16;
  while (capacity < wanted) capacity *= 2;
  if (capacity > INT32_MAX) {
    no_memory(ctx, (size_t)capacity * element_size);
    return false;
  }
  void *grown = rp_grow(ctx, a->at, (size_t)a->capacity * element_size,
                        (size_t)capacity * element_size);
  if (grown == NULL) return false;
  a->at = grown;
  a->capacity = (int32_t)capacity;
  return true;
}

void rp_array_free(rp_context *ctx, void *array, size_t element_size) {
  any_array *a = array;
  rp_free(ctx, a->at, (size_t)a->capacity * element_size);
  a->at = NULL;
  a->n = a->capacity = 0;
}
