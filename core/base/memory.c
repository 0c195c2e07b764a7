#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/context.h"

/* Counts a request and says whether fault injection wants it refused. */
static bool refused(rp_accounts *accounts) {
  accounts->requests++;
  return accounts->fail_at > 0 && --accounts->fail_at == 0;
}

static void charge(rp_accounts *accounts, rp_account account, int64_t bytes) {
  accounts->bytes[account] += bytes;
  if (accounts->bytes[account] > accounts->peak[account])
    accounts->peak[account] = accounts->bytes[account];
}

void *rp_storage_alloc(rp_context *ctx, int64_t size) {
  const int64_t taken = rp_align(size);
  void *p = NULL;
  if (!refused(&ctx->accounts))
    p = aligned_alloc(RP_ALIGN, (size_t)(taken ? taken : RP_ALIGN));
  if (p == NULL) {
    rp_fail(ctx, RP_NOMEM,
            "out of memory: %lld bytes of storage refused (%lld held)",
            (long long)size, (long long)ctx->accounts.bytes[RP_STORAGE]);
    return NULL;
  }
  charge(&ctx->accounts, RP_STORAGE, taken);
  return p;
}

void rp_storage_free(rp_context *ctx, void *p, int64_t size) {
  if (p == NULL) return;
  ctx->accounts.bytes[RP_STORAGE] -= rp_align(size);
  free(p);
}

static void *no_memory(rp_context *ctx, size_t size) {
  rp_fail(ctx, RP_NOMEM, "out of memory: %zu bytes for recipes refused", size);
  return NULL;
}

void *rp_alloc(rp_context *ctx, size_t size) {
  void *p = refused(&ctx->accounts) ? NULL : calloc(1, size ? size : 1);
  if (p == NULL) return no_memory(ctx, size);
  charge(&ctx->accounts, RP_RECIPES, (int64_t)size);
  return p;
}

void *rp_grow(rp_context *ctx, void *p, size_t old_size, size_t size) {
  void *grown = refused(&ctx->accounts) ? NULL : realloc(p, size ? size : 1);
  if (grown == NULL) return no_memory(ctx, size);
  if (size > old_size) memset((char *)grown + old_size, 0, size - old_size);
  charge(&ctx->accounts, RP_RECIPES, (int64_t)size - (int64_t)old_size);
  return grown;
}

void rp_free(rp_context *ctx, void *p, size_t size) {
  if (p == NULL) return;
  ctx->accounts.bytes[RP_RECIPES] -= (int64_t)size;
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
