/* Graph: recording, views, versions, walks, differentiation. */
#include "support.h"

#include <math.h>
#include <string.h>

static rp_tensor *number(rp_context *ctx, double x) {
  rp_tensor *t = rp_number(ctx, x, RP_F64);
  assert_non_null(t);
  return t;
}

static void refused_nodes_leave_nothing(void **state) {
  (void)state;
  rp_context *ctx = rp_context_new();
  rp_tensor *a = leaf(ctx, RP_INPUT, 2, 3, 1), *b = leaf(ctx, RP_INPUT, 4, 5, 1);
  rp_memory before, after;
  rp_memory_stats(ctx, -1, &before);
  rp_tensor *pair[2] = {a, b};
  assert_null(rp_record(ctx, rp_op_find("matmul"), pair, 2, NULL, 0, NULL, 0));
  assert_int_equal(rp_last_status(ctx), RP_SHAPE);
  assert_non_null(strstr(rp_message(ctx), "[matmul] (2,3) x (4,5)"));
  assert_null(rp_record(ctx, rp_op_find("add"), pair, 1, NULL, 0, NULL, 0));
  assert_null(rp_record(ctx, rp_op_find("sgd"), pair, 2, NULL, 0, NULL, 0));
  rp_memory_stats(ctx, -1, &after);
  assert_int_equal(after.nodes, before.nodes);
  assert_int_equal(after.recipe_bytes, before.recipe_bytes);
  rp_tensor_release(a);
  rp_tensor_release(b);
  rp_context_free(ctx);
}

static void views_alias_or_copy(void **state) {
  (void)state;
  rp_context *ctx = rp_context_new();
  rp_tensor *x = leaf(ctx, RP_INPUT, 4, 6, 1);
  const int64_t perm[2] = {1, 0}, cut[4] = {0, 1, 2, 2}, flat[1] = {12};
  rp_tensor *t = record(ctx, "permute", 1, &x, 2, perm);
  assert_false(rp_tensor_is_contiguous(t));
  rp_tensor *n = record(ctx, "narrow", 1, &t, 4, cut); /* rows 1 and 3 of t */
  double got[8], want[8];
  assert_int_equal(rp_tensor_read(n, got, sizeof got), RP_OK);
  for (int r = 0; r < 2; r++)
    for (int c = 0; c < 4; c++)
      want[4 * r + c] = (double)((6 * c + 1 + 2 * r) % 7 - 3);
  assert_memory_equal(got, want, sizeof want);
  const int64_t half[4] = {1, 0, 3, 1};
  rp_tensor *left = record(ctx, "narrow", 1, &x, 4, half);
  rp_tensor *line = record(ctx, "reshape", 1, &left, 1, flat); /* a copy */
  double all[12];
  assert_int_equal(rp_tensor_read(line, all, sizeof all), RP_OK);
  for (int i = 0; i < 12; i++)
    assert_true(all[i] == (double)((6 * (i / 3) + i % 3) % 7 - 3));
  rp_tensor *const made[] = {t, n, left, line, x};
  for (size_t i = 0; i < sizeof made / sizeof *made; i++)
    rp_tensor_release(made[i]);
  rp_context_free(ctx);
}

static void long_chains_need_no_stack(void **state) {
  (void)state;
  rp_context *ctx = rp_context_new();
  rp_tensor *w = leaf(ctx, RP_PARAMETER, 1, 1, 1e-9);
  rp_tensor *x = w;
  rp_tensor_retain(x);
  for (int i = 0; i < 100000; i++) {
    rp_tensor *y = unary(ctx, "neg", x);
    rp_tensor_release(x);
    x = y;
  }
  rp_memory stats;
  rp_memory_stats(ctx, -1, &stats);
  assert_true(stats.nodes >= 100000);
  rp_tensor_release(x);
  rp_memory_stats(ctx, -1, &stats);
  assert_int_equal(stats.nodes, 1);
  rp_tensor_release(w);
  rp_context_free(ctx);
}

static void older_versions_are_an_error(void **state) {
  (void)state;
  rp_context *ctx = rp_context_new();
  rp_tensor *w = leaf(ctx, RP_PARAMETER, 2, 2, 1);
  assert_int_equal(rp_leaf_set_name(w, "fc.weight"), RP_OK);
  rp_tensor *y = sum_all(ctx, w);
  rp_tensor *z = unary(ctx, "neg", y);
  const double bytes[4] = {1, 2, 3, 4};
  assert_int_equal(rp_leaf_write(w, bytes, sizeof bytes), RP_OK);
  double x;
  assert_int_equal(rp_tensor_read(z, &x, sizeof x), RP_STALE);
  assert_non_null(strstr(rp_message(ctx), "fc.weight"));
  /* Recorded again it is right. */
  rp_tensor *again = sum_all(ctx, w);
  assert_true(value(again) == 10);
  rp_tensor_release(y);
  rp_tensor_release(z);
  rp_tensor_release(again);
  rp_tensor_release(w);
  rp_context_free(ctx);
}

/* d/dx tanh(x)^2 = 2 tanh(x) (1 - tanh(x)^2), and its derivative. */
static void derivatives_of_derivatives(void **state) {
  (void)state;
  rp_context *ctx = rp_context_new();
  rp_tensor *x = leaf(ctx, RP_PARAMETER, 1, 1, -0.2); /* 0.6 */
  rp_tensor *t = unary(ctx, "tanh", x), *y = binary(ctx, "mul", t, t);
  rp_tensor *d = NULL, *dd = NULL;
  assert_int_equal(rp_grad(y, NULL, &x, 1, &d), RP_OK);
  assert_int_equal(rp_grad(d, NULL, &x, 1, &dd), RP_OK);
  const double th = tanh(0.6), s = 1 - th * th;
  assert_true(fabs(value(d) - 2 * th * s) < 1e-12);
  assert_true(fabs(value(dd) - (2 * s * s - 4 * th * th * s)) < 1e-12);
  rp_tensor *const made[] = {t, y, d, dd, x};
  for (size_t i = 0; i < sizeof made / sizeof *made; i++)
    rp_tensor_release(made[i]);
  rp_context_free(ctx);
}

/* y = x * x with the gradient 10 * dy of our own making. */
static void custom_gradients(void **state) {
  (void)state;
  rp_context *ctx = rp_context_new();
  rp_tensor *x = leaf(ctx, RP_PARAMETER, 1, 1, 1);
  rp_tensor *y = binary(ctx, "mul", x, x);
  rp_tensor *dy = rp_leaf(ctx, RP_INPUT, rp_tensor_type(y));
  rp_tensor *ten = number(ctx, 10), *dx = binary(ctx, "mul", dy, ten);
  rp_tensor *own = rp_custom_vjp(ctx, &y, &dy, 1, &x, &dx, 1);
  assert_non_null(own);
  rp_tensor *three = number(ctx, 3), *z = binary(ctx, "mul", own, three);
  rp_tensor *g = NULL;
  assert_int_equal(rp_grad(z, NULL, &x, 1, &g), RP_OK);
  assert_true(value(z) == 27);
  assert_true(value(g) == 30);
  rp_tensor *const made[] = {y, dy, ten, dx, own, three, z, g, x};
  for (size_t i = 0; i < sizeof made / sizeof *made; i++)
    rp_tensor_release(made[i]);
  rp_context_free(ctx);
}

static void places_nest_and_come_back(void **state) {
  (void)state;
  rp_context *ctx = rp_context_new();
  const rp_place top = rp_place_get(ctx);
  assert_int_equal(rp_scope_enter(ctx, "gpt"), RP_OK);
  assert_int_equal(rp_scope_enter(ctx, "blocks.1"), RP_OK);
  rp_tensor *x = number(ctx, 1), *y = unary(ctx, "neg", x);
  assert_string_equal(rp_tensor_scope(y), "gpt.blocks.1");
  rp_place_set(ctx, top);
  rp_tensor *z = unary(ctx, "neg", y);
  assert_string_equal(rp_tensor_scope(z), "");
  rp_tensor_release(x);
  rp_tensor_release(y);
  rp_tensor_release(z);
  rp_context_free(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(refused_nodes_leave_nothing),
      cmocka_unit_test(views_alias_or_copy),
      cmocka_unit_test(long_chains_need_no_stack),
      cmocka_unit_test(older_versions_are_an_error),
      cmocka_unit_test(derivatives_of_derivatives),
      cmocka_unit_test(custom_gradients),
      cmocka_unit_test(places_nest_and_come_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
