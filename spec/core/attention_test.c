/* Attention's kernels against long double, with guards behind everything that
   is written and the same bits for any number of threads. */
#include "kernel.h"

typedef struct sizes {
  int64_t b, h, tq, tk, d, e;
} sizes;

static const sizes all[] = {
    {1, 1, 1, 1, 1, 1},     {2, 3, 5, 7, 3, 2},      {1, 2, 32, 64, 32, 32},
    {1, 1, 33, 65, 33, 31}, {1, 2, 129, 200, 64, 7}, {2, 1, 200, 90, 5, 70},
    {0, 2, 3, 3, 4, 4},     {1, 2, 0, 3, 4, 4},      {1, 2, 3, 0, 4, 4},
    {2, 2, 70, 70, 16, 16},
};
enum { SIZES = sizeof all / sizeof *all };

/* Element (b, h, t, d) of q, k or v, and (b, t, h, d) of out. */
static double at(const rp_array *x, int64_t b, int64_t h, int64_t t,
                 int64_t d) {
  const int64_t *n = x->type.dims;
  return get(x, ((b * n[1] + h) * n[2] + t) * n[3] + d);
}
static double by_time(const rp_array *x, int64_t b, int64_t h, int64_t t,
                      int64_t d) {
  return at(x, b, t, h, d);
}

typedef struct row {
  long double w[256], sum, top;
} row;

/* The softmax's weights of a query. */
static void weigh(const call *c, int first, sizes s, int64_t b, int64_t h,
                  int64_t i, row *r) {
  r->top = -INFINITY, r->sum = 0;
  for (int64_t j = 0; j < s.tk; j++) {
    r->w[j] = 0;
    for (int64_t d = 0; d < s.d; d++)
      r->w[j] += (long double)c->reals[0] * at(&c->in[first], b, h, i, d) *
                 at(&c->in[first + 1], b, h, j, d);
    if (c->ints[0] && j > i + s.tk - s.tq) r->w[j] = -INFINITY;
    r->top = fmaxl(r->top, r->w[j]);
  }
  for (int64_t j = 0; j < s.tk; j++) {
    r->w[j] = r->top > -INFINITY ? expl(r->w[j] - r->top) : 0;
    r->sum += r->w[j];
  }
  for (int64_t j = 0; j < s.tk; j++)
    if (r->sum > 0) r->w[j] /= r->sum;
}

static call made(sizes s, rp_dtype dtype, int64_t causal, uint64_t seed) {
  call c = {.op = "attention", .n_in = 3, .n_ints = 1, .ints = {causal},
            .n_reals = 2, .reals = {0.3, 0}, .over = -1};
  const int64_t dims[3][4] = {{s.b, s.h, s.tq, s.d},
                              {s.b, s.h, s.tk, s.d},
                              {s.b, s.h, s.tk, s.e}};
  for (int i = 0; i < 3; i++)
    c.in[i] = array_random(dtype, 4, dims[i], seed + (uint64_t)i);
  return c;
}

static void check_forward(const call *c, sizes s, double tolerance) {
  row r;
  for (int64_t b = 0; b < s.b; b++)
    for (int64_t h = 0; h < s.h; h++)
      for (int64_t i = 0; i < s.tq; i++) {
        weigh(c, 0, s, b, h, i, &r);
        for (int64_t e = 0; e < s.e; e++) {
          long double want = 0;
          for (int64_t j = 0; j < s.tk; j++)
            want += r.w[j] * at(&c->in[2], b, h, j, e);
          assert_close(by_time(&c->out[0], b, h, i, e), (double)want,
                       tolerance);
        }
        assert_close(get(&c->out[1], (b * s.h + h) * s.tq + i),
                     r.sum > 0 ? (double)(r.top + logl(r.sum)) : 0, tolerance);
      }
}

/* dq, dk, dv of one head by their formulas. */
static void check_backward(const call *c, sizes s, double tolerance) {
  static long double dq[256][80], dk[256][80], dv[256][80];
  row r;
  for (int64_t b = 0; b < s.b; b++)
    for (int64_t h = 0; h < s.h; h++) {
      memset(dq, 0, sizeof dq);
      memset(dk, 0, sizeof dk);
      memset(dv, 0, sizeof dv);
      for (int64_t i = 0; i < s.tq; i++) {
        long double dw[256], along = 0;
        weigh(c, 1, s, b, h, i, &r);
        for (int64_t j = 0; j < s.tk; j++) {
          dw[j] = 0;
          for (int64_t e = 0; e < s.e; e++) {
            const long double dy = by_time(&c->in[0], b, h, i, e);
            dw[j] += dy * at(&c->in[3], b, h, j, e);
            dv[j][e] += r.w[j] * dy;
          }
          along += r.w[j] * dw[j];
        }
        for (int64_t j = 0; j < s.tk; j++)
          for (int64_t d = 0; d < s.d; d++) {
            const long double ds = c->reals[0] * r.w[j] * (dw[j] - along);
            dq[i][d] += ds * at(&c->in[2], b, h, j, d);
            dk[j][d] += ds * at(&c->in[1], b, h, i, d);
          }
      }
      for (int64_t i = 0; i < s.tq; i++)
        for (int64_t d = 0; d < s.d; d++)
          assert_close(by_time(&c->out[0], b, h, i, d), (double)dq[i][d],
                       tolerance);
      for (int64_t j = 0; j < s.tk; j++) {
        for (int64_t d = 0; d < s.d; d++)
          assert_close(by_time(&c->out[1], b, h, j, d), (double)dk[j][d],
                       tolerance);
        for (int64_t e = 0; e < s.e; e++)
          assert_close(by_time(&c->out[2], b, h, j, e), (double)dv[j][e],
                       tolerance);
      }
    }
}

/* The same query, key and value arrays, with dout, out and lse around. */
static call backward_of(const call *c) {
  call g = *c;
  g.op = "attention_grad";
  g.n_in = 6;
  g.in[0] = array_random((rp_dtype)c->out[0].type.dtype, 4,
                         c->out[0].type.dims, 77);
  for (int i = 0; i < 3; i++) g.in[1 + i] = c->in[i];
  g.in[4] = c->out[0];
  g.in[5] = c->out[1];
  return g;
}

static void computes_values_and_gradients(void **state) {
  (void)state;
  for (int k = 0; k < SIZES; k++)
    for (int causal = 0; causal < 2; causal++)
      for (int wide = 0; wide < 2; wide++) {
        const double tolerance = wide ? 1e-12 : 2e-5;
        call c = made(all[k], wide ? RP_F64 : RP_F32, causal,
                      100 + (uint64_t)k);
        call_check(&c);
        check_forward(&c, all[k], tolerance);
        call g = backward_of(&c);
        call_check(&g);
        check_backward(&g, all[k], tolerance);
        call_free(&g);
      }
}

/* Dropout leaves the bits alone that threads might change. */
static void draws_the_same_on_any_thread(void **state) {
  (void)state;
  for (int k = 0; k < SIZES; k++) {
    call c = made(all[k], RP_F32, 1, 300 + (uint64_t)k);
    c.reals[1] = 0.25;
    call_check(&c);
    call g = backward_of(&c);
    call_check(&g);
    call_free(&g);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(computes_values_and_gradients),
      cmocka_unit_test(draws_the_same_on_any_thread),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
