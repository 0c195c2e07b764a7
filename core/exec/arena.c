#include "exec/arena.h"

#include "base/context.h"

void rp_arena_release(rp_context *ctx) {
  rp_storage_free(ctx, ctx->arena->data, ctx->arena->size);
  *ctx->arena = (rp_arena){0};
}

rp_status rp_arena_reserve(rp_context *ctx, int64_t size_bytes) {
  if (ctx->arena->size >= size_bytes) return RP_OK;
  rp_arena_release(ctx);
  ctx->arena->data = rp_storage_alloc(ctx, size_bytes);
  if (ctx->arena->data == NULL) return RP_NOMEM;
  ctx->arena->size = rp_align(size_bytes);
  return RP_OK;
}
