/* Reading at indices, and adding there, against one element at a time in the
   same order: equal bits, for any number of threads. */
#include "kernel.h"

static void indices_below(rp_array *a, int64_t limit, uint64_t seed) {
  uint64_t state = seed;
  for (int64_t i = 0; i < rp_type_count(&a->type); i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    set(a, i, (double)((state >> 33) % (uint64_t)limit));
  }
}

static void assert_bits(const rp_array *got, const rp_array *want) {
  assert_true(rp_type_equal(&got->type, &want->type));
  assert_memory_equal(got->data, want->data, rp_type_bytes(&want->type));
}

static rp_array zeros(rp_dtype dtype, int rank, const int64_t *dims) {
  rp_array a = array_random(dtype, rank, dims, 1);
  memset(a.data, 0, (size_t)rp_type_bytes(&a.type));
  return a;
}

/* += in the array's own dtype. */
static void add(rp_array *a, int64_t i, double v) {
  if (a->type.dtype == RP_F32) ((float *)a->data)[i] += (float)v;
  else ((double *)a->data)[i] += v;
}

/* Of bf16 a row is summed up in f32, in order, and rounded once. */
static void sum_rows_bf16(uint16_t *dw, const rp_array *idx, const uint16_t *dy,
                          int64_t entries, int64_t width) {
  for (int64_t i = 0; i < entries * width; i++) {
    float sum = rp_bf16_to_f32(dw[i]);
    for (int64_t k = 0; k < rp_type_count(&idx->type); k++)
      if ((int64_t)get(idx, k) == i / width)
        sum += rp_bf16_to_f32(dy[k * width + i % width]);
    dw[i] = rp_f32_to_bf16(sum);
  }
}

static rp_array random_bf16(int rank, const int64_t *dims, uint64_t seed) {
  rp_array wide = array_random(RP_F32, rank, dims, seed);
  rp_array a = wide;
  a.type.dtype = RP_BF16;
  a.data = calloc(1, (size_t)rp_type_bytes(&a.type) + 1);
  for (int64_t i = 0; i < rp_type_count(&a.type); i++)
    ((uint16_t *)a.data)[i] = rp_f32_to_bf16(((float *)wide.data)[i]);
  free(wide.data);
  return a;
}

static void embedding_bf16(void **state) {
  const struct { int64_t entries, width, n; } cases[] = {
      {1, 1, 0}, {5, 7, 9}, {3, 300, 2}, {300, 33, 1000}, {2, 1, 4000}};
  for (int v = 0; v < 10; v++) {
    const int64_t entries = cases[v / 2].entries, n = cases[v / 2].n;
    const int64_t width = cases[v / 2].width;
    const int64_t table[] = {entries, width}, rows[] = {n, width};
    call c = {.op = "embedding", .n_in = 2};
    c.in[0] = random_bf16(2, table, 1);
    c.in[1] = array_random(v % 2 ? RP_I64 : RP_I32, 1, &n, 2);
    indices_below(&c.in[1], entries, 5);
    call_check(&c);
    for (int64_t i = 0; i < n; i++)
      assert_memory_equal(
          (uint16_t *)c.out[0].data + i * width,
          (uint16_t *)c.in[0].data + (int64_t)get(&c.in[1], i) * width,
          (size_t)width * sizeof(uint16_t));
    call g = {.op = "embedding_grad", .n_in = 2, .n_ints = 1,
              .ints = {entries}};
    g.in[0] = random_bf16(2, rows, 3);
    g.in[1] = c.in[1];
    call_check(&g);
    rp_array want = random_bf16(2, table, 6);
    memset(want.data, 0, (size_t)rp_type_bytes(&want.type));
    sum_rows_bf16(want.data, &c.in[1], g.in[0].data, entries, width);
    assert_bits(&g.out[0], &want);
    free(want.data);
    call a = {.op = "embedding_grad_add", .n_in = 3, .n_ints = 1,
              .ints = {entries}};
    a.in[0] = random_bf16(2, table, 6);
    a.in[1] = g.in[0];
    a.in[2] = c.in[1];
    call_check(&a);
    want = random_bf16(2, table, 6);
    sum_rows_bf16(want.data, &c.in[1], g.in[0].data, entries, width);
    assert_bits(&a.out[0], &want);
    free(want.data);
    free(a.in[0].data);
    call_free_outputs(&a);
    free(g.in[0].data);
    call_free_outputs(&g);
    call_free(&c);
  }
}

static void embedding(void **state) {
  const struct {
    int64_t entries, width;
    int rank;
    int64_t idx[3];
  } cases[] = {{1, 1, 0, {0}}, {5, 7, 1, {9}}, {65, 384, 2, {8, 40}},
               {3, 0, 1, {4}}, {3, 5, 1, {0}}, {300, 33, 3, {2, 3, 50}}};
  for (int v = 0; v < 24; v++) {
    const rp_dtype dtype = v & 1 ? RP_F64 : RP_F32;
    const int s = v / 4, rank = cases[s].rank;
    const int64_t entries = cases[s].entries, width = cases[s].width;
    const int64_t table[2] = {entries, width};
    call c = {.op = "embedding", .n_in = 2};
    c.in[0] = array_random(dtype, 2, table, 1);
    c.in[1] = array_random(v & 2 ? RP_I64 : RP_I32, rank, cases[s].idx, 2);
    indices_below(&c.in[1], entries, 5);
    const int64_t k = rp_type_count(&c.in[1].type);
    call_check(&c);
    assert_int_equal(c.out[0].type.rank, rank + 1);
    for (int64_t i = 0; i < k * width; i++)
      assert_true(get(&c.out[0], i) ==
                  get(&c.in[0], (int64_t)get(&c.in[1], i / width) * width +
                                    i % width));
    call g = {.op = "embedding_grad", .n_in = 2, .n_ints = 1,
              .ints = {entries}};
    g.in[0] = array_random(dtype, rank + 1, c.out[0].type.dims, 3);
    g.in[1] = c.in[1];
    call_check(&g);
    rp_array want = zeros(dtype, 2, table);
    for (int64_t i = 0; i < k * width; i++)
      add(&want, (int64_t)get(&g.in[1], i / width) * width + i % width,
          get(&g.in[0], i));
    assert_bits(&g.out[0], &want);
    free(want.data);
    call a = {.op = "embedding_grad_add", .n_in = 3, .n_ints = 1,
              .ints = {entries}};
    a.in[0] = array_random(dtype, 2, table, 6);
    a.in[1] = g.in[0];
    a.in[2] = g.in[1];
    call_check(&a);
    want = array_random(dtype, 2, table, 6);
    for (int64_t i = 0; i < k * width; i++)
      add(&want, (int64_t)get(&g.in[1], i / width) * width + i % width,
          get(&g.in[0], i));
    assert_bits(&a.out[0], &want);
    free(want.data);
    free(a.in[0].data);
    call_free_outputs(&a);
    free(g.in[0].data);
    call_free_outputs(&g);
    call_free(&c);
  }
}

static int64_t product(const int64_t *dims, int from, int to) {
  int64_t n = 1;
  for (int i = from; i < to; i++) n *= dims[i];
  return n;
}

static void select_and_gather(void **state) {
  const struct {
    int rank;
    int64_t dims[4], k;
  } cases[] = {{1, {9}, 5},          {2, {6, 7}, 30},     {3, {4, 5, 6}, 3},
               {3, {2, 300, 40}, 90}, {2, {100, 50}, 700}, {2, {0, 4}, 2},
               {2, {4, 3}, 0},       {4, {2, 3, 4, 5}, 6}};
  const rp_dtype dtypes[] = {RP_F32, RP_F64, RP_I32, RP_I64, RP_BOOL};
  for (int s = 0; s < 8; s++)
    for (int v = 0; v < 20; v++)
      for (int dim = 0; dim < cases[s].rank; dim++) {
        const rp_dtype dtype = dtypes[v % 5];
        const rp_dtype index_dtype = v / 5 % 2 ? RP_I64 : RP_I32;
        const bool gather = v / 10;
        const int rank = cases[s].rank;
        const int64_t n = cases[s].dims[dim], k = cases[s].k;
        const int64_t inner = product(cases[s].dims, dim + 1, rank);
        if (n == 0 && k > 0) continue; /* nothing to point at */
        int64_t dims[4];
        memcpy(dims, cases[s].dims, sizeof dims);
        dims[dim] = k;
        call c = {.op = gather ? "gather" : "index_select", .n_in = 2,
                  .n_ints = 1, .ints = {dim}};
        c.in[0] = array_random(dtype, rank, cases[s].dims, 1);
        c.in[1] = gather ? array_random(index_dtype, rank, dims, 1)
                         : array_random(index_dtype, 1, &k, 1);
        indices_below(&c.in[1], n ? n : 1, 9);
        call_check(&c);
        const int64_t count = rp_type_count(&c.out[0].type);
        assert_int_equal(count, product(dims, 0, rank));
        int64_t *from = malloc((size_t)count * sizeof *from + 1);
        for (int64_t i = 0; i < count; i++) {
          const int64_t at = (int64_t)get(
              &c.in[1], gather ? i : i / inner % k);
          from[i] = (i / (k * inner) * n + at) * inner + i % inner;
          assert_true(get(&c.out[0], i) == get(&c.in[0], from[i]));
        }
        if (rp_dtype_is_float(dtype)) {
          call g = {.op = gather ? "gather_grad" : "index_select_grad",
                    .n_in = 2, .n_ints = 2, .ints = {dim, n}};
          g.in[0] = array_random(dtype, rank, dims, 4);
          g.in[1] = c.in[1];
          call_check(&g);
          rp_array want = zeros(dtype, rank, cases[s].dims);
          for (int64_t i = 0; i < count; i++)
            add(&want, from[i], get(&g.in[0], i));
          assert_bits(&g.out[0], &want);
          free(want.data);
          free(g.in[0].data);
          call_free_outputs(&g);
        }
        free(from);
        call_free(&c);
      }
}

/* Large enough for threads: the sums are cut by columns. */
static void scatter_add_with_threads(void **state) {
  const int64_t idx[1] = {3000}, dy[2] = {3000, 100};
  call g = {.op = "embedding_grad", .n_in = 2, .n_ints = 1, .ints = {7}};
  g.in[0] = array_random(RP_F32, 2, dy, 3);
  g.in[1] = array_random(RP_I32, 1, idx, 3);
  indices_below(&g.in[1], 7, 3);
  call_check(&g); /* 1, 2, 3 threads: equal bits */
  call_free(&g);
}

static void indices_out_of_range(void **state) {
  const int64_t table[2] = {5, 4}, three = 3;
  const struct {
    const char *op;
    int n_ints;
    int64_t ints[2];
  } ops[] = {{"embedding", 0, {0}},        {"index_select", 1, {0}},
             {"gather", 1, {0}},           {"embedding_grad", 1, {5}},
             {"index_select_grad", 2, {0, 5}}, {"gather_grad", 2, {0, 5}}};
  const double bad[] = {7, -1, 5};
  const char *text[] = {"index 7, valid 0..4", "index -1, valid 0..4",
                        "index 5, valid 0..4"};
  for (int o = 0; o < 6; o++)
    for (int b = 0; b < 6; b++) {
      const int64_t dims[2] = {3, 4};
      const bool whole = o == 2 || o == 5; /* gathers: one index an element */
      call c = {.op = ops[o].op, .n_in = 2, .n_ints = ops[o].n_ints,
                .over = -1, .ctx = rp_context_new()};
      memcpy(c.ints, ops[o].ints, sizeof ops[o].ints);
      c.in[0] = array_random(RP_F32, 2, o < 3 ? table : dims, 1);
      c.in[1] = whole ? array_random(b & 1 ? RP_I64 : RP_I32, 2, dims, 1)
                      : array_random(b & 1 ? RP_I64 : RP_I32, 1, &three, 1);
      indices_below(&c.in[1], 5, 3);
      set(&c.in[1], 2, bad[b / 2]);
      assert_int_equal(call_run(&c, 2), RP_VALUE);
      assert_non_null(strstr(rp_message(c.ctx), text[b / 2]));
      rp_context_free(c.ctx);
      call_free(&c);
    }
}

static void bad_calls(void **state) {
  const int64_t dims[2] = {5, 4}, three = 3;
  rp_type out;
  call c = {.op = "embedding", .n_in = 2, .n_ints = 1, .ints = {0}};
  c.in[0] = array_random(RP_F32, 2, dims, 1);
  c.in[1] = array_random(RP_I32, 1, &three, 1);
  assert_int_equal(call_type(&c, &out), RP_OK);
  c.in[1].type.dtype = RP_F32;
  assert_int_equal(call_type(&c, &out), RP_DTYPE);
  c.in[1].type.dtype = RP_I32, c.in[0].type.rank = 1;
  assert_int_equal(call_type(&c, &out), RP_SHAPE);
  c.in[0].type.rank = 2, c.op = "index_select", c.ints[0] = 2;
  assert_int_equal(call_type(&c, &out), RP_VALUE);
  c.op = "gather", c.ints[0] = 0;
  assert_int_equal(call_type(&c, &out), RP_SHAPE);
  c.op = "embedding_grad", c.ints[0] = -1;
  assert_int_equal(call_type(&c, &out), RP_VALUE);
  c.n_out = 0;
  call_free(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(embedding), cmocka_unit_test(embedding_bf16),
      cmocka_unit_test(select_and_gather),
      cmocka_unit_test(scatter_add_with_threads),
      cmocka_unit_test(indices_out_of_range),
      cmocka_unit_test(bad_calls),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
