/* layer_norm and rms_norm against long double, and their gradients against
   the formulas the gradients of sums of y dy must satisfy. */
#include "kernel.h"

typedef struct shape {
  int rank, inner; /* of x, of w */
  int64_t dims[4];
} shape;

static const shape shapes[] = {
    {1, 1, {1}}, {1, 1, {7}}, {2, 1, {5, 33}}, {2, 2, {5, 33}},
    {3, 1, {4, 9, 70}}, {3, 2, {4, 9, 70}}, {2, 1, {0, 5}}, {2, 1, {1, 3000}},
    {2, 1, {700, 384}}, {2, 1, {9000, 3}}, {4, 2, {2, 3, 4, 5}},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct statistics {
  long double mean, rstd;
} statistics;

static statistics statistics_of(const rp_array *x, int64_t row, int64_t n,
                                bool centred, double eps) {
  statistics s = {0, 0};
  long double square = 0;
  for (int64_t j = 0; centred && j < n; j++)
    s.mean += get(x, row * n + j);
  s.mean /= n;
  for (int64_t j = 0; j < n; j++) {
    const long double d = get(x, row * n + j) - s.mean;
    square += d * d;
  }
  s.rstd = 1 / sqrtl(square / n + eps);
  return s;
}

static void norm_case(const shape *shape, rp_dtype dtype, bool centred) {
  const double eps = 1e-3, tolerance = 2 * tolerance_of(dtype);
  const int64_t *inner = shape->dims + shape->rank - shape->inner;
  int64_t n = 1, rows = 1;
  for (int d = 0; d < shape->rank; d++)
    *(d < shape->rank - shape->inner ? &rows : &n) *= shape->dims[d];
  call c = {.op = centred ? "layer_norm" : "rms_norm",
            .n_in = centred ? 3 : 2, .n_reals = 1, .reals = {eps}};
  c.in[0] = array_random(dtype, shape->rank, shape->dims, 1);
  c.in[1] = array_random(dtype, shape->inner, inner, 2);
  if (centred) c.in[2] = array_random(dtype, shape->inner, inner, 3);
  call_check(&c);
  assert_int_equal(c.out[1].type.rank, shape->rank - shape->inner);
  for (int64_t i = 0; i < rows; i++) {
    const statistics s = statistics_of(&c.in[0], i, n, centred, eps);
    if (centred)
      assert_close(get(&c.out[1], i), (double)s.mean, tolerance);
    assert_close(get(&c.out[centred ? 2 : 1], i), (double)s.rstd, tolerance);
    for (int64_t j = 0; j < n; j++) {
      const long double h = (get(&c.in[0], i * n + j) - s.mean) * s.rstd;
      assert_close(
          get(&c.out[0], i * n + j),
          (double)(h * get(&c.in[1], j) + (centred ? get(&c.in[2], j) : 0)),
          2 * tolerance);
    }
  }

  call g = {.op = centred ? "layer_norm_grad" : "rms_norm_grad",
            .n_in = centred ? 5 : 4};
  g.in[0] = array_random(dtype, shape->rank, shape->dims, 4);
  g.in[1] = c.in[0];
  g.in[2] = c.in[1];
  g.in[3] = c.out[1];
  if (centred) g.in[4] = c.out[2];
  call_check(&g);
  long double *dw = calloc((size_t)n + 1, sizeof *dw);
  long double *db = calloc((size_t)n + 1, sizeof *db);
  const double spread = tolerance * (1 + sqrt((double)rows));
  for (int64_t i = 0; i < rows; i++) {
    const statistics s = statistics_of(&c.in[0], i, n, centred, eps);
    long double a = 0, b = 0;
    for (int64_t j = 0; j < n; j++) {
      const long double h = (get(&c.in[0], i * n + j) - s.mean) * s.rstd;
      const double dy = get(&g.in[0], i * n + j);
      const long double d = (long double)dy * get(&c.in[1], j);
      a += centred ? d / n : 0;
      b += d * h / n;
      dw[j] += dy * h;
      db[j] += dy;
    }
    for (int64_t j = 0; j < n; j++) {
      const long double h = (get(&c.in[0], i * n + j) - s.mean) * s.rstd;
      const long double d =
          (long double)get(&g.in[0], i * n + j) * get(&c.in[1], j);
      /* rstd up to 30 where a row is short. */
      assert_close(get(&g.out[0], i * n + j) / (double)(1 + s.rstd),
                   (double)(s.rstd * (d - a - h * b) / (1 + s.rstd)),
                   4 * tolerance);
    }
  }
  for (int64_t j = 0; j < n; j++) {
    assert_close(get(&g.out[1], j), (double)dw[j], spread);
    if (centred) assert_close(get(&g.out[2], j), (double)db[j], spread);
  }
  free(dw), free(db);
  free(g.in[0].data);
  call_free_outputs(&g);
  call_free(&c);
}

static void values_and_gradients(void **state) {
  for (int s = 0; s < SHAPES; s++) {
    norm_case(&shapes[s], RP_F32, true);
    norm_case(&shapes[s], RP_F64, true);
    norm_case(&shapes[s], RP_F32, false);
    norm_case(&shapes[s], RP_F64, false);
  }
}

/* A mean 10^4 times the spread leaves the normalised values right to what
   f32 has of x's differences. */
static void far_from_zero(void **state) {
  const int64_t dims[2] = {3, 500};
  call c = {.op = "layer_norm", .n_in = 3, .n_reals = 1, .reals = {0}};
  c.in[0] = array_random(RP_F32, 2, dims, 1);
  c.in[1] = array_random(RP_F32, 1, dims + 1, 1);
  c.in[2] = array_random(RP_F32, 1, dims + 1, 1);
  for (int64_t j = 0; j < 1500; j++)
    set(&c.in[0], j, 1e4 + get(&c.in[0], j));
  for (int64_t j = 0; j < 500; j++)
    set(&c.in[1], j, 1), set(&c.in[2], j, 0);
  call_check(&c);
  for (int64_t i = 0; i < 3; i++) {
    const statistics s = statistics_of(&c.in[0], i, 500, true, 0);
    for (int64_t j = 0; j < 500; j++)
      assert_close(get(&c.out[0], i * 500 + j),
                   (double)((get(&c.in[0], i * 500 + j) - s.mean) * s.rstd),
                   1e-3); /* 1e4's last place is 1e-3 */
  }
  call_free(&c);
}

static void bad_calls(void **state) {
  const int64_t dims[3] = {4, 5, 6};
  rp_type out[3];
  call c = {.op = "layer_norm", .n_in = 3, .n_reals = 1, .reals = {1e-5}};
  c.in[0] = array_random(RP_F32, 3, dims, 1);
  c.in[1] = array_random(RP_F32, 1, dims + 1, 1);
  c.in[2] = array_random(RP_F32, 1, dims + 1, 1);
  assert_int_equal(call_type(&c, out), RP_SHAPE); /* (5) is not the last */
  c.in[1].type.dims[0] = c.in[2].type.dims[0] = 6;
  assert_int_equal(call_type(&c, out), RP_OK);
  c.in[2].type.dtype = RP_F64;
  assert_int_equal(call_type(&c, out), RP_DTYPE);
  c.in[2].type = (rp_type){.dtype = RP_F32, .rank = 2, .dims = {5, 6}};
  assert_int_equal(call_type(&c, out), RP_SHAPE);
  c.n_out = 0;
  call_free(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(values_and_gradients),
      cmocka_unit_test(far_from_zero),
      cmocka_unit_test(bad_calls),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
