/* Status and message, kept in the context: a failure is said once, where it
   is found, and travels up as its code. */
#ifndef RP_BASE_STATUS_H
#define RP_BASE_STATUS_H

#include "reprise.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Sets the context's message (printf style) and returns status. ctx may be
   NULL; then only the status travels. */
rp_status rp_fail(rp_context *ctx, rp_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void rp_clear_error(rp_context *ctx);
/* Queues a notice for the user; dropped when the queue is full. */
void rp_notice(rp_context *ctx, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#ifdef __cplusplus
}
#endif

#endif
