/* Random numbers: Philox's published answers, which word makes which element,
   distributions, and dropout's mask in forward and backward. */
#include "blocks.h"

#include <math.h>
#include <omp.h>

#include "base/random.h"
#include "graph/op.h"

static rp_context *ctx;

enum { SEED = 1234567, STREAM = 42 };

static void run_random(const char *name, const rp_array *in,
                       const rp_array *out, const int64_t *ints,
                       const double *reals) {
  const rp_op *op = rp_op_find(name);
  assert_non_null(op);
  const rp_kernel *kernel =
      rp_backend_find(&rp_cpu, op, (rp_dtype)out->type.dtype);
  assert_non_null(kernel);
  const rp_kernel_args args = {.in = in, .out = out, .n_in = in != NULL,
                               .n_out = 1, .ints = ints, .reals = reals,
                               .seed = SEED, .stream = STREAM};
  assert_int_equal(kernel_run(kernel, ctx, args), RP_OK);
}

/* Known-answer vectors of the authors' Random123. */
static void philox_known_answers(void **state) {
  (void)state;
  static const struct {
    uint32_t counter[4], key[2], want[4];
  } cases[] = {
      {{0}, {0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    uint32_t got[4];
    rp_philox(cases[k].counter, cases[k].key, got);
    assert_memory_equal(got, cases[k].want, sizeof got);
  }
}

static uint32_t word(int64_t index) {
  uint32_t words[4];
  rp_philox_block(SEED, STREAM, (uint64_t)index / 4, words);
  return words[index % 4];
}
static uint64_t two_words(int64_t element) {
  return (uint64_t)word(2 * element) << 32 | word(2 * element + 1);
}

/* Sizes around the kernels' windows and tiles, and past one thread's share. */
static const int64_t sizes[] = {0, 1, 3, 4, 7, 255, 256, 257, 4095, 4097,
                                20001};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void elements_are_made_of_their_words(void **state) {
  (void)state;
  for (int k = 0; k < SIZES; k++) {
    const int64_t n = sizes[k], dims[1] = {n};
    for (int threads = 1; threads <= 3; threads++) {
      omp_set_num_threads(threads);
      block f32 = block_of(RP_F32, 1, dims, 0, 1);
      block f64 = block_of(RP_F64, 1, dims, 0, 1);
      block i32 = block_of(RP_I32, 1, dims, 0, 1);
      block i64 = block_of(RP_I64, 1, dims, 0, 1);
      const int64_t between[] = {RP_I64, -5, 12};
      const int64_t all[] = {RP_I64, INT64_MIN, INT64_MAX};
      run_random("rand", NULL, &f32.array, (int64_t[]){RP_F32}, NULL);
      run_random("rand", NULL, &f64.array, (int64_t[]){RP_F64}, NULL);
      run_random("randint", NULL, &i32.array, between, NULL);
      run_random("randint", NULL, &i64.array, all, NULL);
      for (int64_t e = 0; e < n; e++) {
        const uint64_t bits = two_words(e);
        assert_true(((float *)f32.array.data)[e] ==
                    (float)(word(e) >> 8) * 0x1p-24f);
        assert_true(((double *)f64.array.data)[e] ==
                    (double)(bits >> 11) * 0x1p-53);
        assert_int_equal(((int32_t *)i32.array.data)[e],
                         -5 + (int64_t)(((unsigned __int128)bits * 17) >> 64));
        assert_true(((int64_t *)i64.array.data)[e] >= INT64_MIN &&
                    ((int64_t *)i64.array.data)[e] < INT64_MAX);
      }
      block_free(&f32), block_free(&f64), block_free(&i32), block_free(&i64);
    }
  }
}

/* Box and Muller's formula through libm; r is at most 7, and both factors are
   good to a few ulps. */
static void normals_follow_the_formula(void **state) {
  (void)state;
  const double turn = 2 * acos(-1);
  for (int k = 0; k < SIZES; k++) {
    const int64_t n = sizes[k], dims[1] = {n};
    omp_set_num_threads(1 + k % 3);
    block f32 = block_of(RP_F32, 1, dims, 0, 1);
    block f64 = block_of(RP_F64, 1, dims, 0, 1);
    run_random("randn", NULL, &f32.array, (int64_t[]){RP_F32}, NULL);
    run_random("randn", NULL, &f64.array, (int64_t[]){RP_F64}, NULL);
    for (int64_t e = 0; e < n; e++) {
      const int64_t even = e / 2 * 2;
      const double u = (word(even) + 0.5) * 0x1p-32;
      const double t = turn * (word(even + 1) >> 8) * 0x1p-24;
      /* f32 rounds u to 24 bits; that moves r by 2^-24/r at most. */
      const double r = sqrt(-2 * log((float)u));
      const double want = r * (e % 2 ? sin(t) : cos(t));
      assert_true(fabs(((float *)f32.array.data)[e] - want) <= 2e-6);
      const double u64 = (double)(two_words(even) >> 11) * 0x1p-53 + 0x1p-54;
      const double t64 = turn * (double)(two_words(even + 1) >> 11) * 0x1p-53;
      const double want64 =
          sqrt(-2 * log(u64)) * (e % 2 ? sin(t64) : cos(t64));
      assert_true(fabs(((double *)f64.array.data)[e] - want64) <= 5e-15);
    }
    block_free(&f32), block_free(&f64);
  }
}

/* A million draws against the distribution function; 4.5 standard deviations
   of a count. */
static void distributions(void **state) {
  (void)state;
  enum { N = 1000000 };
  const int64_t dims[1] = {N};
  block x = block_of(RP_F32, 1, dims, 0, 1);
  const float *at = x.array.data;
  run_random("randn", NULL, &x.array, (int64_t[]){RP_F32}, NULL);
  for (double z = -4; z <= 4; z += 0.25) {
    const double p = 0.5 * erfc(-z / sqrt(2));
    int below = 0;
    for (int i = 0; i < N; i++) below += at[i] < z;
    assert_true(fabs(below - N * p) <= 4.5 * sqrt(N * p * (1 - p)));
  }
  double product = 0; /* neighbours, which share their words, are independent */
  for (int i = 0; i < N; i += 2) product += (double)at[i] * at[i + 1];
  assert_true(fabs(product) <= 4.5 * sqrt(N / 2.0));
  run_random("rand", NULL, &x.array, (int64_t[]){RP_F32}, NULL);
  for (double z = 0.0625; z < 1; z += 0.0625) {
    int below = 0;
    for (int i = 0; i < N; i++) below += at[i] < z;
    assert_true(fabs(below - N * z) <= 4.5 * sqrt(N * z * (1 - z)));
  }
  for (int i = 0; i < N; i++) assert_true(at[i] >= 0 && at[i] < 1);
  block_free(&x);
}

static void dropout_keeps_by_word(void **state) {
  (void)state;
  /* The last is what element 2 draws: it is just kept. */
  const double chances[] = {0, 0.1, 0.5, 1 - 0x1p-24, 1,
                            rp_uniform_f32(word(2))};
  for (int k = 0; k < SIZES * 6; k++) {
    const int64_t n = sizes[k / 6], dims[1] = {n};
    const double p = chances[k % 6];
    block x = block_of(RP_F32, 1, dims, 0, 1);
    block y = block_of(RP_F32, 1, dims, 0, 2);
    block x64 = block_of(RP_F64, 1, dims, 0, 3);
    block y64 = block_of(RP_F64, 1, dims, 0, 4);
    run_random("dropout", &x.array, &y.array, NULL, &p);
    run_random("dropout", &x64.array, &y64.array, NULL, &p);
    const float *from = x.array.data, *to = y.array.data;
    const double *from64 = x64.array.data, *to64 = y64.array.data;
    for (int64_t e = 0; e < n; e++) {
      const bool keep = (double)rp_uniform_f32(word(e)) >= p;
      assert_true(to[e] == (keep ? from[e] * (float)(1 / (1 - p)) : 0));
      assert_true(to64[e] == (keep ? from64[e] * (1 / (1 - p)) : 0));
    }
    block_free(&x), block_free(&y), block_free(&x64), block_free(&y64);
  }
}

/* ---- recorded ------------------------------------------------------------ */

static rp_tensor *ones(int64_t n) {
  const rp_type type = type_of(RP_F32, 1, &n);
  rp_tensor *x = rp_leaf(ctx, RP_PARAMETER, &type);
  float *data = malloc((size_t)n * sizeof *data);
  for (int64_t i = 0; i < n; i++) data[i] = 1;
  assert_int_equal(rp_leaf_write(x, data, (size_t)n * sizeof *data), RP_OK);
  free(data);
  return x;
}

enum { N = 5000 };

static void read_into(rp_tensor *t, float *out) {
  if (rp_tensor_read(t, out, N * sizeof *out) != RP_OK)
    fail_msg("%s", rp_message(ctx));
}

/* The gradient of sum(dropout(x)) at x = 1 is dropout(1): the same mask, drawn
   again. Another node has another mask; the same seed has the same. */
static void one_mask_forward_and_backward(void **state) {
  (void)state;
  static float y[N], dx[N], other[N], again[N];
  const rp_op *dropout = rp_op_find("dropout");
  const double p = 0.4;
  rp_manual_seed(ctx, 11);
  rp_tensor *x = ones(N);
  rp_tensor *first = rp_record(ctx, dropout, &x, 1, NULL, 0, &p, 1);
  rp_tensor *second = rp_record(ctx, dropout, &x, 1, NULL, 0, &p, 1);
  const int64_t whole[1] = {0};
  rp_tensor *total = rp_record(ctx, rp_op_find("sum"), &first, 1, whole, 1,
                               NULL, 0);
  assert_non_null(total);
  rp_tensor *gradient;
  assert_int_equal(rp_grad(total, NULL, &x, 1, &gradient), RP_OK);
  read_into(gradient, dx);
  read_into(first, y);
  read_into(second, other);
  assert_memory_equal(y, dx, sizeof y);
  assert_memory_not_equal(y, other, sizeof y);
  rp_tensor_release(first), rp_tensor_release(second);
  rp_tensor_release(total), rp_tensor_release(gradient);

  rp_manual_seed(ctx, 11);
  first = rp_record(ctx, dropout, &x, 1, NULL, 0, &p, 1);
  read_into(first, again);
  assert_memory_equal(y, again, sizeof y);
  rp_tensor_release(first);
  rp_tensor_release(x);
}

static void bad_arguments(void **state) {
  (void)state;
  rp_tensor *x = ones(3);
  const double p = 1.5;
  assert_null(rp_record(ctx, rp_op_find("dropout"), &x, 1, NULL, 0, &p, 1));
  assert_string_equal(rp_message(ctx), "[dropout] p is 1.5, not in 0 .. 1");
  const int64_t empty[] = {RP_I32, 3, 3, 2}, wide[] = {RP_I32, 0, 1ll << 40};
  const int64_t no_dtype[] = {17, 2}, negative[] = {RP_F32, 2, -2};
  assert_null(rp_record(ctx, rp_op_find("randint"), NULL, 0, empty, 4, NULL,
                        0));
  assert_string_equal(rp_message(ctx), "[randint] no integer is in 3 .. 3 - 1");
  assert_null(rp_record(ctx, rp_op_find("randint"), NULL, 0, wide, 3, NULL, 0));
  assert_null(rp_record(ctx, rp_op_find("rand"), NULL, 0, no_dtype, 2, NULL,
                        0));
  assert_null(rp_record(ctx, rp_op_find("rand"), NULL, 0, negative, 3, NULL,
                        0));
  const int64_t integer[] = {RP_I32, 2};
  assert_null(rp_record(ctx, rp_op_find("randn"), NULL, 0, integer, 2, NULL,
                        0));
  assert_int_equal(rp_last_status(ctx), RP_DTYPE);
  rp_tensor_release(x);
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
      cmocka_unit_test(philox_known_answers),
      cmocka_unit_test(elements_are_made_of_their_words),
      cmocka_unit_test(normals_follow_the_formula),
      cmocka_unit_test(distributions),
      cmocka_unit_test(dropout_keeps_by_word),
      cmocka_unit_test(one_mask_forward_and_backward),
      cmocka_unit_test(bad_arguments),
  };
  return cmocka_run_group_tests_name("random", tests, open_context,
                                     close_context);
}
