/* Time stamps of runs. */
#include <string.h>
#include <time.h>

#include "base/context.h"
#include "exec/trace.h"

int64_t rp_trace_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void drop_stamps(rp_context *ctx, rp_trace *trace) {
  rp_free(ctx, trace->stamps, 2 * (size_t)trace->room * sizeof(int64_t));
  *trace = (rp_trace){0};
}

rp_status rp_trace_set(rp_context *ctx, bool on) {
  if (on == (ctx->trace != NULL)) return RP_OK;
  if (on) {
    ctx->trace = rp_alloc(ctx, sizeof *ctx->trace);
    return ctx->trace ? RP_OK : RP_NOMEM;
  }
  drop_stamps(ctx, ctx->trace);
  rp_free(ctx, ctx->trace, sizeof *ctx->trace);
  ctx->trace = NULL;
  return RP_OK;
}

rp_status rp_trace_begin(rp_context *ctx, int32_t n) {
  rp_trace *trace = ctx->trace;
  if (trace == NULL) return RP_OK;
  if (n > trace->room) {
    drop_stamps(ctx, trace);
    trace->stamps = rp_alloc(ctx, 2 * (size_t)n * sizeof(int64_t));
    if (trace->stamps == NULL) return RP_NOMEM;
    trace->room = n;
  }
  trace->n = n;
  if (n > 0) memset(trace->stamps, 0, 2 * (size_t)n * sizeof(int64_t));
  return RP_OK;
}

const int64_t *rp_trace_stamps(const rp_context *ctx, int32_t *n) {
  *n = ctx->trace ? ctx->trace->n : 0;
  return *n > 0 ? ctx->trace->stamps : NULL;
}
