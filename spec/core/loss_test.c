/* cross_entropy and its gradient against long double; labels out of range. */
#include "kernel.h"

enum { IGNORED = -100 };

static rp_array labels_random(rp_dtype dtype, int rank, const int64_t *dims,
                              int64_t classes, bool ignore_some) {
  rp_array labels = array_random(dtype, rank, dims, 11);
  for (int64_t i = 0; i < rp_type_count(&labels.type); i++)
    set(&labels, i, ignore_some && i % 3 == 1
                        ? IGNORED : (double)((i * 7 + 3) % classes));
  return labels;
}

static void loss_case(rp_dtype dtype, rp_dtype label_dtype, int rank,
                      const int64_t *dims, bool sum, bool ignore_some) {
  const int64_t classes = dims[rank - 1];
  const double tolerance = 2 * tolerance_of(dtype);
  call c = {.op = "cross_entropy", .n_in = 2, .n_ints = 2,
            .ints = {IGNORED, sum}};
  c.in[0] = array_random(dtype, rank, dims, 1);
  c.in[1] = labels_random(label_dtype, rank - 1, dims, classes, ignore_some);
  const int64_t rows = rp_type_count(&c.in[1].type);
  call_check(&c);
  assert_int_equal(c.out[0].type.rank, 0);
  assert_int_equal(c.out[1].type.rank, rank - 1);
  long double loss = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < rows; i++) {
    long double exps = 0;
    for (int64_t j = 0; j < classes; j++)
      exps += expl(get(&c.in[0], i * classes + j));
    assert_close(get(&c.out[1], i), (double)logl(exps), tolerance);
    const int64_t label = (int64_t)get(&c.in[1], i);
    if (label == IGNORED) continue;
    loss += logl(exps) - get(&c.in[0], i * classes + label);
    count++;
  }
  if (!sum) loss /= count;
  assert_close(get(&c.out[0], 0), (double)loss, tolerance);

  call g = {.op = "cross_entropy_grad", .n_in = 4, .n_ints = 2,
            .ints = {IGNORED, sum}};
  g.in[0] = array_random(dtype, 0, NULL, 3);
  set(&g.in[0], 0, 1.75);
  g.in[1] = c.in[0];
  g.in[2] = c.in[1];
  g.in[3] = c.out[1];
  call_check(&g);
  for (int64_t i = 0; i < rows; i++) {
    long double exps = 0;
    for (int64_t j = 0; j < classes; j++)
      exps += expl(get(&c.in[0], i * classes + j));
    const int64_t label = (int64_t)get(&c.in[1], i);
    for (int64_t j = 0; j < classes; j++) {
      const long double p = expl(get(&c.in[0], i * classes + j)) / exps;
      const long double want = label == IGNORED ? 0
                               : (p - (j == label)) * 1.75L /
                                     (sum ? 1 : count);
      assert_close(get(&g.out[0], i * classes + j), (double)want, tolerance);
    }
  }
  free(g.in[0].data);
  call_free_outputs(&g);
  call_free(&c);
}

static void values_and_gradients(void **state) {
  const struct {
    int rank;
    int64_t dims[3];
  } shapes[] = {{1, {9}}, {2, {1, 1}}, {2, {5, 33}}, {3, {4, 7, 65}},
                {2, {300, 65}}, {2, {3, 5003}}};
  for (int s = 0; s < 6; s++)
    for (int v = 0; v < 16; v++)
      loss_case(v & 1 ? RP_F64 : RP_F32, v & 2 ? RP_I64 : RP_I32,
                shapes[s].rank, shapes[s].dims, v & 4, v & 8);
}

static void nothing_counts(void **state) {
  const int64_t dims[2] = {3, 5};
  for (int sum = 0; sum < 2; sum++) {
    call c = {.op = "cross_entropy", .n_in = 2, .n_ints = 2,
              .ints = {IGNORED, sum}};
    c.in[0] = array_random(RP_F32, 2, dims, 1);
    c.in[1] = array_random(RP_I32, 1, dims, 1);
    for (int64_t i = 0; i < 3; i++) set(&c.in[1], i, IGNORED);
    call_check(&c);
    if (sum) assert_true(get(&c.out[0], 0) == 0);
    else assert_true(isnan(get(&c.out[0], 0)));
    call_free(&c);
  }
}

/* -inf logits: probability 0, and no NaN but where the label is one. */
static void impossible_classes(void **state) {
  const int64_t dims[2] = {2, 40};
  call c = {.op = "cross_entropy", .n_in = 2, .n_ints = 2,
            .ints = {IGNORED, 1}};
  c.in[0] = array_random(RP_F32, 2, dims, 1);
  c.in[1] = array_random(RP_I32, 1, dims, 1);
  set(&c.in[0], 7, -INFINITY);
  set(&c.in[1], 0, 3), set(&c.in[1], 1, 4);
  call_check(&c);
  assert_true(isfinite(get(&c.out[0], 0)));
  call_free_outputs(&c);
  set(&c.in[1], 0, 7);
  call_check(&c);
  assert_true(get(&c.out[0], 0) == INFINITY);
  call_free(&c);
}

static void labels_out_of_range(void **state) {
  const int64_t dims[2] = {3, 10};
  const double bad[] = {10, -1, 1e9, -99};
  const char *text[] = {"label 10, valid 0..9", "label -1, valid 0..9",
                        "label 1000000000, valid 0..9",
                        "label -99, valid 0..9"};
  for (int i = 0; i < 4; i++) {
    call c = {.op = "cross_entropy", .n_in = 2, .n_ints = 2, .over = -1,
              .ints = {IGNORED, 0}, .ctx = rp_context_new()};
    c.in[0] = array_random(RP_F32, 2, dims, 1);
    c.in[1] = labels_random(RP_I32, 1, dims, 10, false);
    set(&c.in[1], 2, bad[i]);
    assert_int_equal(call_run(&c, 2), RP_VALUE);
    assert_non_null(strstr(rp_message(c.ctx), text[i]));
    call g = {.op = "cross_entropy_grad", .n_in = 4, .n_ints = 2, .over = -1,
              .ints = {IGNORED, 0}, .ctx = c.ctx};
    g.in[0] = array_random(RP_F32, 0, NULL, 1);
    g.in[1] = c.in[0];
    g.in[2] = c.in[1];
    g.in[3] = array_random(RP_F32, 1, dims, 1);
    assert_int_equal(call_run(&g, 2), RP_VALUE);
    assert_non_null(strstr(rp_message(c.ctx), text[i]));
    free(g.in[0].data), free(g.in[3].data);
    call_free_outputs(&g);
    rp_context_free(c.ctx);
    call_free(&c);
  }
}

static void bad_calls(void **state) {
  const int64_t dims[2] = {4, 5};
  rp_type out[2];
  call c = {.op = "cross_entropy", .n_in = 2, .n_ints = 2,
            .ints = {IGNORED, 0}};
  c.in[0] = array_random(RP_F32, 2, dims, 1);
  c.in[1] = array_random(RP_F32, 1, dims, 1);
  assert_int_equal(call_type(&c, out), RP_DTYPE);
  c.in[1].type.dtype = RP_I32;
  assert_int_equal(call_type(&c, out), RP_OK);
  c.in[1].type.dims[0] = 5;
  assert_int_equal(call_type(&c, out), RP_SHAPE);
  c.in[1].type.dims[0] = 4, c.ints[1] = 3;
  assert_int_equal(call_type(&c, out), RP_VALUE);
  c.ints[1] = 0, c.in[0].type.rank = 0;
  assert_int_equal(call_type(&c, out), RP_SHAPE);
  c.n_out = 0;
  call_free(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(values_and_gradients),
      cmocka_unit_test(nothing_counts),
      cmocka_unit_test(impossible_classes),
      cmocka_unit_test(labels_out_of_range),
      cmocka_unit_test(bad_calls),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
