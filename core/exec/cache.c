#include "exec/cache.h"

#include <string.h>

#include "base/context.h"

enum { PLANS_MAX = 64 };

void rp_binding_set_free(rp_binding_set *set, rp_context *ctx) {
  rp_bindings_free(&set->bindings, ctx);
  rp_array_free(ctx, &set->targets, sizeof(rp_tensor *));
  rp_array_free(ctx, &set->grads, sizeof(rp_tensor *));
  rp_array_free(ctx, &set->effectful, sizeof(rp_node *));
}

void rp_cache_forget_prepared(rp_context *ctx) {
  ctx->plans->prepared = NULL;
  rp_binding_set_free(&ctx->plans->set, ctx);
}

rp_plan *rp_cache_find(rp_context *ctx, const rp_key *key) {
  rp_plans *all = ctx->plans;
  for (int32_t i = all->plans.n - 1; i >= 0; i--) {
    rp_plan *plan = all->plans.at[i];
    if (!rp_key_equal(&plan->key, key)) continue;
    memmove(&all->plans.at[i], &all->plans.at[i + 1],
            (size_t)(all->plans.n - 1 - i) * sizeof plan);
    return all->plans.at[all->plans.n - 1] = plan;
  }
  return NULL;
}

static void remove_at(rp_context *ctx, int32_t i) {
  rp_plans *all = ctx->plans;
  rp_plan *plan = all->plans.at[i];
  if (all->prepared == plan) rp_cache_forget_prepared(ctx);
  all->plans.n--;
  memmove(&all->plans.at[i], &all->plans.at[i + 1],
          (size_t)(all->plans.n - i) * sizeof plan);
  rp_plan_release(plan);
}

rp_status rp_cache_add(rp_context *ctx, rp_plan *plan) {
  rp_plans *all = ctx->plans;
  if (!rp_array_room(ctx, &all->plans, sizeof(rp_plan *), 1)) return RP_NOMEM;
  if (all->plans.n == PLANS_MAX) remove_at(ctx, 0);
  plan->refs++;
  all->plans.at[all->plans.n++] = plan;
  all->misses++;
  return RP_OK;
}

void rp_cache_free(rp_context *ctx) {
  if (ctx->plans == NULL) return;
  rp_cache_forget_prepared(ctx);
  while (ctx->plans->plans.n > 0) remove_at(ctx, ctx->plans->plans.n - 1);
  rp_array_free(ctx, &ctx->plans->plans, sizeof(rp_plan *));
  rp_free(ctx, ctx->plans, sizeof *ctx->plans);
  ctx->plans = NULL;
}
