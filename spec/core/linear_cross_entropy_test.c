/* linear_cross_entropy and its gradient against long double, over chunks and
   shorter last chunks; what lies behind outputs and workspace stays. */
#include "kernel.h"

enum { IGNORED = -100, WANTS_ALL = 7 };

typedef struct shape {
  int64_t rows, width, classes;
} shape;

typedef struct expected {
  double loss, *dx, *dw, *dbias;
} expected;

static double logit(const call *c, shape s, int64_t i, int64_t j) {
  double y = get(&c->in[3], j);
  for (int64_t k = 0; k < s.width; k++)
    y += get(&c->in[0], i * s.width + k) * get(&c->in[1], j * s.width + k);
  return y;
}

static expected expect(const call *c, shape s, bool sum) {
  expected e = {.dx = calloc((size_t)(s.rows * s.width) + 1, sizeof(double)),
                .dw = calloc((size_t)(s.classes * s.width) + 1,
                             sizeof(double)),
                .dbias = calloc((size_t)s.classes + 1, sizeof(double))};
  double *p = malloc((size_t)s.classes * sizeof *p);
  long double loss = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < s.rows; i++)
    count += (int64_t)get(&c->in[2], i) != IGNORED;
  const double share = sum ? 1 : 1.0 / (double)count;
  for (int64_t i = 0; i < s.rows; i++) {
    const int64_t label = (int64_t)get(&c->in[2], i);
    if (label == IGNORED) continue;
    long double total = 0;
    for (int64_t j = 0; j < s.classes; j++) {
      p[j] = logit(c, s, i, j);
      total += expl(p[j]);
    }
    loss += logl(total) - p[label];
    for (int64_t j = 0; j < s.classes; j++) {
      const double d = ((double)(expl(p[j]) / total) - (j == label)) * share;
      e.dbias[j] += d;
      for (int64_t k = 0; k < s.width; k++) {
        e.dx[i * s.width + k] += d * get(&c->in[1], j * s.width + k);
        e.dw[j * s.width + k] += d * get(&c->in[0], i * s.width + k);
      }
    }
  }
  e.loss = (double)(sum ? loss : loss / count);
  free(p);
  return e;
}

static void check_all(const rp_array *got, const double *want,
                      double tolerance) {
  for (int64_t i = 0; i < rp_type_count(&got->type); i++)
    assert_close(get(got, i), want[i], tolerance);
}

static call call_of(shape s, rp_dtype dtype, rp_dtype labels, bool sum,
                    bool ignore_some) {
  call c = {.op = "linear_cross_entropy_grad", .n_in = 4, .n_ints = 4,
            .ints = {4, IGNORED, sum, WANTS_ALL}, .ctx = rp_context_new()};
  const int64_t x[2] = {s.rows, s.width}, w[2] = {s.classes, s.width};
  c.in[0] = array_random(dtype, 2, x, 1);
  c.in[1] = array_random(dtype, 2, w, 2);
  c.in[2] = array_random(labels, 1, x, 3);
  c.in[3] = array_random(dtype, 1, w, 4);
  for (int64_t i = 0; i < s.rows; i++)
    set(&c.in[2], i, ignore_some && i % 3 == 1
                         ? IGNORED : (double)((i * 7 + 3) % s.classes));
  return c;
}

static void loss_and_gradients(void **state) {
  const shape shapes[] = {{1, 1, 1},  {5, 3, 7},     {130, 4, 33},
                          {7, 0, 3},  {40, 5, 1},    {290, 2, 8500},
                          {257, 1, 8500}};
  for (int s = 0; s < 7; s++)
    for (int v = 0; v < (s < 5 ? 16 : 2); v++) {
      const rp_dtype dtype = v & 1 ? RP_F64 : RP_F32;
      const bool sum = v & 4;
      const double tolerance = 4 * tolerance_of(dtype);
      call c = call_of(shapes[s], dtype, v & 2 ? RP_I64 : RP_I32, sum, v & 8);
      const expected e = expect(&c, shapes[s], sum);
      if (dtype == RP_F32) {
        call_check(&c);
      } else { /* CBLAS may add in another order on more threads */
        c.over = -1;
        assert_int_equal(call_run(&c, 1), RP_OK);
      }
      assert_close(get(&c.out[0], 0), e.loss, tolerance);
      check_all(&c.out[1], e.dx, tolerance);
      check_all(&c.out[2], e.dw, tolerance);
      check_all(&c.out[3], e.dbias, tolerance);

      call f = {.op = "linear_cross_entropy", .n_in = 4, .n_ints = 2,
                .ints = {IGNORED, sum}, .over = -1, .ctx = c.ctx};
      memcpy(f.in, c.in, sizeof f.in);
      assert_int_equal(call_run(&f, 1), RP_OK);
      assert_memory_equal(f.out[0].data, c.out[0].data,
                          rp_type_bytes(&f.out[0].type));
      call_free_outputs(&f);
      rp_context_free(c.ctx);
      call_free(&c);
      free(e.dx), free(e.dw), free(e.dbias);
    }
}

static void wants(void **state) {
  const shape s = {6, 3, 5};
  call c = call_of(s, RP_F32, RP_I32, false, false);
  const expected e = expect(&c, s, false);
  const double *const want[3] = {e.dx, e.dw, e.dbias};
  c.over = -1;
  for (int bits = 0; bits < 8; bits++) {
    c.ints[0] = 1 + __builtin_popcount((unsigned)bits);
    c.ints[3] = bits;
    assert_int_equal(call_run(&c, 1), RP_OK);
    int output = 1;
    for (int i = 0; i < 3; i++)
      if (bits >> i & 1) check_all(&c.out[output++], want[i], 1e-5);
    assert_close(get(&c.out[0], 0), e.loss, 1e-5);
    call_free_outputs(&c);
  }
  free(e.dx), free(e.dw), free(e.dbias);
  rp_type out[CALL_OUTPUTS];
  c.ints[0] = 2, c.ints[3] = 3;
  assert_int_equal(call_type(&c, out), RP_VALUE);
  c.ints[3] = 8;
  assert_int_equal(call_type(&c, out), RP_VALUE);
  c.n_in = 3, c.ints[3] = 4;
  assert_int_equal(call_type(&c, out), RP_VALUE);
  c.n_in = 4, c.n_out = 0;
  rp_context_free(c.ctx);
  call_free(&c);
}

/* Nothing is held when memory runs out half way. */
static void memory_runs_out(void **state) {
  call c = call_of((shape){150, 4, 8500}, RP_F32, RP_I32, false, false);
  const rp_op *op = rp_op_find(c.op);
  rp_type types[CALL_OUTPUTS];
  assert_int_equal(call_type(&c, types), RP_OK);
  for (int k = 0; k < c.n_out; k++) c.out[k] = array_like(&types[k]);
  const rp_kernel *row = kernel_of(op, RP_F32);
  rp_kernel_args args = {.in = c.in, .out = c.out, .n_in = 4, .n_out = 4,
                         .ints = c.ints, .n_ints = 4, .ctx = c.ctx};
  int failures = 0;
  for (int k = 1; k < 100; k++) {
    void *made = NULL;
    int64_t bytes = 0;
    rp_memory_fail_at(c.ctx, k);
    const rp_status status = row->prepare(&args, &made, &bytes);
    rp_memory_fail_at(c.ctx, 0);
    if (status == RP_OK) {
      row->destroy(made);
      break;
    }
    assert_int_equal(status, RP_NOMEM);
    assert_null(made);
    failures++;
  }
  assert_true(failures > 3);
  rp_context_free(c.ctx);
  call_free(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(loss_and_gradients),
      cmocka_unit_test(wants),
      cmocka_unit_test(memory_runs_out),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
