/* Reductions against sums taken one by one in long double, over every set of
   dims of shapes that reach each path: rows, columns and both, short, odd,
   empty and long enough to be cut into chunks. */
#include "kernel.h"

typedef struct shape {
  int rank;
  int64_t dims[4];
} shape;

static const shape shapes[] = {
    {0, {0}}, {1, {1}}, {1, {7}}, {1, {0}}, {2, {3, 0}}, {2, {5, 33}},
    {3, {4, 3, 70}}, {4, {2, 3, 4, 5}}, {4, {3, 1, 17, 2}},
    {2, {1000, 70}}, {2, {70, 1000}}, {2, {2, 40000}}, {2, {40000, 3}},
    {3, {150, 3, 230}}, {1, {100001}}, {2, {33, 4099}},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Where x's element i goes in the output. */
static int64_t output_of(const rp_type *x, uint32_t set, int64_t i) {
  int64_t at = 0, stride = 1;
  for (int d = x->rank - 1; d >= 0; d--) {
    if (!(set >> d & 1u)) {
      at += i % x->dims[d] * stride;
      stride *= x->dims[d];
    }
    i /= x->dims[d];
  }
  return at;
}

typedef struct reference {
  int64_t outputs, n;
  long double *sum, *square, *deviation, *exps;
  double *max, *min;
} reference;

static reference reference_of(const rp_array *x, uint32_t set) {
  const int64_t count = rp_type_count(&x->type);
  reference r = {.outputs = 1, .n = 1};
  for (int d = 0; d < x->type.rank; d++) {
    if (set >> d & 1u) r.n *= x->type.dims[d];
    else r.outputs *= x->type.dims[d];
  }
  const size_t m = (size_t)r.outputs + 1;
  r.sum = calloc(m, sizeof *r.sum);
  r.square = calloc(m, sizeof *r.square);
  r.deviation = calloc(m, sizeof *r.deviation);
  r.exps = calloc(m, sizeof *r.exps);
  r.max = malloc(m * sizeof *r.max);
  r.min = malloc(m * sizeof *r.min);
  for (size_t k = 0; k < m; k++) r.max[k] = -INFINITY, r.min[k] = INFINITY;
  for (int64_t i = 0; i < count; i++) {
    const int64_t k = output_of(&x->type, set, i);
    const double v = get(x, i);
    r.sum[k] += v;
    r.square[k] += (long double)v * v;
    r.exps[k] += expl(v);
    if (v > r.max[k]) r.max[k] = v;
    if (v < r.min[k]) r.min[k] = v;
  }
  for (int64_t i = 0; i < count; i++) {
    const int64_t k = output_of(&x->type, set, i);
    const long double d = get(x, i) - r.sum[k] / r.n;
    r.deviation[k] += d * d;
  }
  return r;
}

static void reference_free(reference *r) {
  free(r->sum), free(r->square), free(r->deviation), free(r->exps);
  free(r->max), free(r->min);
}

static void check_output(call *c, int64_t outputs, double tolerance,
                         double (*value)(const reference *, int64_t),
                         const reference *r) {
  call_check(c);
  assert_int_equal(rp_type_count(&c->out[0].type), outputs);
  for (int64_t k = 0; k < outputs; k++)
    assert_close(get(&c->out[0], k), value(r, k), tolerance);
  call_free_outputs(c);
}

static double sum_of(const reference *r, int64_t k) {
  return (double)r->sum[k];
}
static double mean_of(const reference *r, int64_t k) {
  return (double)(r->sum[k] / r->n);
}
static double max_of(const reference *r, int64_t k) { return r->max[k]; }
static double min_of(const reference *r, int64_t k) { return r->min[k]; }
static double var_of(const reference *r, int64_t k) {
  return r->n > 1 ? (double)(r->deviation[k] / (r->n - 1)) : NAN;
}
static double logsumexp_of(const reference *r, int64_t k) {
  return (double)logl(r->exps[k]);
}

static void over_every_set_of_dims(void **state) {
  for (int s = 0; s < 2 * SHAPES; s++) {
    const shape *shape = &shapes[s / 2];
    const rp_dtype dtype = s % 2 ? RP_F64 : RP_F32;
    call c = {.n_in = 1};
    c.in[0] = array_random(dtype, shape->rank, shape->dims, (uint64_t)s);
    for (uint32_t set = 0; set < 1u << shape->rank; set++) {
      if (set == 0 && shape->rank > 0) continue; /* no dims mean all */
      reference r = reference_of(&c.in[0], set);
      const double tolerance = tolerance_of(dtype);
      const double large = tolerance * (1 + sqrt((double)r.n));
      c.ints[0] = set & 1; /* keep: changes the dims alone */
      c.n_ints = 1;
      for (int d = 0; d < shape->rank; d++)
        if (set >> d & 1u) c.ints[c.n_ints++] = d;
      c.op = "sum";
      check_output(&c, r.outputs, large, sum_of, &r);
      c.op = "mean";
      check_output(&c, r.outputs, tolerance, mean_of, &r);
      c.op = "logsumexp";
      check_output(&c, r.outputs, 2 * tolerance, logsumexp_of, &r);
      if (r.n > 0) {
        c.op = "max";
        check_output(&c, r.outputs, 0, max_of, &r);
        c.op = "min";
        check_output(&c, r.outputs, 0, min_of, &r);
      }
      memmove(c.ints + 2, c.ints + 1, sizeof c.ints - 2 * sizeof *c.ints);
      c.ints[1] = 1;
      c.n_ints++;
      c.op = "var";
      if (r.n > 0) check_output(&c, r.outputs, 2 * tolerance, var_of, &r);
      reference_free(&r);
    }
    c.n_out = 0;
    call_free(&c);
  }
}

static void keep_and_defaults_shape_the_result(void **state) {
  const int64_t dims[3] = {4, 3, 5};
  call c = {.op = "sum", .n_in = 1, .ints = {1, 1}, .n_ints = 2};
  c.in[0] = array_random(RP_F32, 3, dims, 1);
  rp_type out;
  assert_int_equal(call_type(&c, &out), RP_OK);
  assert_int_equal(out.rank, 3);
  assert_int_equal(out.dims[1], 1);
  c.ints[0] = 0;
  assert_int_equal(call_type(&c, &out), RP_OK);
  assert_int_equal(out.rank, 2);
  assert_int_equal(out.dims[1], 5);
  c.n_ints = 0;
  assert_int_equal(call_type(&c, &out), RP_OK);
  assert_int_equal(out.rank, 0);
  c.n_ints = 2, c.ints[1] = 3;
  assert_int_equal(call_type(&c, &out), RP_VALUE);
  c.n_ints = 3, c.ints[1] = c.ints[2] = 1;
  assert_int_equal(call_type(&c, &out), RP_VALUE);
  c.n_out = 0;
  call_free(&c);
  const int64_t empty[2] = {3, 0};
  call e = {.op = "max", .n_in = 1, .ints = {0, 1}, .n_ints = 2};
  e.in[0] = array_random(RP_F32, 2, empty, 1);
  assert_int_equal(call_type(&e, &out), RP_SHAPE);
  e.ints[1] = 0; /* over 3 elements, for none: nothing is asked */
  assert_int_equal(call_type(&e, &out), RP_OK);
  e.n_out = 0;
  call_free(&e);
}

static void nan_and_infinity(void **state) {
  const int64_t dims[2] = {3, 70};
  for (int over = 0; over < 2; over++) {
    call c = {.n_in = 1, .n_ints = 2, .ints = {0, over}};
    c.in[0] = array_random(RP_F32, 2, dims, 5);
    for (int64_t j = 0; j < 70; j++) set(&c.in[0], j, -INFINITY);
    set(&c.in[0], 70 + 33, NAN);
    set(&c.in[0], 140 + 3, INFINITY);
    c.op = "max";
    call_check(&c);
    if (over == 1) {
      assert_true(get(&c.out[0], 0) == -INFINITY);
      assert_true(isnan(get(&c.out[0], 1)));
      assert_true(get(&c.out[0], 2) == INFINITY);
    } else {
      assert_true(isnan(get(&c.out[0], 33)));
      assert_true(get(&c.out[0], 3) == INFINITY);
    }
    call_free_outputs(&c);
    c.op = "logsumexp";
    call_check(&c);
    if (over == 1) {
      assert_true(get(&c.out[0], 0) == -INFINITY);
      assert_true(isnan(get(&c.out[0], 1)));
      assert_true(get(&c.out[0], 2) == INFINITY);
    } else {
      assert_true(isnan(get(&c.out[0], 33)));
      assert_true(get(&c.out[0], 3) == INFINITY);
    }
    call_free(&c);
  }
}

/* x = 10^4 + small: sums of squares minus squared sums would leave nothing
   of f32's 24 bits. */
static void variance_is_stable(void **state) {
  const int64_t dims[2] = {200, 300};
  for (int over = 0; over < 2; over++) {
    call c = {.op = "var", .n_in = 1, .n_ints = 3, .ints = {0, 0, over}};
    c.in[0] = array_random(RP_F32, 2, dims, 3);
    for (int64_t i = 0; i < 60000; i++)
      set(&c.in[0], i, 1e4 + get(&c.in[0], i));
    reference r = reference_of(&c.in[0], 1u << over);
    call_check(&c);
    for (int64_t k = 0; k < r.outputs; k++)
      assert_close(get(&c.out[0], k), (double)(r.deviation[k] / r.n), 1e-5);
    reference_free(&r);
    call_free(&c);
  }
}

static void sum_to_undoes_broadcasting(void **state) {
  const int64_t dims[3] = {60, 7, 90};
  const struct {
    int rank;
    int64_t dims[3];
    uint32_t set;
  } cases[] = {
      {1, {90}, 3}, {2, {7, 1}, 5}, {3, {60, 1, 90}, 2}, {0, {0}, 7},
      {3, {60, 7, 90}, 0}, {2, {1, 1}, 7}, {3, {60, 1, 1}, 6},
  };
  call c = {.op = "sum_to", .n_in = 1};
  c.in[0] = array_random(RP_F32, 3, dims, 9);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    memcpy(c.ints, cases[i].dims, sizeof cases[i].dims);
    c.n_ints = cases[i].rank;
    reference r = reference_of(&c.in[0], cases[i].set);
    check_output(&c, r.outputs, 1e-4, sum_of, &r);
    reference_free(&r);
  }
  c.ints[0] = 8, c.n_ints = 1;
  rp_type out;
  assert_int_equal(call_type(&c, &out), RP_SHAPE);
  c.n_out = 0;
  call_free(&c);
}

static void squares(void **state) {
  const int64_t sizes[] = {0, 1, 31, 2049, 100003};
  for (int i = 0; i < 10; i++) {
    call c = {.op = "sum_squares", .n_in = 1};
    const rp_dtype dtype = i % 2 ? RP_F64 : RP_F32;
    c.in[0] = array_random(dtype, 1, &sizes[i / 2], (uint64_t)i);
    reference r = reference_of(&c.in[0], 1);
    call_check(&c);
    const double value = (double)r.square[0];
    assert_close(get(&c.out[0], 0) / (1 + value), value / (1 + value),
                 tolerance_of(dtype));
    reference_free(&r);
    call_free(&c);
  }
}

static void integers_and_bools(void **state) {
  const rp_dtype dtypes[] = {RP_I32, RP_I64, RP_BOOL};
  for (int s = 0; s < 3 * SHAPES; s++) {
    const shape *shape = &shapes[s / 3];
    const rp_dtype dtype = dtypes[s % 3];
    call c = {.n_in = 1};
    c.in[0] = array_random(dtype, shape->rank, shape->dims, (uint64_t)s);
    for (uint32_t set = 1; set < 1u << shape->rank; set++) {
      reference r = reference_of(&c.in[0], set);
      c.n_ints = 1;
      for (int d = 0; d < shape->rank; d++)
        if (set >> d & 1u) c.ints[c.n_ints++] = d;
      c.op = "sum";
      check_output(&c, r.outputs, 0, sum_of, &r);
      if (dtype != RP_BOOL && r.n > 0) {
        c.op = "max";
        check_output(&c, r.outputs, 0, max_of, &r);
        assert_int_equal(c.out[0].type.dtype, dtype);
        c.op = "min";
        check_output(&c, r.outputs, 0, min_of, &r);
      }
      reference_free(&r);
    }
    c.n_out = 0;
    call_free(&c);
  }
  /* 2^31 + 2^31 does not fit in i32: sums are i64. */
  const int64_t two = 2;
  call c = {.op = "sum", .n_in = 1};
  c.in[0] = array_random(RP_I32, 1, &two, 1);
  set(&c.in[0], 0, INT32_MAX), set(&c.in[0], 1, INT32_MAX);
  call_check(&c);
  assert_int_equal(c.out[0].type.dtype, RP_I64);
  assert_true(((int64_t *)c.out[0].data)[0] == 2 * (int64_t)INT32_MAX);
  call_free(&c);
}

static void argmax_takes_the_first(void **state) {
  const rp_dtype dtypes[] = {RP_F32, RP_F64, RP_I32, RP_I64};
  for (int s = 0; s < 4 * SHAPES; s++) {
    const shape *shape = &shapes[s / 4];
    call c = {.op = "argmax", .n_in = 1, .n_ints = 2};
    c.in[0] = array_random(dtypes[s % 4], shape->rank, shape->dims, 4);
    const rp_type *x = &c.in[0].type;
    const int64_t count = rp_type_count(x);
    /* Coarse values: ties. */
    for (int64_t i = 0; i < count; i++)
      set(&c.in[0], i, floor(2 * get(&c.in[0], i)));
    for (int dim = -1; dim < shape->rank; dim++) {
      if (count == 0) continue;
      const uint32_t set = dim < 0 ? (1u << x->rank) - 1 : 1u << dim;
      int64_t inner = 1, outputs = 1;
      for (int d = 0; d < x->rank; d++) {
        if (!(set >> d & 1u)) outputs *= x->dims[d];
        if (dim >= 0 && d > dim) inner *= x->dims[d];
      }
      int64_t *best = malloc((size_t)outputs * sizeof *best);
      for (int64_t k = 0; k < outputs; k++) best[k] = -1;
      for (int64_t i = 0; i < count; i++) {
        int64_t *b = &best[output_of(x, set, i)];
        if (*b < 0 || get(&c.in[0], i) > get(&c.in[0], *b)) *b = i;
      }
      c.ints[0] = dim % 2, c.ints[1] = dim;
      call_check(&c);
      for (int64_t k = 0; k < outputs; k++)
        assert_int_equal(((int64_t *)c.out[0].data)[k],
                         dim < 0 ? best[k]
                                 : best[k] / inner % x->dims[dim]);
      call_free_outputs(&c);
      free(best);
    }
    c.n_out = 0;
    call_free(&c);
  }
  const int64_t dims[2] = {2, 40};
  for (int dim = 0; dim < 2; dim++) {
    call c = {.op = "argmax", .n_in = 1, .n_ints = 2, .ints = {0, dim}};
    c.in[0] = array_random(RP_F32, 2, dims, 1);
    set(&c.in[0], 40 + 7, NAN), set(&c.in[0], 40 + 9, NAN);
    call_check(&c);
    assert_int_equal(((int64_t *)c.out[0].data)[dim ? 1 : 7], dim ? 7 : 1);
    call_free(&c);
  }
}

static void cumulative_sums(void **state) {
  const rp_dtype dtypes[] = {RP_F32, RP_F64, RP_I32, RP_I64};
  for (int s = 0; s < 4 * SHAPES; s++) {
    const shape *shape = &shapes[s / 4];
    const rp_dtype dtype = dtypes[s % 4];
    call c = {.op = "cumsum", .n_in = 1, .n_ints = 2};
    c.in[0] = array_random(dtype, shape->rank, shape->dims, 4);
    const rp_type *x = &c.in[0].type;
    const int64_t count = rp_type_count(x);
    for (int i = 0; i < 2 * shape->rank; i++) {
      const int dim = i / 2, reverse = i % 2;
      int64_t stride = 1;
      for (int d = dim + 1; d < x->rank; d++) stride *= x->dims[d];
      c.ints[0] = dim, c.ints[1] = reverse;
      call_check(&c);
      long double *sum = calloc((size_t)count + 1, sizeof *sum);
      for (int64_t k = 0; k < count; k++) {
        const int64_t at = reverse ? count - 1 - k : k;
        const int64_t place = at / stride % x->dims[dim];
        const bool first = place == (reverse ? x->dims[dim] - 1 : 0);
        sum[at] = get(&c.in[0], at) +
                  (first ? 0 : sum[reverse ? at + stride : at - stride]);
        assert_close(get(&c.out[0], at), (double)sum[at],
                     rp_dtype_is_float(dtype) ? tolerance_of(dtype) : 0);
      }
      free(sum);
      call_free_outputs(&c);
    }
    c.n_out = 0;
    call_free(&c);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(over_every_set_of_dims),
      cmocka_unit_test(keep_and_defaults_shape_the_result),
      cmocka_unit_test(nan_and_infinity),
      cmocka_unit_test(variance_is_stable),
      cmocka_unit_test(sum_to_undoes_broadcasting),
      cmocka_unit_test(squares),
      cmocka_unit_test(integers_and_bools),
      cmocka_unit_test(argmax_takes_the_first),
      cmocka_unit_test(cumulative_sums),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
