/* What the C tests share: short ways to record. Every helper asserts that it
   worked. */
#ifndef SPEC_SUPPORT_H
#define SPEC_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "reprise.h"

static inline rp_tensor *record(rp_context *ctx, const char *op, int n,
                                rp_tensor *const *inputs, int n_ints,
                                const int64_t *ints) {
  rp_tensor *t = rp_record(ctx, rp_op_find(op), inputs, n, ints, n_ints, NULL,
                           0);
  if (t == NULL) print_message("%s\n", rp_message(ctx));
  assert_non_null(t);
  return t;
}

static inline rp_tensor *unary(rp_context *ctx, const char *op, rp_tensor *x) {
  return record(ctx, op, 1, &x, 0, NULL);
}

static inline rp_tensor *binary(rp_context *ctx, const char *op, rp_tensor *a,
                                rp_tensor *b) {
  rp_tensor *pair[2] = {a, b};
  return record(ctx, op, 2, pair, 0, NULL);
}

static inline rp_tensor *sum_all(rp_context *ctx, rp_tensor *x) {
  const int64_t keep = 0;
  return record(ctx, "sum", 1, &x, 1, &keep);
}

/* A leaf of rows x columns, element i = (i % 7 - 3) * scale. */
static inline rp_tensor *leaf(rp_context *ctx, rp_role role, int64_t rows,
                              int64_t columns, double scale) {
  const rp_type type = {.dtype = RP_F64, .rank = 2, .dims = {rows, columns}};
  rp_tensor *t = rp_leaf(ctx, role, &type);
  assert_non_null(t);
  double bytes[rows * columns];
  for (int64_t i = 0; i < rows * columns; i++)
    bytes[i] = (double)(i % 7 - 3) * scale;
  assert_int_equal(rp_leaf_write(t, bytes, sizeof bytes), RP_OK);
  return t;
}

static inline double value(rp_tensor *t) {
  double x;
  assert_int_equal(rp_tensor_read(t, &x, sizeof x), RP_OK);
  return x;
}

/* Prepares, plans with these segments, runs; returns the info. */
static inline rp_plan_info run_planned(rp_context *ctx, rp_request *request,
                                       const rp_segment *segments, int n) {
  rp_plan *plan = rp_plan_prepare(ctx, request);
  if (plan == NULL) print_message("%s\n", rp_message(ctx));
  assert_non_null(plan);
  if (!rp_plan_is_ready(plan)) {
    assert_int_equal(rp_plan_set_segments(plan, segments, n), RP_OK);
    assert_int_equal(rp_plan_finish(plan), RP_OK);
  }
  const rp_status status = rp_plan_run(plan, request);
  if (status != RP_OK) print_message("%s\n", rp_message(ctx));
  assert_int_equal(status, RP_OK);
  rp_plan_info info;
  rp_plan_describe(plan, &info);
  assert_int_equal(rp_plan_measured_peak(plan), info.peak_bytes);
  rp_plan_release(plan);
  return info;
}

#endif
