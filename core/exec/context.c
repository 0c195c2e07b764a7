/* Contexts: the one file that knows every stage's state. */
#include <math.h>
#include <omp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "exec/arena.h"
#include "exec/backend.h"
#include "exec/cache.h"
#include "graph/recorder.h"
#include "graph/registry.h"

static void register_kernels(const rp_backend *backend) {
  for (int32_t t = 0; t < backend->n_tables; t++)
    for (int32_t i = 0; i < backend->tables[t]->n; i++)
      rp_op_add_kernel(backend->tables[t]->rows[i].op,
                       backend->tables[t]->rows[i].dtype);
}

rp_context *rp_context_new(void) {
  rp_context *ctx = calloc(1, sizeof *ctx);
  if (ctx == NULL) return NULL;
  ctx->threads = omp_get_max_threads();
  ctx->fuses = true;
  register_kernels(&rp_cpu);
  ctx->plans = rp_alloc(ctx, sizeof *ctx->plans);
  ctx->arena = rp_alloc(ctx, sizeof *ctx->arena);
  if (ctx->plans && ctx->arena && rp_recorder_new(ctx)) {
    rp_cpu.warm_up(ctx);
    return ctx;
  }
  rp_context_free(ctx);
  return NULL;
}

void rp_context_free(rp_context *ctx) {
  if (ctx == NULL) return;
  rp_cache_free(ctx);
  rp_trace_set(ctx, false);
  if (ctx->arena) rp_arena_release(ctx);
  rp_free(ctx, ctx->arena, sizeof *ctx->arena);
  rp_recorder_free(ctx);
  free(ctx);
}

void rp_manual_seed(rp_context *ctx, uint64_t seed) {
  ctx->seed = seed;
  ctx->recorder->draws = 0;
}

void rp_set_num_threads(rp_context *ctx, int threads) {
  ctx->threads = threads < 1 ? 1 : threads;
  omp_set_num_threads(ctx->threads);
}
int rp_num_threads(const rp_context *ctx) { return ctx->threads; }

rp_rates rp_rates_get(const rp_context *ctx) {
  return ctx->rates.flops_per_second > 0
             ? ctx->rates
             : (rp_rates){rp_cpu.flops_per_second, rp_cpu.bytes_per_second};
}

rp_status rp_rates_set(rp_context *ctx, rp_rates rates) {
  if (!(rates.flops_per_second > 0 && rates.flops_per_second < HUGE_VAL) ||
      !(rates.bytes_per_second > 0 && rates.bytes_per_second < HUGE_VAL))
    return rp_fail(ctx, RP_VALUE, "[rates_set] %g FLOP/s and %g bytes/s: rates "
                   "are above 0", rates.flops_per_second,
                   rates.bytes_per_second);
  ctx->rates = rates;
  return RP_OK;
}

bool rp_fusion_enable(rp_context *ctx, bool on) {
  const bool before = ctx->fuses;
  ctx->fuses = on;
  return before;
}

void rp_memory_stats(const rp_context *ctx, rp_memory *out) {
  *out = (rp_memory){
      .storage_bytes = ctx->accounts.bytes[RP_STORAGE],
      .storage_peak_bytes = ctx->accounts.peak[RP_STORAGE],
      .arena_bytes = ctx->arena->size,
      .recipe_bytes = ctx->accounts.bytes[RP_RECIPES],
      .recipe_peak_bytes = ctx->accounts.peak[RP_RECIPES],
      .requests = ctx->accounts.requests,
      .nodes = ctx->recorder->nodes,
      .plans = ctx->plans->plans.n,
      .plan_misses = ctx->plans->misses,
  };
}

void rp_memory_reset_peak(rp_context *ctx) {
  for (int a = 0; a < RP_ACCOUNTS; a++)
    ctx->accounts.peak[a] = ctx->accounts.bytes[a];
}

void rp_memory_fail_at(rp_context *ctx, int64_t k) {
  ctx->accounts.fail_at = k > 0 ? k : 0;
}

/* ---- interrupts ------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number) {
  (void)signal_number;
  interrupted = 1;
}

void rp_interrupt_install(void) { signal(SIGINT, on_interrupt); }

bool rp_interrupt_take(void) {
  const bool was = interrupted;
  interrupted = 0;
  return was;
}
