/* Elementwise kernels: values against libm in f64, and for every op of the
   registry the property that layout, threads and lying in place change no
   bit. */
#include "blocks.h"

#include <math.h>
#include <omp.h>

#include "graph/op.h"

static rp_context *ctx;

static rp_status run_op(const char *name, rp_dtype dtype,
                        const rp_array *inputs, int n_in, const rp_array *out,
                        const int64_t *ints, const double *reals) {
  const rp_op *op = rp_op_find(name);
  assert_non_null(op);
  const rp_kernel *kernel = rp_backend_find(&rp_cpu, op, dtype);
  if (kernel == NULL) fail_msg("%s has no row for dtype %d", name, dtype);
  const rp_kernel_args args = {.in = inputs, .out = out, .n_in = n_in,
                               .n_out = 1, .ints = ints, .n_ints = ints != NULL,
                               .reals = reals, .n_reals = 2, .seed = 3,
                               .stream = 5};
  return kernel_run(kernel, ctx, args);
}

static double get(const rp_array *x, int64_t i) {
  return x->type.dtype == RP_F32 ? ((const float *)x->data)[i]
                                 : ((const double *)x->data)[i];
}
static void put(const rp_array *x, int64_t i, double value) {
  if (x->type.dtype == RP_F32) ((float *)x->data)[i] = (float)value;
  else ((double *)x->data)[i] = value;
}

/* ---- values -------------------------------------------------------------- */

static double normal_cdf(double x) { return 0.5 * erfc(-x / sqrt(2)); }
static double normal_density(double x) {
  return exp(-x * x / 2) / sqrt(2 * acos(-1));
}
static double tanh_u(double x) {
  return tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x));
}
static double logistic(double x) { return 1 / (1 + exp(-x)); }

static double neg_of(double x) { return -x; }
static double sign_of(double x) { return (x > 0) - (x < 0); }
static double square_of(double x) { return x * x; }
static double rsqrt_of(double x) { return 1 / sqrt(x); }
static double reciprocal_of(double x) { return 1 / x; }
static double pow_of(double x) { return pow(x, 1.7); }
static double clamp_of(double x) { return fmin(fmax(x, -0.75), 1.7); }
static double relu_of(double x) { return fmax(x, 0); }
static double silu_of(double x) { return x * logistic(x); }
static double gelu_of(double x) { return x * normal_cdf(x); }
static double gelu_tanh_of(double x) { return x / 2 * (1 + tanh_u(x)); }

/* scale: errors are of this size where the result is small by cancellation:
   a few ulps of the largest term. */
static const struct {
  const char *name;
  double (*f)(double);
  double low, high, scale;
  double reals[2];
} unary[] = {
    {"neg", neg_of, -9, 9, 0, {0}},
    {"abs", fabs, -9, 9, 0, {0}},
    {"sign", sign_of, -9, 9, 0, {0}},
    {"square", square_of, -9, 9, 0, {0}},
    {"exp", exp, -80, 80, 0, {0}},
    {"log", log, 1e-9, 1e9, 0, {0}},
    {"erf", erf, -5, 5, 0, {0}},
    {"sqrt", sqrt, 0, 1e9, 0, {0}},
    {"rsqrt", rsqrt_of, 1e-9, 1e9, 0, {0}},
    {"reciprocal", reciprocal_of, -9, 9, 0, {0}},
    {"sin", sin, -1e8, 1e8, 0, {0}},
    {"cos", cos, -1e8, 1e8, 0, {0}},
    {"pow_scalar", pow_of, 0, 9, 0, {1.7}},
    {"clamp", clamp_of, -3, 3, 0, {-0.75, 1.7}},
    {"relu", relu_of, -3, 3, 0, {0}},
    {"tanh", tanh, -5, 5, 0, {0}},
    {"sigmoid", logistic, -40, 40, 0, {0}},
    {"silu", silu_of, -40, 40, 0, {0}},
    {"gelu", gelu_of, -6, 6, 1, {0}},
    {"gelu_tanh", gelu_tanh_of, -4, 4, 1, {0}},
};

static double relu_slope(double y) { return y > 0; }
static double tanh_slope(double y) { return 1 - y * y; }
static double sigmoid_slope(double y) { return y * (1 - y); }
static double silu_slope(double x) {
  return logistic(x) * (1 + x * (1 - logistic(x)));
}
static double gelu_slope(double x) {
  return normal_cdf(x) + x * normal_density(x);
}
static double gelu_tanh_slope(double x) {
  const double t = tanh_u(x);
  const double du = sqrt(2 / acos(-1)) * (1 + 0.134145 * x * x);
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du;
}
static double clamp_slope(double x) { return x >= -0.75 && x <= 1.7; }

static const struct {
  const char *name;
  double (*slope)(double);
  double low, high;
  double reals[2];
} slopes[] = {
    {"relu_grad", relu_slope, -2, 2, {0}},
    {"tanh_grad", tanh_slope, -1, 1, {0}},
    {"sigmoid_grad", sigmoid_slope, 0, 1, {0}},
    {"silu_grad", silu_slope, -20, 20, {0}},
    {"gelu_grad", gelu_slope, -6, 6, {0}},
    {"gelu_tanh_grad", gelu_tanh_slope, -4, 4, {0}},
    {"clamp_grad", clamp_slope, -3, 3, {-0.75, 1.7}},
};

static double sum_of(double a, double b) { return a + b; }
static double difference_of(double a, double b) { return a - b; }
static double product_of(double a, double b) { return a * b; }
static double quotient_of(double a, double b) { return a / b; }
static double power_of(double a, double b) { return pow(fabs(a), b); }
static double loss_of(double x, double t) {
  return fmax(x, 0) - x * t + log1p(exp(-fabs(x)));
}
static const struct {
  const char *name;
  double (*f)(double, double);
  double scale;
} binary[] = {
    {"add", sum_of, 0},      {"sub", difference_of, 0},
    {"mul", product_of, 0},  {"div", quotient_of, 0},
    {"pow", power_of, 0},    {"maximum", fmax, 0},
    {"minimum", fmin, 0},    {"bce_with_logits", loss_of, 20},
};

enum { COUNT = 4099 };

/* Six ulps, or as many of `scale`: the functions' own at most 2.7, and a few
   roundings around them. */
static void check(const char *name, const rp_array *out, int64_t i,
                  double want, double scale) {
  const double got = get(out, i);
  const double eps = out->type.dtype == RP_F32 ? 0x1p-24 : 0x1p-53;
  if (!(fabs(got - want) <= 12 * eps * fmax(fabs(want), scale)))
    fail_msg("%s, element %d: %.17g, not %.17g", name, (int)i, got, want);
}

static void values_of(rp_dtype dtype) {
  const int64_t dims[1] = {COUNT};
  block a = block_of(dtype, 1, dims, 0, 1), b = block_of(dtype, 1, dims, 0, 2);
  block y = block_of(dtype, 1, dims, 0, 3);
  const rp_array *in[2] = {&a.array, &b.array};
  for (size_t k = 0; k < sizeof unary / sizeof *unary; k++) {
    uint64_t seed = k;
    for (int i = 0; i < COUNT; i++)
      put(in[0], i, unary[k].low + (unary[k].high - unary[k].low) *
                                       (0.5 + 0.5 * noise(&seed)));
    assert_int_equal(run_op(unary[k].name, dtype, in[0], 1, &y.array, NULL,
                            unary[k].reals), RP_OK);
    for (int i = 0; i < COUNT; i++)
      check(unary[k].name, &y.array, i, unary[k].f(get(in[0], i)),
            unary[k].scale * fabs(get(in[0], i)));
  }
  for (size_t k = 0; k < sizeof slopes / sizeof *slopes; k++) {
    uint64_t seed = k;
    for (int i = 0; i < COUNT; i++) {
      put(in[0], i, 3 * noise(&seed));
      put(in[1], i, slopes[k].low + (slopes[k].high - slopes[k].low) *
                                        (0.5 + 0.5 * noise(&seed)));
    }
    const rp_array pair[2] = {a.array, b.array};
    assert_int_equal(run_op(slopes[k].name, dtype, pair, 2, &y.array, NULL,
                            slopes[k].reals), RP_OK);
    for (int i = 0; i < COUNT; i++) {
      const double dy = get(in[0], i), x = get(in[1], i);
      check(slopes[k].name, &y.array, i, dy * slopes[k].slope(x),
            fabs(dy) * (1 + fabs(x)));
    }
  }
  for (size_t k = 0; k < sizeof binary / sizeof *binary; k++) {
    uint64_t seed = k;
    for (int i = 0; i < COUNT; i++) {
      const double x = 20 * noise(&seed);
      put(in[0], i, strcmp(binary[k].name, "pow") == 0 ? fabs(x) : x);
      put(in[1], i, noise(&seed) * 9);
    }
    const rp_array pair[2] = {a.array, b.array};
    assert_int_equal(run_op(binary[k].name, dtype, pair, 2, &y.array, NULL,
                            NULL), RP_OK);
    for (int i = 0; i < COUNT; i++)
      check(binary[k].name, &y.array, i,
            binary[k].f(get(in[0], i), get(in[1], i)),
            binary[k].scale * fabs(get(in[1], i)));
  }
  block_free(&a), block_free(&b), block_free(&y);
}
static void values_f32(void **state) { (void)state; values_of(RP_F32); }
static void values_f64(void **state) { (void)state; values_of(RP_F64); }

/* ---- layouts, threads, in place ------------------------------------------ */

/* Some views of the output's dims (A, B, C); the last is past one thread's
   share of elements. */
enum { A = 3, B = 50, C = 123 };

typedef enum view {
  WHOLE, PERMUTED, ROW, COLUMN, SCALAR, EVERY_OTHER, REPEATED, VIEWS
} view;

static block make_view(view v, rp_dtype dtype, uint64_t seed) {
  static const struct {
    int rank;
    int64_t dims[3], strides[3], elements;
  } views[VIEWS] = {
      [WHOLE] = {3, {A, B, C}, {B * C, C, 1}, A * B * C},
      [PERMUTED] = {3, {A, B, C}, {1, A * C, A}, A * B * C},
      [ROW] = {1, {C}, {1}, C},
      [COLUMN] = {2, {B, 1}, {1, 1}, B},
      [SCALAR] = {0, {0}, {0}, 1},
      [EVERY_OTHER] = {3, {A, B, C}, {2 * B * C, 2 * C, 2}, 2 * A * B * C},
      [REPEATED] = {3, {A, B, C}, {0, 1, 0}, B},
  };
  block b = block_new(dtype, views[v].elements, 0, seed);
  b.array.type = type_of(dtype, views[v].rank, views[v].dims);
  for (int d = 0; d < views[v].rank; d++)
    b.array.strides[d] = views[v].strides[d];
  return b;
}

/* The same values, written out. */
static block written_out(const rp_array *x) {
  const int64_t dims[3] = {A, B, C};
  const int size = (int)rp_dtype_size((rp_dtype)x->type.dtype);
  block b = block_of((rp_dtype)x->type.dtype, 3, dims, 0, 1);
  for (int64_t e = 0; e < A * B * C; e++) {
    const int64_t index[3] = {e / (B * C), e / C % B, e % C};
    int64_t at = 0;
    for (int d = 0; d < x->type.rank; d++)
      if (x->type.dims[d] != 1)
        at += index[3 - x->type.rank + d] * x->strides[d];
    memcpy((char *)b.array.data + e * size, (char *)x->data + at * size,
           (size_t)size);
  }
  return b;
}

/* dtypes of an op's inputs: t the row's, b bool, s a scalar of the row's. */
static const char *signature_of(const rp_op *op) {
  if (strcmp(op->name, "where") == 0) return "btt";
  if (strcmp(op->name, "masked_fill") == 0) return "tbs";
  return op->inputs == 1 ? "t" : "tt";
}

static void check_layouts(const rp_op *op, rp_dtype row, rp_dtype dtype,
                          rp_dtype out_dtype, const int64_t *ints) {
  const char *signature = signature_of(op);
  const int n_in = (int)strlen(signature);
  const double reals[2] = {0.3, 0.7};
  const int64_t dims[3] = {A, B, C};
  const size_t bytes = A * B * C * rp_dtype_size(out_dtype);
  for (int turn = 0; turn < VIEWS; turn++) {
    block in[3], whole[3];
    rp_array arrays[3], whole_arrays[3];
    for (int i = 0; i < n_in; i++) {
      const rp_dtype type = signature[i] == 'b' ? RP_BOOL : dtype;
      const view v = signature[i] == 's' ? SCALAR : (view)((turn + 3 * i) %
                                                           VIEWS);
      in[i] = make_view(v, type, (uint64_t)(turn * 3 + i + 1));
      whole[i] = written_out(&in[i].array);
      arrays[i] = in[i].array;
      whole_arrays[i] = signature[i] == 's' ? in[i].array : whole[i].array;
    }
    block want = block_of(out_dtype, 3, dims, 0, 8);
    block got = block_of(out_dtype, 3, dims, 0, 9);
    omp_set_num_threads(1);
    assert_int_equal(run_op(op->name, row, whole_arrays, n_in, &want.array,
                            ints, reals), RP_OK);
    for (int threads = 1; threads <= 3; threads++) {
      omp_set_num_threads(threads);
      memset(got.array.data, 0xee, bytes);
      assert_int_equal(run_op(op->name, row, arrays, n_in, &got.array, ints,
                              reals), RP_OK);
      if (memcmp(got.array.data, want.array.data, bytes) != 0)
        fail_msg("%s dtype %d, layouts %d on, %d threads: other bits",
                 op->name, dtype, turn, threads);
    }
    for (int i = 0; i < n_in; i++) {
      if (!(op->in_place >> i & 1) || signature[i] == 's' ||
          whole[i].array.type.dtype != (int32_t)out_dtype)
        continue;
      memcpy(got.array.data, whole[i].array.data, bytes);
      rp_array over[3];
      memcpy(over, arrays, sizeof over);
      over[i] = got.array;
      assert_int_equal(run_op(op->name, row, over, n_in, &got.array, ints,
                              reals), RP_OK);
      if (memcmp(got.array.data, want.array.data, bytes) != 0)
        fail_msg("%s dtype %d over input %d: other bits", op->name, dtype, i);
    }
    for (int i = 0; i < n_in; i++) block_free(&in[i]), block_free(&whole[i]);
    block_free(&want), block_free(&got);
  }
}

static bool is_relation(const rp_op *op) {
  return (op->flags & RP_NOT_DIFFERENTIABLE) && op->inputs == 2;
}

static void layout_and_threads_change_no_bit(void **state) {
  (void)state;
  int checked = 0;
  for (int k = 0; k < rp_op_count(); k++) {
    const rp_op *op = rp_op_at(k);
    if (!(op->flags & RP_ELEMENTWISE) || (op->flags & RP_EFFECT)) continue;
    for (int dtype = 0; dtype < RP_DTYPES; dtype++) {
      const bool where = strcmp(op->name, "where") == 0;
      const rp_dtype row = where ? RP_BOOL : (rp_dtype)dtype;
      if (rp_backend_find(&rp_cpu, op, row) == NULL) continue;
      if (strcmp(op->name, "cast") == 0) {
        for (int64_t to = 0; to < RP_DTYPES; to++)
          check_layouts(op, row, (rp_dtype)dtype, (rp_dtype)to, &to);
      } else {
        check_layouts(op, row, (rp_dtype)dtype,
                      is_relation(op) ? RP_BOOL : (rp_dtype)dtype, NULL);
      }
      checked++;
    }
  }
  assert_true(checked > 100);
}

static void zero_size_and_scalars(void **state) {
  (void)state;
  const int64_t none[3] = {4, 0, 3}, row[1] = {3};
  block a = block_of(RP_F32, 3, none, 0, 1), b = block_of(RP_F32, 1, row, 0, 2);
  block y = block_of(RP_F32, 3, none, 0, 3);
  const rp_array pair[2] = {a.array, b.array};
  assert_int_equal(run_op("add", RP_F32, pair, 2, &y.array, NULL, NULL), RP_OK);
  assert_int_equal(run_op("exp", RP_F32, &a.array, 1, &y.array, NULL, NULL),
                   RP_OK);
  block s = block_of(RP_F32, 0, NULL, 0, 4);
  block z = block_of(RP_F32, 0, NULL, 0, 5);
  assert_int_equal(run_op("neg", RP_F32, &s.array, 1, &z.array, NULL, NULL),
                   RP_OK);
  assert_true(get(&z.array, 0) == -get(&s.array, 0));
  block_free(&a), block_free(&b), block_free(&y), block_free(&s);
  block_free(&z);
}

/* ---- integers, bools, casts ---------------------------------------------- */

static void integers_i32(const char *name, const int32_t *a, const int32_t *b,
                         const int32_t *want, int n, const double *reals) {
  int32_t got[16];
  const int64_t dims[1] = {n};
  rp_array in[2] = {{.data = (void *)a, .strides = {1}},
                    {.data = (void *)b, .strides = {1}}};
  rp_array out = {.data = got, .type = type_of(RP_I32, 1, dims),
                  .strides = {1}};
  in[0].type = in[1].type = out.type;
  assert_int_equal(run_op(name, RP_I32, in, b ? 2 : 1, &out, NULL, reals),
                   RP_OK);
  for (int i = 0; i < n; i++)
    if (got[i] != want[i])
      fail_msg("%s, element %d: %d, not %d", name, i, got[i], want[i]);
}
static void integers_i64(const char *name, const int64_t *a, const int64_t *b,
                         const int64_t *want, int n, const double *reals) {
  int64_t got[16];
  const int64_t dims[1] = {n};
  rp_array in[2] = {{.data = (void *)a, .strides = {1}},
                    {.data = (void *)b, .strides = {1}}};
  rp_array out = {.data = got, .type = type_of(RP_I64, 1, dims),
                  .strides = {1}};
  in[0].type = in[1].type = out.type;
  assert_int_equal(run_op(name, RP_I64, in, b ? 2 : 1, &out, NULL, reals),
                   RP_OK);
  for (int i = 0; i < n; i++)
    if (got[i] != want[i])
      fail_msg("%s, element %d: %lld, not %lld", name, i, (long long)got[i],
               (long long)want[i]);
}

static void integer_arithmetic(void **state) {
  (void)state;
  enum { LO = INT32_MIN, HI = INT32_MAX };
  const int32_t a[] = {7, -7, 7, 0, LO, HI, 5, LO};
  const int32_t b[] = {2, 2, 0, 3, -1, 2, -3, LO};
  integers_i32("add", a, b, (int32_t[]){9, -5, 7, 3, HI, LO + 1, 2, 0}, 8,
               NULL);
  integers_i32("sub", a, b, (int32_t[]){5, -9, 7, -3, LO + 1, HI - 2, 8, 0}, 8,
               NULL);
  integers_i32("mul", a, b, (int32_t[]){14, -14, 0, 0, LO, -2, -15, 0}, 8,
               NULL);
  integers_i32("div", a, b, (int32_t[]){3, -3, 0, 0, LO, HI / 2, -1, 1}, 8,
               NULL);
  integers_i32("maximum", a, b, (int32_t[]){7, 2, 7, 3, -1, HI, 5, LO}, 8,
               NULL);
  integers_i32("minimum", a, b, (int32_t[]){2, -7, 0, 0, LO, 2, -3, LO}, 8,
               NULL);
  integers_i32("neg", a, NULL, (int32_t[]){-7, 7, -7, 0, LO, -HI, -5, LO}, 8,
               NULL);
  integers_i32("abs", a, NULL, (int32_t[]){7, 7, 7, 0, LO, HI, 5, LO}, 8,
               NULL);
  integers_i32("sign", a, NULL, (int32_t[]){1, -1, 1, 0, -1, 1, 1, -1}, 8,
               NULL);
  integers_i32("relu", a, NULL, (int32_t[]){7, 0, 7, 0, 0, HI, 5, 0}, 8, NULL);
  integers_i32("clamp", a, NULL, (int32_t[]){4, -2, 4, 0, -2, 4, 4, -2}, 8,
               (double[]){-2.5, 4.9});
  integers_i32("clamp", a, NULL, a, 8, (double[]){-INFINITY, INFINITY});
  integers_i32("square", a, NULL, (int32_t[]){49, 49, 49, 0, 0, 1, 25, 0}, 8,
               NULL);
  integers_i32("pow", (int32_t[]){2, -2, 3, -1, 1, 5, 0, 2},
               (int32_t[]){10, 3, 0, -3, -9, -1, 0, 33},
               (int32_t[]){1024, -8, 1, -1, 1, 0, 1, 0}, 8, NULL);
  integers_i32("pow_scalar", (int32_t[]){2, -3, 0}, NULL,
               (int32_t[]){8, -27, 0}, 3, (double[]){3});
  integers_i64("div", (int64_t[]){INT64_MIN, INT64_MIN, 9, -9},
               (int64_t[]){-1, 0, 4, 4}, (int64_t[]){INT64_MIN, 0, 2, -2}, 4,
               NULL);
  integers_i64("pow", (int64_t[]){3, -1, 10}, (int64_t[]){40, -2, 18},
               (int64_t[]){-6289078614652622815, 1, 1000000000000000000}, 3,
               NULL);
  integers_i64("clamp", (int64_t[]){INT64_MIN, -5, 5, INT64_MAX}, NULL,
               (int64_t[]){INT64_MIN, -5, 5, INT64_MAX}, 4,
               (double[]){-INFINITY, 1e300});
}

static void relations_and_nan(void **state) {
  (void)state;
  const double a[] = {1, 2, NAN, NAN, -0.0, INFINITY};
  const double b[] = {2, 1, 1, NAN, 0.0, INFINITY};
  const struct {
    const char *name;
    uint8_t want[6];
  } cases[] = {
      {"eq", {0, 0, 0, 0, 1, 1}}, {"ne", {1, 1, 1, 1, 0, 0}},
      {"lt", {1, 0, 0, 0, 0, 0}}, {"le", {1, 0, 0, 0, 1, 1}},
      {"gt", {0, 1, 0, 0, 0, 0}}, {"ge", {0, 1, 0, 0, 1, 1}},
  };
  const int64_t dims[1] = {6};
  rp_array in[2] = {{.data = (void *)a, .strides = {1}},
                    {.data = (void *)b, .strides = {1}}};
  in[0].type = in[1].type = type_of(RP_F64, 1, dims);
  uint8_t got[6];
  rp_array out = {.data = got, .type = type_of(RP_BOOL, 1, dims),
                  .strides = {1}};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    run_op(cases[k].name, RP_F64, in, 2, &out, NULL, NULL);
    assert_memory_equal(got, cases[k].want, 6);
  }
  double larger[6];
  rp_array extreme = {.data = larger, .type = in[0].type, .strides = {1}};
  for (int k = 0; k < 2; k++) {
    run_op(k ? "minimum" : "maximum", RP_F64, in, 2, &extreme, NULL, NULL);
    assert_true(isnan(larger[2]) && isnan(larger[3]));
    assert_true(larger[0] == (k ? 1 : 2) && larger[1] == (k ? 1 : 2));
    const rp_array turned[2] = {in[1], in[0]};
    run_op(k ? "minimum" : "maximum", RP_F64, turned, 2, &extreme, NULL, NULL);
    assert_true(isnan(larger[2]) && isnan(larger[3]));
  }
  run_op("relu", RP_F64, in, 1, &extreme, NULL, NULL);
  assert_true(isnan(larger[2]) && larger[5] == INFINITY);
  run_op("clamp", RP_F64, in, 1, &extreme, NULL, (double[]){-1, 1.5});
  assert_true(isnan(larger[2]) && larger[1] == 1.5);
}

static void casts(void **state) {
  (void)state;
  const double x[] = {2.9, -2.9, NAN, INFINITY, -INFINITY, 3e9, -3e9, 1e19,
                      -1e19, 0, 2147483647.0, -2147483648.0};
  enum { N = sizeof x / sizeof *x };
  const int64_t dims[1] = {N};
  rp_array in = {.data = (void *)x, .type = type_of(RP_F64, 1, dims),
                 .strides = {1}};
  int32_t i32[N];
  rp_array out = {.data = i32, .type = type_of(RP_I32, 1, dims),
                  .strides = {1}};
  const int32_t want_i32[N] = {2, -2, 0, INT32_MAX, INT32_MIN, INT32_MAX,
                               INT32_MIN, INT32_MAX, INT32_MIN, 0, INT32_MAX,
                               INT32_MIN};
  run_op("cast", RP_F64, &in, 1, &out, (int64_t[]){RP_I32}, NULL);
  assert_memory_equal(i32, want_i32, sizeof i32);
  int64_t i64[N];
  const int64_t want_i64[N] = {2, -2, 0, INT64_MAX, INT64_MIN, 3000000000,
                               -3000000000, INT64_MAX, INT64_MIN, 0,
                               2147483647, -2147483648};
  out.data = i64, out.type.dtype = RP_I64;
  run_op("cast", RP_F64, &in, 1, &out, (int64_t[]){RP_I64}, NULL);
  assert_memory_equal(i64, want_i64, sizeof i64);
  uint8_t truth[N];
  const uint8_t want_bool[N] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1};
  out.data = truth, out.type.dtype = RP_BOOL;
  run_op("cast", RP_F64, &in, 1, &out, (int64_t[]){RP_BOOL}, NULL);
  assert_memory_equal(truth, want_bool, sizeof truth);

  /* 1 + 2^-8 lies between two bf16: to even, down; 1 + 3 2^-8, up. */
  const float f[] = {1.00390625f, 1.01171875f, -0.0f, NAN, 3.4e38f};
  const uint16_t want_bf16[] = {0x3f80, 0x3f82, 0x8000, 0x7fc0, 0x7f80};
  uint16_t bf16[5];
  const int64_t five[1] = {5}, four[1] = {4};
  rp_array from = {.data = (void *)f, .type = type_of(RP_F32, 1, five),
                   .strides = {1}};
  rp_array to = {.data = bf16, .type = type_of(RP_BF16, 1, five),
                 .strides = {1}};
  run_op("cast", RP_F32, &from, 1, &to, (int64_t[]){RP_BF16}, NULL);
  assert_memory_equal(bf16, want_bf16, sizeof bf16);
  float back[5];
  rp_array again = {.data = back, .type = from.type, .strides = {1}};
  run_op("cast", RP_BF16, &to, 1, &again, (int64_t[]){RP_F32}, NULL);
  assert_true(back[0] == 1 && back[1] == 1.015625f && isnan(back[3]));

  /* i64 -> f32 rounds to even; i64 -> i32 keeps the low bits. */
  const int64_t big[] = {16777217, 9007199254740993, -1, 4294967297};
  float rounded[4];
  int32_t low[4];
  rp_array wide = {.data = (void *)big, .type = type_of(RP_I64, 1, four),
                   .strides = {1}};
  rp_array single = {.data = rounded, .type = type_of(RP_F32, 1, four),
                     .strides = {1}};
  run_op("cast", RP_I64, &wide, 1, &single, (int64_t[]){RP_F32}, NULL);
  assert_true(rounded[0] == 16777216 && rounded[1] == 0x1p53f);
  single.data = low, single.type.dtype = RP_I32;
  run_op("cast", RP_I64, &wide, 1, &single, (int64_t[]){RP_I32}, NULL);
  assert_true(low[0] == 16777217 && low[2] == -1 && low[3] == 1);
}

static void aranges(void **state) {
  (void)state;
  float start = 0.1f, step = 0.25f, y[5];
  const rp_array in[2] = {
      {.data = &start, .type = {.dtype = RP_F32}},
      {.data = &step, .type = {.dtype = RP_F32}}};
  const rp_array out = {.data = y, .type = type_of(RP_F32, 1, (int64_t[]){5}),
                        .strides = {1}};
  run_op("arange", RP_F32, in, 2, &out, (int64_t[]){5}, NULL);
  for (int i = 0; i < 5; i++)
    assert_true(y[i] == (float)((double)0.1f + i * 0.25));
  int64_t first = -3, stride = 2, z[4];
  const rp_array in64[2] = {{.data = &first, .type = {.dtype = RP_I64}},
                            {.data = &stride, .type = {.dtype = RP_I64}}};
  const rp_array out64 = {.data = z, .type = type_of(RP_I64, 1, (int64_t[]){4}),
                          .strides = {1}};
  run_op("arange", RP_I64, in64, 2, &out64, (int64_t[]){4}, NULL);
  assert_true(z[0] == -3 && z[1] == -1 && z[2] == 1 && z[3] == 3);
}

/* ---- main ---------------------------------------------------------------- */

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
      cmocka_unit_test(values_f32),
      cmocka_unit_test(values_f64),
      cmocka_unit_test(layout_and_threads_change_no_bit),
      cmocka_unit_test(zero_size_and_scalars),
      cmocka_unit_test(integer_arithmetic),
      cmocka_unit_test(relations_and_nan),
      cmocka_unit_test(casts),
      cmocka_unit_test(aranges),
  };
  return cmocka_run_group_tests_name("elementwise", tests, open_context,
                                     close_context);
}
