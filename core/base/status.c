#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/context.h"

rp_status rp_fail(rp_context *ctx, rp_status status, const char *format, ...) {
  if (ctx == NULL) return status;
  va_list list;
  va_start(list, format);
  /* Through a copy: arguments may point into the present message. */
  char text[RP_MESSAGE_SIZE];
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  memcpy(ctx->message, text, sizeof text);
  ctx->status = status;
  return status;
}

void rp_clear_error(rp_context *ctx) {
  ctx->status = RP_OK;
  ctx->message[0] = '\0';
}

void rp_notice(rp_context *ctx, const char *format, ...) {
  if (ctx->notices.count == RP_NOTICES) return;
  const int at = (ctx->notices.first + ctx->notices.count++) % RP_NOTICES;
  va_list list;
  va_start(list, format);
  vsnprintf(ctx->notices.text[at], RP_NOTICE_SIZE, format, list);
  va_end(list);
}

const char *rp_notice_take(rp_context *ctx) {
  if (ctx->notices.count == 0) return NULL;
  memcpy(ctx->notices.taken, ctx->notices.text[ctx->notices.first],
         RP_NOTICE_SIZE);
  ctx->notices.first = (ctx->notices.first + 1) % RP_NOTICES;
  ctx->notices.count--;
  return ctx->notices.taken;
}

const char *rp_message(const rp_context *ctx) { return ctx->message; }
rp_status rp_last_status(const rp_context *ctx) { return ctx->status; }

const char *rp_status_name(rp_status status) {
  static const char *const names[] = {
      [RP_OK] = "ok",           [RP_SHAPE] = "shape",
      [RP_DTYPE] = "dtype",     [RP_VALUE] = "value",
      [RP_NOMEM] = "memory",    [RP_STALE] = "stale",
      [RP_STATE] = "state",     [RP_UNSUPPORTED] = "unsupported",
      [RP_ILLEGAL] = "illegal", [RP_INTERNAL] = "internal"};
  return status >= RP_OK && status <= RP_INTERNAL ? names[status] : "unknown";
}

int rp_abi_version(void) { return 1; }
