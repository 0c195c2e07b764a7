/* What the gradients of elementwise ops read, and PyTorch's conventions where
   the derivative is a matter of choice. That the gradients are right is the
   gradient check's to show. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "graph/op.h"

static rp_context *ctx;

static rp_tensor *vector(const double *data, int64_t n) {
  const rp_type type = {.dtype = RP_F64, .rank = 1, .dims = {n}};
  rp_tensor *t = rp_leaf(ctx, RP_PARAMETER, &type);
  assert_non_null(t);
  assert_int_equal(rp_leaf_write(t, data, (size_t)n * sizeof *data), RP_OK);
  return t;
}
static rp_tensor *truth(const uint8_t *data, int64_t n) {
  const rp_type type = {.dtype = RP_BOOL, .rank = 1, .dims = {n}};
  rp_tensor *t = rp_leaf(ctx, RP_INPUT, &type);
  assert_non_null(t);
  assert_int_equal(rp_leaf_write(t, data, (size_t)n), RP_OK);
  return t;
}
static rp_tensor *record(const char *op, rp_tensor *const *inputs, int n,
                         const double *reals, int n_reals) {
  rp_tensor *t = rp_record(ctx, rp_op_find(op), inputs, n, NULL, 0, reals,
                           n_reals);
  if (t == NULL) fail_msg("%s", rp_message(ctx));
  return t;
}
static void expect(rp_tensor *t, const double *want, int64_t n) {
  double got[16];
  if (rp_tensor_read(t, got, (size_t)n * sizeof *got) != RP_OK)
    fail_msg("%s", rp_message(ctx));
  for (int i = 0; i < n; i++)
    if (!(got[i] == want[i] || (isnan(got[i]) && isnan(want[i]))))
      fail_msg("element %d: %g, not %g", i, got[i], want[i]);
}

/* Gradients of a recorded y for its inputs, with ones for dy. */
static void gradients(rp_tensor *y, rp_tensor *const *x, int n,
                      rp_tensor **dx) {
  double ones[16];
  for (int i = 0; i < 16; i++) ones[i] = 1;
  rp_tensor *dy = vector(ones, y->type.dims[0]);
  if (rp_grad(y, dy, x, n, dx) != RP_OK) fail_msg("%s", rp_message(ctx));
  rp_tensor_release(dy);
}

/* ---- what backward reads ------------------------------------------------- */

typedef struct reads {
  bool x[2], y;
} reads;

static void find_reads(const rp_tensor *t, const rp_tensor *y,
                       rp_tensor *const *x, int n, reads *found) {
  if (t->root->node == y->node) {
    found->y = true;
    return;
  }
  for (int i = 0; i < n; i++)
    if (t->root->node == x[i]->node) found->x[i] = true;
  for (int i = 0; i < t->node->n_inputs; i++)
    find_reads(t->node->inputs[i], y, x, n, found);
}

static void backward_reads_as_little_as_it_can(void **state) {
  (void)state;
  static const struct {
    const char *op;
    int inputs;
    const char *dx[2]; /* what the gradient of each input reads */
  } cases[] = {
      {"neg", 1, {""}},        {"exp", 1, {"y"}},
      {"sqrt", 1, {"y"}},      {"rsqrt", 1, {"y"}},
      {"reciprocal", 1, {"y"}}, {"log", 1, {"a"}},
      {"erf", 1, {"a"}},       {"sin", 1, {"a"}},
      {"cos", 1, {"a"}},       {"abs", 1, {"a"}},
      {"square", 1, {"a"}},    {"relu", 1, {"y"}},
      {"tanh", 1, {"y"}},      {"sigmoid", 1, {"y"}},
      {"silu", 1, {"a"}},      {"gelu", 1, {"a"}},
      {"gelu_tanh", 1, {"a"}}, {"dropout", 1, {""}},
      {"pow_scalar", 1, {"a"}}, {"clamp", 1, {"a"}},
      {"add", 2, {"", ""}},    {"sub", 2, {"", ""}},
      {"mul", 2, {"b", "a"}},  {"div", 2, {"b", "by"}},
      {"pow", 2, {"ab", "aby"}}, {"maximum", 2, {"ab", "ab"}},
      {"minimum", 2, {"ab", "ab"}}, {"bce_with_logits", 2, {"ab", "a"}},
  };
  const double one[2] = {0.25, 0.5}, two[2] = {0.75, 0.125};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    rp_tensor *x[2] = {vector(one, 2), vector(two, 2)};
    const double reals[2] = {0.3, 0.7};
    const rp_op *op = rp_op_find(cases[k].op);
    const int n_reals = strcmp(op->name, "clamp") == 0 ? 2 : 1;
    rp_tensor *y = record(op->name, x, cases[k].inputs, reals, n_reals);
    for (int i = 0; i < cases[k].inputs; i++) {
      rp_tensor *dx;
      gradients(y, &x[i], 1, &dx);
      reads found = {{0}, 0};
      find_reads(dx, y, x, 2, &found);
      const char *want = cases[k].dx[i];
      if (found.x[0] != (strchr(want, 'a') != NULL) ||
          found.x[1] != (strchr(want, 'b') != NULL) ||
          found.y != (strchr(want, 'y') != NULL))
        fail_msg("%s: the gradient of input %d reads%s%s%s, not %s", op->name,
                 i, found.x[0] ? " a" : "", found.x[1] ? " b" : "",
                 found.y ? " y" : "", want);
      rp_tensor_release(dx);
    }
    rp_tensor_release(y);
    rp_tensor_release(x[0]), rp_tensor_release(x[1]);
  }
}

/* ---- conventions --------------------------------------------------------- */

static void ties_share(void **state) {
  (void)state;
  const double a[] = {1, 2, 3, NAN}, b[] = {2, 2, 2, 2};
  for (int k = 0; k < 2; k++) {
    rp_tensor *x[2] = {vector(a, 4), vector(b, 4)}, *dx[2];
    rp_tensor *y = record(k ? "minimum" : "maximum", x, 2, NULL, 0);
    gradients(y, x, 2, dx);
    expect(dx[0], k ? (double[]){1, 0.5, 0, 1} : (double[]){0, 0.5, 1, 1}, 4);
    expect(dx[1], k ? (double[]){0, 0.5, 1, 1} : (double[]){1, 0.5, 0, 1}, 4);
    rp_tensor_release(y);
    for (int i = 0; i < 2; i++)
      rp_tensor_release(x[i]), rp_tensor_release(dx[i]);
  }
}

static void bounds_let_the_gradient_through(void **state) {
  (void)state;
  const double x[] = {-2, -1, 0, 1, 2}, bounds[2] = {-1, 1};
  rp_tensor *t = vector(x, 5), *dx;
  rp_tensor *y = record("clamp", &t, 1, bounds, 2);
  gradients(y, &t, 1, &dx);
  expect(y, (double[]){-1, -1, 0, 1, 1}, 5);
  expect(dx, (double[]){0, 1, 1, 1, 0}, 5);
  rp_tensor_release(dx), rp_tensor_release(y);
  y = record("relu", &t, 1, NULL, 0);
  gradients(y, &t, 1, &dx);
  expect(dx, (double[]){0, 0, 0, 1, 1}, 5);
  rp_tensor_release(dx), rp_tensor_release(y);
  y = record("abs", &t, 1, NULL, 0);
  gradients(y, &t, 1, &dx);
  expect(dx, (double[]){-1, -1, 0, 1, 1}, 5);
  rp_tensor_release(dx), rp_tensor_release(y), rp_tensor_release(t);
}

/* d/db a^b = a^b log a, with its limit 0 at a = 0 <= b; whole exponents of
   negative bases have a derivative for a. */
static void powers_of_zero(void **state) {
  (void)state;
  const double a[] = {0, 0, -2, 1}, b[] = {2, 0, 3, 5};
  rp_tensor *x[2] = {vector(a, 4), vector(b, 4)}, *dx[2];
  rp_tensor *y = record("pow", x, 2, NULL, 0);
  gradients(y, x, 2, dx);
  expect(y, (double[]){0, 1, -8, 1}, 4);
  expect(dx[1], (double[]){0, 0, NAN, 0}, 4);
  double da[4];
  assert_int_equal(rp_tensor_read(dx[0], da, sizeof da), RP_OK);
  assert_true(da[0] == 0 && da[1] == 0 && da[2] == 12 && da[3] == 5);
  rp_tensor_release(y);
  for (int i = 0; i < 2; i++) rp_tensor_release(x[i]), rp_tensor_release(dx[i]);

  for (int p = 0; p <= 3; p++) {
    rp_tensor *t = vector((double[]){-2, 0, 3}, 3), *dt;
    const double exponent = p;
    y = record("pow_scalar", &t, 1, &exponent, 1);
    gradients(y, &t, 1, &dt);
    expect(dt, (double[]){p * pow(-2, p - 1), p == 1, p * pow(3, p - 1)}, 3);
    rp_tensor_release(dt), rp_tensor_release(y), rp_tensor_release(t);
  }
}

/* Sums over what was broadcast. */
static void selection_and_broadcast(void **state) {
  (void)state;
  const double a[] = {1, 2, 3}, one[] = {7};
  const uint8_t c[] = {1, 0, 1};
  rp_tensor *x[3] = {truth(c, 3), vector(a, 3), vector(one, 1)}, *dx[2];
  rp_tensor *y = record("where", x, 3, NULL, 0);
  gradients(y, x + 1, 2, dx);
  expect(y, (double[]){1, 7, 3}, 3);
  expect(dx[0], (double[]){1, 0, 1}, 3);
  expect(dx[1], (double[]){1}, 1);
  rp_tensor_release(y), rp_tensor_release(dx[0]), rp_tensor_release(dx[1]);

  const rp_type scalar = {.dtype = RP_F64};
  rp_tensor *value = rp_leaf(ctx, RP_PARAMETER, &scalar);
  assert_int_equal(rp_leaf_write(value, one, sizeof *one), RP_OK);
  rp_tensor *filled[3] = {x[1], x[0], value}, *wanted[2] = {x[1], value};
  y = record("masked_fill", filled, 3, NULL, 0);
  gradients(y, wanted, 2, dx);
  expect(y, (double[]){7, 2, 7}, 3);
  expect(dx[0], (double[]){0, 1, 0}, 3);
  expect(dx[1], (double[]){2}, 1);
  rp_tensor_release(y), rp_tensor_release(dx[0]), rp_tensor_release(dx[1]);

  rp_tensor *pair[2] = {x[1], x[2]};
  y = record("div", pair, 2, NULL, 0);
  gradients(y, pair, 2, dx);
  expect(dx[0], (double[]){1 / 7.0, 1 / 7.0, 1 / 7.0}, 3);
  double db;
  assert_int_equal(rp_tensor_read(dx[1], &db, sizeof db), RP_OK);
  assert_true(fabs(db + 6 / 49.0) < 1e-16);
  rp_tensor_release(y), rp_tensor_release(dx[0]), rp_tensor_release(dx[1]);
  for (int i = 0; i < 3; i++) rp_tensor_release(x[i]);
  rp_tensor_release(value);
}

/* ---- what is refused ----------------------------------------------------- */

static void refuse(const char *op, rp_tensor *const *inputs, int n,
                   const double *reals, int n_reals, rp_status status,
                   const char *message) {
  assert_null(rp_record(ctx, rp_op_find(op), inputs, n, NULL, 0, reals,
                        n_reals));
  assert_int_equal(rp_last_status(ctx), status);
  assert_string_equal(rp_message(ctx), message);
}

static void bad_arguments(void **state) {
  (void)state;
  const double a[] = {1, 2, 3};
  const uint8_t c[] = {1, 0};
  rp_tensor *x = vector(a, 3), *two = truth(c, 2);
  rp_tensor *number = rp_number(ctx, 1, RP_F32);
  refuse("where", (rp_tensor *[]){x, x, x}, 3, NULL, 0, RP_DTYPE,
         "[where] the condition is f64, not bool; compare it with something, "
         "or cast it with :to'bool'");
  refuse("where", (rp_tensor *[]){two, x, number}, 3, NULL, 0, RP_DTYPE,
         "[where] f64 and f32 differ; cast one with :to'f64'");
  refuse("where", (rp_tensor *[]){two, x, x}, 3, NULL, 0, RP_SHAPE,
         "[where] input 2 is (3): 3 at dim 1 from the end does not broadcast "
         "with 2");
  refuse("masked_fill", (rp_tensor *[]){x, two, x}, 3, NULL, 0, RP_SHAPE,
         "[masked_fill] the value is (3), not a scalar; `where` takes tensors");
  refuse("clamp", &x, 1, a, 1, RP_VALUE,
         "[clamp] needs a lower and an upper bound");
  refuse("pow_scalar", &x, 1, NULL, 0, RP_VALUE,
         "[pow_scalar] needs an exponent");
  refuse("exp", &two, 1, NULL, 0, RP_DTYPE,
         "[exp] does not take bool; cast with :to'f32'");
  refuse("add", (rp_tensor *[]){x, number}, 2, NULL, 0, RP_DTYPE,
         "[add] f64 and f32 differ; cast one with :to'f64'");
  rp_tensor_release(x), rp_tensor_release(two), rp_tensor_release(number);
}

static int open_context(void **state) {
  (void)state;
  return (ctx = rp_context_new()) == NULL;
}
static int close_context(void **state) {
  (void)state;
  rp_context_free(ctx);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(backward_reads_as_little_as_it_can),
      cmocka_unit_test(ties_share),
      cmocka_unit_test(bounds_let_the_gradient_through),
      cmocka_unit_test(powers_of_zero),
      cmocka_unit_test(selection_and_broadcast),
      cmocka_unit_test(bad_arguments),
  };
  return cmocka_run_group_tests_name("elementwise_grad", tests, open_context,
                                     close_context);
}
