/* Convolution, pooling and normalisation by channels against long double
   loops over the definitions. */
#include "kernel.h"

static const rp_dtype dtypes[] = {RP_F32, RP_F64};

static rp_context *ctx;

/* ---- convolution -------------------------------------------------------- */

typedef struct conv_case {
  int64_t n, in, out, groups, size[2], kernel[2], ints[6];
} conv_case;

/* Of the last six the first two are rearranged in slices of the batch, and in
   parts of the channels; the others are Winograd's, the last with a slice that
   is short. */
static const conv_case convs[] = {
    {2, 3, 4, 1, {5, 6}, {3, 3}, {1, 1, 0, 0, 1, 1}},
    {1, 1, 1, 1, {1, 1}, {1, 1}, {1, 1, 0, 0, 1, 1}},
    {3, 5, 17, 1, {7, 9}, {3, 2}, {2, 3, 1, 2, 1, 1}},
    {2, 6, 9, 3, {8, 7}, {2, 3}, {1, 2, 2, 1, 3, 2}},
    {2, 16, 16, 16, {6, 5}, {3, 3}, {1, 1, 1, 1, 1, 1}},
    {0, 3, 4, 1, {5, 6}, {3, 3}, {1, 1, 0, 0, 1, 1}},
    {2, 3, 0, 1, {5, 6}, {3, 3}, {1, 1, 0, 0, 1, 1}},
    {9, 33, 35, 1, {32, 31}, {1, 1}, {1, 1, 0, 0, 1, 1}},
    {3, 260, 256, 1, {4, 4}, {3, 3}, {1, 1, 1, 1, 1, 1}},
    {2, 32, 48, 1, {6, 9}, {3, 3}, {1, 1, 0, 0, 1, 1}},
    {2, 48, 32, 1, {7, 4}, {3, 3}, {1, 1, 1, 2, 1, 1}},
    {1, 32, 32, 1, {3, 3}, {3, 3}, {1, 1, 1, 1, 1, 1}},
    {1, 32, 32, 1, {65, 70}, {3, 3}, {1, 1, 1, 1, 1, 1}},
};
enum { CONVS = sizeof convs / sizeof *convs };

typedef void visit(void *user, int64_t x, int64_t w, int64_t y);

static int64_t count_of(const conv_case *c, int d) {
  return (c->size[d] + 2 * c->ints[2 + d] - c->ints[4 + d] * (c->kernel[d] - 1)
          - 1) / c->ints[d] + 1;
}

/* Every product in the definition, by where its factors and its sum lie. */
static void each_product(const conv_case *c, visit *visit, void *user) {
  const int64_t in = c->in / c->groups, out = c->out / c->groups;
  for (int64_t n = 0; n < c->n; n++)
    for (int64_t o = 0; o < c->out; o++)
      for (int64_t i = 0; i < count_of(c, 0); i++)
        for (int64_t j = 0; j < count_of(c, 1); j++)
          for (int64_t k = 0; k < in; k++)
            for (int64_t a = 0; a < c->kernel[0]; a++)
              for (int64_t b = 0; b < c->kernel[1]; b++) {
                const int64_t row =
                    i * c->ints[0] - c->ints[2] + a * c->ints[4];
                const int64_t column =
                    j * c->ints[1] - c->ints[3] + b * c->ints[5];
                if (row < 0 || row >= c->size[0] || column < 0 ||
                    column >= c->size[1])
                  continue;
                visit(user,
                      ((n * c->in + o / out * in + k) * c->size[0] + row) *
                          c->size[1] + column,
                      ((o * in + k) * c->kernel[0] + a) * c->kernel[1] + b,
                      ((n * c->out + o) * count_of(c, 0) + i) *
                          count_of(c, 1) + j);
              }
}

typedef struct products {
  const rp_array *x, *w, *dy;
  double *y, *dx, *dw; /* sums, and the sums of what was added, absolute */
  double *size_y, *size_dx, *size_dw;
} products;

static void add_product(void *user, int64_t x, int64_t w, int64_t y) {
  products *p = user;
  const double vx = get(p->x, x), vw = get(p->w, w), vy = get(p->dy, y);
  p->y[y] += vx * vw, p->size_y[y] += fabs(vx * vw);
  p->dx[x] += vy * vw, p->size_dx[x] += fabs(vy * vw);
  p->dw[w] += vy * vx, p->size_dw[w] += fabs(vy * vx);
}

/* f32 sums may be off by a few roundings of the terms' sizes. */
static void assert_sums(const rp_array *got, const double *want,
                        const double *size, const rp_array *bias,
                        int64_t run) {
  const double unit = got->type.dtype == RP_F64 ? 1e-14 : 1e-6;
  for (int64_t i = 0; i < rp_type_count(&got->type); i++) {
    const double b = bias ? get(bias, i / run % bias->type.dims[0]) : 0;
    if (!(fabs(get(got, i) - want[i] - b) <= unit * (size[i] + fabs(b))))
      fail_msg("%g is not %g", get(got, i), want[i] + b);
  }
}

static bool is_winograd(const conv_case *c, rp_dtype dtype) {
  static const int64_t plain[2] = {1, 1};
  return dtype == RP_F32 && c->groups == 1 && c->kernel[0] == 3 &&
         c->kernel[1] == 3 && c->in % 16 == 0 && c->out % 16 == 0 &&
         c->in >= 32 && c->out >= 32 &&
         memcmp(c->ints, plain, sizeof plain) == 0 &&
         memcmp(c->ints + 4, plain, sizeof plain) == 0;
}

/* oneDNN may split work by threads: each count has values of its own. f64 and
   Winograd have one for all; what the latter adds up are the tile's values,
   not the element's alone. */
static void check_conv(call *c, const double *want, double *size,
                       const rp_array *bias, int64_t run, bool winograd) {
  const bool one = winograd || c->in[0].type.dtype == RP_F64;
  if (one) call_check(c);
  else c->over = -1;
  double most = 0;
  const int64_t n = winograd ? rp_type_count(&c->out[0].type) : 0;
  for (int64_t i = 0; i < n; i++) most = fmax(most, size[i]);
  for (int64_t i = 0; i < n; i++) size[i] = most;
  for (int threads = 1; threads < 4; threads++) {
    if (one) call_free_outputs(c);
    assert_int_equal(call_run(c, threads), RP_OK);
    assert_sums(&c->out[0], want, size, bias, run);
    if (!one) call_free_outputs(c);
  }
  if (one) call_free_outputs(c);
}

static void conv_run(const conv_case *c, rp_dtype dtype) {
  const int64_t y_dims[4] = {c->n, c->out, count_of(c, 0), count_of(c, 1)};
  const int64_t x_dims[4] = {c->n, c->in, c->size[0], c->size[1]};
  const int64_t w_dims[4] = {c->out, c->in / c->groups, c->kernel[0],
                             c->kernel[1]};
  rp_array x = array_random(dtype, 4, x_dims, 1);
  rp_array w = array_random(dtype, 4, w_dims, 2);
  rp_array b = array_random(dtype, 1, &c->out, 3);
  rp_array dy = array_random(dtype, 4, y_dims, 4);
  const int64_t ny = rp_type_count(&dy.type), nx = rp_type_count(&x.type),
                nw = rp_type_count(&w.type);
  double *room = calloc((size_t)(2 * (ny + nx + nw) + 1), sizeof *room);
  products p = {.x = &x, .w = &w, .dy = &dy, .y = room};
  p.size_y = p.y + ny, p.dx = p.size_y + ny, p.size_dx = p.dx + nx;
  p.dw = p.size_dx + nx, p.size_dw = p.dw + nw;
  each_product(c, add_product, &p);

  const bool winograd = is_winograd(c, dtype);
  call k = {.op = "conv2d", .n_in = 3, .in = {x, w, b}, .n_ints = 7,
            .ctx = ctx};
  memcpy(k.ints, c->ints, sizeof c->ints);
  k.ints[6] = c->groups;
  check_conv(&k, p.y, p.size_y, &b, y_dims[2] * y_dims[3], winograd);
  k.n_in = 2;
  check_conv(&k, p.y, p.size_y, NULL, 1, winograd);
  k.op = "conv2d_grad_input", k.in[0] = dy, k.n_ints = 9;
  memcpy(k.ints + 7, c->size, sizeof c->size);
  check_conv(&k, p.dx, p.size_dx, NULL, 1, winograd);
  k.op = "conv2d_grad_weight", k.in[1] = x;
  memcpy(k.ints + 7, c->kernel, sizeof c->kernel);
  check_conv(&k, p.dw, p.size_dw, NULL, 1, winograd);
  free(room);
  free(x.data), free(w.data), free(b.data), free(dy.data);
}

static void conv_values(void **state) {
  (void)state;
  for (int i = 0; i < CONVS; i++)
    for (int d = 0; d < 2; d++) conv_run(&convs[i], dtypes[d]);
}

/* ---- pooling and resizing ----------------------------------------------- */

static double dot(const rp_array *a, const rp_array *b) {
  double total = 0;
  for (int64_t i = 0; i < rp_type_count(&a->type); i++)
    total += get(a, i) * get(b, i);
  return total;
}

/* <A x, dy> = <x, A' dy> for a linear op and its adjoint. `extra` is a second
   input of both. */
static void check_adjoint(const char *op, const char *adjoint, rp_dtype dtype,
                          int rank, const int64_t *dims, const int64_t *ints,
                          int n_ints, const int64_t *back, int n_back,
                          bool extra) {
  call a = {.op = op, .n_in = 1 + extra, .n_ints = n_ints};
  a.in[0] = array_random(dtype, rank, dims, 5);
  if (extra) a.in[1] = array_random(dtype, rank, dims, 6);
  memcpy(a.ints, ints, (size_t)n_ints * sizeof *ints);
  call_check(&a);
  call b = {.op = adjoint, .n_in = 1 + extra, .n_ints = n_back};
  b.in[0] = array_random(dtype, rank, a.out[0].type.dims, 7);
  if (extra) b.in[1] = a.in[1];
  memcpy(b.ints, back, (size_t)n_back * sizeof *back);
  call_check(&b);
  assert_true(rp_type_equal(&b.out[0].type, &a.in[0].type));
  assert_close(dot(&a.out[0], &b.in[0]), dot(&a.in[0], &b.out[0]),
               dtype == RP_F64 ? 1e-12 : 1e-4);
  free(b.in[0].data);
  call_free_outputs(&b);
  call_free(&a);
}

static void max_pool_run(const int64_t *dims, const int64_t *ints,
                         rp_dtype dtype) {
  call c = {.op = "max_pool2d", .n_in = 1, .n_ints = 9};
  c.in[0] = array_random(dtype, 4, dims, 8);
  memcpy(c.ints, ints, 9 * sizeof *ints);
  call_check(&c);
  const int64_t *made = c.out[0].type.dims;
  for (int64_t p = 0; p < made[0] * made[1]; p++)
    for (int64_t i = 0; i < made[2]; i++)
      for (int64_t j = 0; j < made[3]; j++) {
        double best = -INFINITY;
        for (int64_t a = 0; a < ints[0]; a++)
          for (int64_t b = 0; b < ints[1]; b++) {
            const int64_t row = i * ints[2] - ints[4] + a * ints[6];
            const int64_t column = j * ints[3] - ints[5] + b * ints[7];
            if (row < 0 || row >= dims[2] || column < 0 || column >= dims[3])
              continue;
            best = fmax(best, get(&c.in[0],
                                  (p * dims[2] + row) * dims[3] + column));
          }
        assert_true(get(&c.out[0], (p * made[2] + i) * made[3] + j) == best);
      }
  call_free(&c);
  check_adjoint("max_pool2d_take", "max_pool2d_grad", dtype, 4, dims, ints, 9,
                ints, 9, true);
}

static void pool_values(void **state) {
  (void)state;
  static const int64_t dims[4] = {2, 3, 37, 41}, wide[4] = {1, 2, 9, 203};
  /* kernel, stride, padding, dilation, ceiling, include_pad, divisor, H, W */
  static const int64_t windows[][13] = {
      {2, 2, 2, 2, 0, 0, 1, 1, 0, 1, 0, 37, 41},
      {3, 2, 1, 2, 1, 1, 1, 1, 0, 0, 0, 37, 41},
      {3, 5, 4, 7, 1, 2, 1, 1, 1, 1, 0, 37, 41},
      {3, 5, 4, 7, 1, 2, 1, 1, 1, 0, 4, 37, 41},
      {37, 41, 1, 1, 0, 0, 1, 1, 0, 0, 0, 37, 41},
      {1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 37, 41},
  };
  static const int64_t dilated[9] = {3, 4, 2, 1, 1, 2, 2, 3, 1};
  static const int64_t sizes[][2] = {{1, 1}, {5, 64}, {37, 41}, {100, 3}};
  for (int d = 0; d < 2; d++) {
    for (size_t k = 0; k < sizeof windows / sizeof *windows; k++) {
      max_pool_run(dims, windows[k], dtypes[d]);
      check_adjoint("avg_pool2d", "avg_pool2d_grad", dtypes[d], 4, dims,
                    windows[k], 11, windows[k], 13, false);
    }
    max_pool_run(dims, dilated, dtypes[d]);
    max_pool_run(wide, dilated, dtypes[d]);
    max_pool_run(wide, windows[1], dtypes[d]);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
      check_adjoint("adaptive_avg_pool2d", "adaptive_avg_pool2d_grad",
                    dtypes[d], 4, dims, sizes[k], 2, dims + 2, 2, false);
      check_adjoint("upsample_nearest2d", "upsample_nearest2d_grad",
                    dtypes[d], 4, dims, sizes[k], 2, dims + 2, 2, false);
    }
  }
}

/* ---- normalisation by channels ------------------------------------------ */

typedef struct norm_case {
  int rank;
  int64_t dims[4], groups; /* 0: batch_norm */
} norm_case;

static const norm_case norms[] = {
    {4, {3, 5, 4, 7}, 0}, {2, {6, 33}, 0}, {3, {2, 1, 5000}, 0},
    {4, {4, 64, 16, 17}, 0}, {4, {3, 6, 4, 7}, 2}, {2, {5, 8}, 4},
    {4, {2, 64, 16, 17}, 32}, {3, {2, 4, 3000}, 1}, {3, {0, 4, 5}, 2},
};

/* Which statistic value i of x goes by. */
static int64_t part_of(const norm_case *s, int64_t i, int64_t run) {
  const int64_t c = i / run % s->dims[1];
  if (s->groups == 0) return c;
  return i / (run * s->dims[1]) * s->groups +
         c / (s->dims[1] / s->groups);
}

static void norm_run(const norm_case *s, rp_dtype dtype) {
  const double eps = 1e-3, tolerance = dtype == RP_F64 ? 1e-12 : 2e-5;
  const int64_t channels = s->dims[1];
  int64_t run = 1;
  for (int d = 2; d < s->rank; d++) run *= s->dims[d];
  const int64_t n = s->dims[0] * channels * run;
  const int64_t parts = s->groups ? s->dims[0] * s->groups : channels;
  const double each = parts ? (double)(n / parts) : 1;
  call f = {.op = s->groups ? "group_norm" : "batch_norm", .n_in = 3,
            .n_ints = s->groups ? 1 : 0, .ints = {s->groups}, .n_reals = 1,
            .reals = {eps}};
  f.in[0] = array_random(dtype, s->rank, s->dims, 9);
  f.in[1] = array_random(dtype, 1, &channels, 10);
  f.in[2] = array_random(dtype, 1, &channels, 11);
  call_check(&f);
  call g = {.op = s->groups ? "group_norm_grad" : "batch_norm_grad", .n_in = 5,
            .n_ints = f.n_ints, .ints = {s->groups},
            .n_reals = s->groups ? 0 : 1, .reals = {eps}};
  g.in[0] = array_random(dtype, s->rank, s->dims, 12);
  g.in[1] = f.in[0], g.in[2] = f.in[1], g.in[3] = f.out[1], g.in[4] = f.out[2];
  call_check(&g);

  long double *sums = calloc((size_t)(4 * parts + 2 * channels + 1),
                             sizeof *sums);
  long double *mean = sums, *var = sums + parts, *level = var + parts,
              *along = level + parts, *dw = along + parts, *db = dw + channels;
  for (int64_t i = 0; i < n; i++)
    mean[part_of(s, i, run)] += get(&f.in[0], i) / each;
  for (int64_t i = 0; i < n; i++) {
    const int64_t p = part_of(s, i, run);
    const long double d = get(&f.in[0], i) - mean[p];
    var[p] += d * d / each;
  }
  for (int64_t p = 0; p < parts; p++) {
    assert_close(get(&f.out[1], p), (double)mean[p], tolerance);
    assert_close(get(&f.out[2], p),
                 (double)(s->groups ? 1 / sqrtl(var[p] + eps) : var[p]),
                 tolerance);
  }
  for (int64_t i = 0; i < n; i++) {
    const int64_t p = part_of(s, i, run), c = i / run % channels;
    const long double h =
        (get(&f.in[0], i) - mean[p]) / sqrtl(var[p] + eps);
    const double dy = get(&g.in[0], i), w = get(&f.in[1], c);
    assert_close(get(&f.out[0], i), (double)(h * w + get(&f.in[2], c)),
                 tolerance);
    dw[c] += dy * h, db[c] += dy;
    level[p] += dy * w / each, along[p] += dy * w * h / each;
  }
  for (int64_t i = 0; i < n; i++) {
    const int64_t p = part_of(s, i, run), c = i / run % channels;
    const long double rstd = 1 / sqrtl(var[p] + eps);
    const long double h = (get(&f.in[0], i) - mean[p]) * rstd;
    const long double dx = rstd * (get(&g.in[0], i) * get(&f.in[1], c) -
                                   level[p] - h * along[p]);
    assert_close(get(&g.out[0], i), (double)dx, tolerance);
  }
  for (int64_t c = 0; c < channels; c++) {
    assert_close(get(&g.out[1], c), (double)dw[c], 10 * tolerance);
    assert_close(get(&g.out[2], c), (double)db[c], 10 * tolerance);
  }
  free(sums);
  free(g.in[0].data);
  call_free_outputs(&g);
  call_free(&f);
}

static void norm_values(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
    for (int d = 0; d < 2; d++) norm_run(&norms[i], dtypes[d]);
}

/* old = 4, x = 8: 0.75 * 4 + 0.25 * 1.5 * 8. */
static void running_update(void **state) {
  (void)state;
  static const int64_t dims[1] = {3};
  for (int d = 0; d < 2; d++) {
    rp_array in[2] = {array_random(dtypes[d], 1, dims, 1),
                      array_random(dtypes[d], 1, dims, 2)};
    for (int i = 0; i < 3; i++) set(&in[0], i, 4), set(&in[1], i, 8 * i);
    const double reals[2] = {0.25, 1.5};
    const rp_kernel_args args = {.in = in, .n_in = 2, .reals = reals,
                                 .n_reals = 2};
    const rp_kernel *row = kernel_of(rp_op_find("running_update"), dtypes[d]);
    assert_int_equal(row->run(&args), RP_OK);
    for (int i = 0; i < 3; i++) assert_true(get(&in[0], i) == 3 + 3 * i);
    free(in[0].data), free(in[1].data);
  }
}

int main(void) {
  ctx = rp_context_new();
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(conv_values),
      cmocka_unit_test(pool_values),
      cmocka_unit_test(norm_values),
      cmocka_unit_test(running_update),
  };
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  rp_context_free(ctx);
  return failed;
}
