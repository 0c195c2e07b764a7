/* Softmax and its kin against long double, along every dim, in place and with
   any number of threads. */
#include "kernel.h"

typedef struct shape {
  int rank;
  int64_t dims[4];
} shape;

static const shape shapes[] = {
    {1, {1}}, {1, {0}}, {1, {7}}, {2, {0, 3}}, {2, {5, 33}}, {3, {4, 9, 70}},
    {4, {2, 3, 4, 5}}, {2, {300, 256}}, {2, {256, 300}}, {2, {3, 5000}},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static int64_t stride_of(const rp_type *x, int dim) {
  int64_t stride = 1;
  for (int d = dim + 1; d < x->rank; d++) stride *= x->dims[d];
  return stride;
}

/* Calls visit(first element, n, stride) for each line along dim. */
typedef void visitor(call *c, int64_t first, int64_t n, int64_t stride);

static void each_line(call *c, int dim, visitor *visit) {
  const rp_type *x = &c->in[0].type;
  const int64_t stride = stride_of(x, dim), n = x->dims[dim];
  for (int64_t i = 0; i < rp_type_count(x); i++)
    if (i / stride % n == 0) visit(c, i, n, stride);
}

static long double lse_of(const rp_array *x, int64_t first, int64_t n,
                          int64_t stride) {
  long double top = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; i++)
    top = fmaxl(top, get(x, first + i * stride));
  for (int64_t i = 0; i < n; i++)
    sum += expl(get(x, first + i * stride) - top);
  return top + logl(sum);
}

static void softmax_line(call *c, int64_t first, int64_t n, int64_t stride) {
  const long double lse = lse_of(&c->in[0], first, n, stride);
  for (int64_t i = 0; i < n; i++) {
    const int64_t at = first + i * stride;
    const double want = (double)expl(get(&c->in[0], at) - lse);
    assert_close(get(&c->out[0], at) / (want + 1e-30), want / (want + 1e-30),
                 tolerance_of((rp_dtype)c->in[0].type.dtype));
  }
}

static void log_softmax_line(call *c, int64_t first, int64_t n,
                             int64_t stride) {
  const long double lse = lse_of(&c->in[0], first, n, stride);
  for (int64_t i = 0; i < n; i++) {
    const int64_t at = first + i * stride;
    assert_close(get(&c->out[0], at), (double)(get(&c->in[0], at) - lse),
                 tolerance_of((rp_dtype)c->in[0].type.dtype));
  }
}

static void softmax_grad_line(call *c, int64_t first, int64_t n,
                              int64_t stride) {
  long double along = 0;
  for (int64_t i = 0; i < n; i++) {
    const int64_t at = first + i * stride;
    along += (long double)get(&c->in[0], at) * get(&c->in[1], at);
  }
  for (int64_t i = 0; i < n; i++) {
    const int64_t at = first + i * stride;
    const long double want =
        get(&c->in[1], at) * (get(&c->in[0], at) - along);
    assert_close(get(&c->out[0], at), (double)want,
                 sqrt((double)n) *
                     tolerance_of((rp_dtype)c->in[0].type.dtype));
  }
}

static void log_softmax_grad_line(call *c, int64_t first, int64_t n,
                                  int64_t stride) {
  long double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += get(&c->in[0], first + i * stride);
  for (int64_t i = 0; i < n; i++) {
    const int64_t at = first + i * stride;
    const long double want =
        get(&c->in[0], at) - expl(get(&c->in[1], at)) * sum;
    assert_close(get(&c->out[0], at), (double)want,
                 sqrt((double)n) *
                     tolerance_of((rp_dtype)c->in[0].type.dtype));
  }
}

static void along_every_dim(void **state) {
  const struct {
    const char *op;
    int inputs;
    visitor *visit;
  } ops[] = {
      {"softmax", 1, softmax_line}, {"log_softmax", 1, log_softmax_line},
      {"softmax_grad", 2, softmax_grad_line},
      {"log_softmax_grad", 2, log_softmax_grad_line},
  };
  for (int o = 0; o < 4; o++)
    for (int s = 0; s < 2 * SHAPES; s++) {
      const shape *shape = &shapes[s / 2];
      const rp_dtype dtype = s % 2 ? RP_F64 : RP_F32;
      call c = {.op = ops[o].op, .n_in = ops[o].inputs, .n_ints = 1};
      for (int i = 0; i < c.n_in; i++)
        c.in[i] = array_random(dtype, shape->rank, shape->dims,
                               (uint64_t)(s + 7 * i));
      for (int dim = 0; dim < shape->rank; dim++) {
        c.ints[0] = dim;
        call_check(&c);
        each_line(&c, dim, ops[o].visit);
        call_free_outputs(&c);
      }
      c.n_out = 0;
      call_free(&c);
    }
}

/* Scores far apart neither overflow nor lose the greatest. */
static void large_scores(void **state) {
  const int64_t dims[2] = {2, 40};
  call c = {.op = "softmax", .n_in = 1, .n_ints = 1, .ints = {1}};
  c.in[0] = array_random(RP_F32, 2, dims, 1);
  for (int64_t j = 0; j < 80; j++) set(&c.in[0], j, j % 40 == 3 ? 3e38 : -3e38);
  call_check(&c);
  for (int64_t j = 0; j < 80; j++)
    assert_true(get(&c.out[0], j) == (j % 40 == 3 ? 1 : 0));
  call_free(&c);
}

static bool attends(const call *c, int64_t row, int64_t key) {
  const rp_type *x = &c->in[0].type;
  const int64_t keys = x->dims[x->rank - 1];
  if (c->ints[0]) {
    const int64_t queries = x->dims[x->rank - 2];
    if (key > row % queries + keys - queries) return false;
  }
  if (c->n_in < 2) return true;
  const rp_type *mask = &c->in[1].type;
  int64_t at = row * keys + key, place = 0, stride = 1;
  for (int k = 1; k <= mask->rank; k++) {
    const int64_t m = mask->dims[mask->rank - k], n = x->dims[x->rank - k];
    place += m == 1 ? 0 : at % n * stride;
    at /= n;
    stride *= m;
  }
  return get(&c->in[1], place) != 0;
}

static void check_scores(call *c) {
  call_check(c);
  const rp_type *x = &c->in[0].type;
  const int64_t keys = x->dims[x->rank - 1];
  const int64_t rows = keys ? rp_type_count(x) / keys : 0;
  for (int64_t row = 0; row < rows; row++) {
    long double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < keys; j++)
      if (attends(c, row, j))
        top = fmaxl(top, c->reals[0] * get(&c->in[0], row * keys + j));
    for (int64_t j = 0; j < keys; j++)
      if (attends(c, row, j))
        sum += expl(c->reals[0] * get(&c->in[0], row * keys + j) - top);
    for (int64_t j = 0; j < keys; j++) {
      const double y = get(&c->out[0], row * keys + j);
      if (!attends(c, row, j)) {
        assert_true(y == 0);
        continue;
      }
      const long double want =
          expl(c->reals[0] * get(&c->in[0], row * keys + j) - top) / sum;
      assert_close(y, (double)want, tolerance_of((rp_dtype)x->dtype));
    }
  }
}

static void attention_scores(void **state) {
  const shape scores[] = {{4, {2, 3, 20, 20}}, {3, {2, 70, 70}},
                          {2, {5, 40}}, {2, {40, 5}}, {3, {3, 1, 33}},
                          {3, {2, 7, 1}}, {2, {0, 4}}, {2, {4, 0}}};
  const shape masks[] = {{0, {0}}, {1, {-1}}, {2, {-1, -1}}, {2, {-1, 1}},
                         {2, {1, -1}}};
  const double scales[] = {0.125, -0.5, 1};
  for (int s = 0; s < 8; s++)
    for (int m = -1; m < 5; m++)
      for (int v = 0; v < 4; v++) {
        const rp_dtype dtype = v & 1 ? RP_F64 : RP_F32;
        call c = {.op = "scaled_masked_softmax", .n_in = m < 0 ? 1 : 2,
                  .n_ints = 1, .ints = {v >> 1}, .n_reals = 1,
                  .reals = {scales[(s + v) % 3]}};
        c.in[0] = array_random(dtype, scores[s].rank, scores[s].dims, 3);
        if (m >= 0) {
          int64_t dims[4];
          for (int k = 0; k < masks[m].rank; k++)
            dims[k] = masks[m].dims[k] == 1
                          ? 1
                          : scores[s].dims[scores[s].rank - masks[m].rank + k];
          c.in[1] = array_random(RP_BOOL, masks[m].rank, dims, 5);
        }
        check_scores(&c);
        call_free(&c);
      }
  /* A whole mask, some rows of it all false. */
  const int64_t dims[4] = {2, 3, 5, 40};
  call c = {.op = "scaled_masked_softmax", .n_in = 2, .n_ints = 1,
            .ints = {0}, .n_reals = 1, .reals = {0.5}};
  c.in[0] = array_random(RP_F32, 4, dims, 3);
  c.in[1] = array_random(RP_BOOL, 4, dims, 4);
  for (int64_t j = 0; j < 80; j++) set(&c.in[1], j, 0);
  check_scores(&c);
  call_free(&c);
}

/* 700 keys: rows short enough that the masked part is skipped. */
static void attention_scores_grad(void **state) {
  const int64_t shapes[2][3] = {{3, 30, 41}, {1, 700, 700}};
  for (int v = 0; v < 8; v++) {
    const rp_dtype dtype = v & 1 ? RP_F64 : RP_F32;
    const int64_t *dims = shapes[v >> 2], keys = dims[2];
    call forward = {.op = "scaled_masked_softmax", .n_in = 1, .n_ints = 1,
                    .ints = {v >> 1 & 1}, .n_reals = 1, .reals = {0.3},
                    .over = -1};
    forward.in[0] = array_random(dtype, 3, dims, 6);
    assert_int_equal(call_run(&forward, 1), RP_OK);
    call c = {.op = "scaled_masked_softmax_grad", .n_in = 2, .n_ints = 1,
              .ints = {v >> 1 & 1}, .n_reals = 1, .reals = {0.3}};
    c.in[0] = array_random(dtype, 3, dims, 7);
    c.in[1] = forward.out[0];
    call_check(&c);
    for (int64_t row = 0; row < dims[0] * dims[1]; row++) {
      long double along = 0;
      for (int64_t j = row * keys; j < (row + 1) * keys; j++)
        along += (long double)get(&c.in[0], j) * get(&c.in[1], j);
      for (int64_t j = row * keys; j < (row + 1) * keys; j++)
        assert_close(
            get(&c.out[0], j),
            (double)(0.3L * get(&c.in[1], j) * (get(&c.in[0], j) - along)),
            tolerance_of(dtype));
    }
    free(forward.in[0].data);
    call_free(&c);
  }
}

static void bad_calls(void **state) {
  const int64_t dims[2] = {4, 5};
  rp_type out;
  call c = {.op = "softmax", .n_in = 1, .n_ints = 1, .ints = {2}};
  c.in[0] = array_random(RP_F32, 2, dims, 1);
  assert_int_equal(call_type(&c, &out), RP_VALUE);
  c.op = "scaled_masked_softmax", c.n_in = 2, c.ints[0] = 0;
  c.in[1] = array_random(RP_F32, 2, dims, 1);
  assert_int_equal(call_type(&c, &out), RP_DTYPE);
  c.in[1].type.dtype = RP_BOOL;
  assert_int_equal(call_type(&c, &out), RP_OK);
  c.in[1].type.dims[1] = 4;
  assert_int_equal(call_type(&c, &out), RP_SHAPE);
  c.in[0].type.rank = 1, c.n_in = 1, c.ints[0] = 1;
  assert_int_equal(call_type(&c, &out), RP_SHAPE);
  c.n_in = 2, c.n_out = 0;
  call_free(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(along_every_dim),
      cmocka_unit_test(large_scores),
      cmocka_unit_test(attention_scores),
      cmocka_unit_test(attention_scores_grad),
      cmocka_unit_test(bad_calls),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
