/* Contexts: the one file that knows every stage's state. */
#include <math.h>
#include <omp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "exec/backend.h"
#include "exec/cache.h"
#include "exec/device.h"
#include "exec/trace.h"
#include "graph/recorder.h"
#include "graph/registry.h"

rp_context *rp_context_new(void) {
  rp_context *ctx = calloc(1, sizeof *ctx);
  if (ctx == NULL) return NULL;
  ctx->threads = omp_get_max_threads();
  ctx->fuses = ctx->gathers = true;
  ctx->plans = rp_alloc(ctx, sizeof *ctx->plans);
  if (ctx->plans && rp_recorder_new(ctx) && rp_device_open(ctx, "cpu") == RP_CPU)
    return ctx;
  rp_context_free(ctx);
  return NULL;
}

void rp_context_free(rp_context *ctx) {
  if (ctx == NULL) return;
  rp_cache_free(ctx);
  rp_trace_set(ctx, false);
  rp_recorder_free(ctx);
  rp_devices_close(ctx);
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
  return rp_device_rates(rp_device_at(ctx, RP_ANYWHERE));
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

bool rp_gathering_enable(rp_context *ctx, bool on) {
  const bool before = ctx->gathers;
  ctx->gathers = on;
  return before;
}

void rp_memory_stats(const rp_context *ctx, int slot, rp_memory *out) {
  const rp_device *device = rp_device_at(ctx, slot);
  *out = (rp_memory){
      .storage_bytes = device->storage.bytes,
      .storage_peak_bytes = device->storage.peak,
      .arena_bytes = device->arena.size,
      .recipe_bytes = ctx->accounts.recipes.bytes,
      .recipe_peak_bytes = ctx->accounts.recipes.peak,
      .requests = ctx->accounts.requests,
      .nodes = ctx->recorder->nodes,
      .plans = ctx->plans->plans.n,
      .plan_misses = ctx->plans->misses,
  };
}

void rp_memory_reset_peak(rp_context *ctx) {
  ctx->accounts.recipes.peak = ctx->accounts.recipes.bytes;
  for (int i = 0; i < RP_DEVICES && ctx->devices[i]; i++)
    ctx->devices[i]->storage.peak = ctx->devices[i]->storage.bytes;
}

void rp_memory_fail_at(rp_context *ctx, int64_t k) {
  ctx->accounts.fail_at = k > 0 ? k : 0;
}

/* ---- interrupts --------------------------------------------------------- */

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
