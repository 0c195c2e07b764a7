/* contiguous, cat, pad, narrow_grad: the kernels against an element at a
   time; the rules' shapes and words. */
#include "blocks.h"

#include <omp.h>

#include "graph/op.h"

extern const rp_kernel_table rp_cpu_copy;
extern const rp_op rp_op_contiguous, rp_op_narrow_grad, rp_op_cat, rp_op_pad;

static const unsigned char *element(const rp_array *x, const int64_t *index) {
  int64_t at = 0;
  for (int i = 0; i < x->type.rank; i++) at += index[i] * x->strides[i];
  return (const unsigned char *)x->data +
         at * (int64_t)rp_dtype_size((rp_dtype)x->type.dtype);
}

static void index_of(const rp_type *type, int64_t e, int64_t *index) {
  for (int i = type->rank - 1; i >= 0; i--) {
    index[i] = e % type->dims[i];
    e /= type->dims[i];
  }
}

static void assert_same_element(const rp_array *x, const int64_t *at_x,
                                const rp_array *y, const int64_t *at_y) {
  assert_memory_equal(element(x, at_x), element(y, at_y),
                      rp_dtype_size((rp_dtype)x->type.dtype));
}

/* x with its dims in another order. */
static rp_array permuted(const rp_array *x, const int *order) {
  rp_array y = *x;
  for (int i = 0; i < x->type.rank; i++) {
    y.type.dims[i] = x->type.dims[order[i]];
    y.strides[i] = x->strides[order[i]];
  }
  return y;
}

static void run(rp_context *ctx, const rp_op *op, const rp_array *in, int n_in,
                const int64_t *ints, int n_ints, const double *reals,
                int n_reals, const rp_array *out) {
  const rp_kernel *row =
      row_of(&rp_cpu_copy, op, (rp_dtype)in[0].type.dtype);
  assert_int_equal(
      kernel_run(row, ctx, (rp_kernel_args){.in = in, .n_in = n_in,
                                            .out = out, .n_out = 1,
                                            .ints = ints, .n_ints = n_ints,
                                            .reals = reals,
                                            .n_reals = n_reals}),
      RP_OK);
}

/* ---- contiguous --------------------------------------------------------- */

static void assert_copies(rp_context *ctx, const rp_array *x) {
  block y = block_of((rp_dtype)x->type.dtype, x->type.rank, x->type.dims, 0,
                     9);
  run(ctx, &rp_op_contiguous, x, 1, NULL, 0, NULL, 0, &y.array);
  for (int64_t e = 0, n = rp_type_count(&x->type); e < n; e++) {
    int64_t index[RP_RANK];
    index_of(&x->type, e, index);
    assert_same_element(x, index, &y.array, index);
  }
  block_free(&y);
}

static void copies_every_order_of_dims(void **state) {
  static const int64_t dims[][4] = {
      {2, 3, 4, 5}, {1, 1, 70, 33}, {3, 17, 1, 65}, {2, 64, 3, 64}, {1, 1, 1, 1},
      {2, 3, 0, 4}};
  for (rp_dtype dtype = 0; dtype < RP_DTYPES; dtype++)
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
      block x = block_of(dtype, 4, dims[d], 0, 1);
      for (int code = 0; code < 256; code++) {
        const int order[4] = {code & 3, code >> 2 & 3, code >> 4 & 3,
                              code >> 6};
        int seen = 0;
        for (int i = 0; i < 4; i++) seen |= 1 << order[i];
        if (seen != 15) continue;
        const rp_array y = permuted(&x.array, order);
        assert_copies(*state, &y);
      }
      block_free(&x);
    }
}

static void copies_narrowed_and_expanded_views(void **state) {
  for (rp_dtype dtype = 0; dtype < RP_DTYPES; dtype++) {
    block x = block_of(dtype, 3, (int64_t[]){6, 40, 50}, 0, 1);
    rp_array v = x.array;
    v.type.dims[2] = 17;
    assert_copies(*state, &v);          /* every row's beginning */
    v.strides[2] = 2;
    assert_copies(*state, &v);          /* every other element */
    v.strides[1] = 0;
    assert_copies(*state, &v);          /* one row again and again */
    v.strides[2] = 0;
    assert_copies(*state, &v);          /* one element a matrix */
    v = permuted(&x.array, (int[]){0, 2, 1});
    v.strides[0] = 0;
    assert_copies(*state, &v);          /* one transpose again and again */
    v.type.dims[2] = 37;
    assert_copies(*state, &v);
    rp_array scalar = {x.array.data, {(int32_t)dtype, 0, {0}}, {0}};
    assert_copies(*state, &scalar);
    scalar.type.rank = 1;
    scalar.type.dims[0] = 40000;
    assert_copies(*state, &scalar);     /* a fill, in pieces */
    block_free(&x);
  }
}

static void same_bits_for_every_thread_count(void **state) {
  static const int order[][4] = {{0, 2, 1, 3}, {0, 1, 3, 2}, {3, 2, 1, 0}};
  const int before = omp_get_max_threads();
  block x = block_of(RP_F32, 4, (int64_t[]){3, 50, 40, 30}, 0, 1);
  for (int i = 0; i < 3; i++) {
    const rp_array v = permuted(&x.array, order[i]);
    block one = block_of(RP_F32, 4, v.type.dims, 0, 2);
    omp_set_num_threads(1);
    run(*state, &rp_op_contiguous, &v, 1, NULL, 0, NULL, 0, &one.array);
    for (int threads = 2; threads <= 7; threads++) {
      block many = block_of(RP_F32, 4, v.type.dims, 0, 3);
      omp_set_num_threads(threads);
      run(*state, &rp_op_contiguous, &v, 1, NULL, 0, NULL, 0, &many.array);
      assert_memory_equal(one.array.data, many.array.data, one.size_bytes);
      block_free(&many);
    }
    block_free(&one);
  }
  omp_set_num_threads(before);
  block_free(&x);
}

/* ---- cat ---------------------------------------------------------------- */

static void joins_along_every_dim(void **state) {
  enum { MANY = 300 };
  for (rp_dtype dtype = 0; dtype < RP_DTYPES; dtype++)
    for (int64_t dim = 0; dim < 3; dim++) {
      static block blocks[MANY];
      static rp_array in[MANY];
      int64_t y_dims[3] = {3, 4, 5}, start = 0;
      y_dims[dim] = 0;
      for (int i = 0; i < MANY; i++) {
        int64_t dims[3] = {3, 4, 5};
        dims[dim] = i % 4; /* 0 too */
        int64_t stored[3] = {dims[0], dims[2], dims[1]};
        blocks[i] = block_of(dtype, 3, i % 2 ? dims : stored, 0, (uint64_t)i);
        in[i] = i % 2 ? blocks[i].array
                      : permuted(&blocks[i].array, (int[]){0, 2, 1});
        y_dims[dim] += dims[dim];
      }
      block y = block_of(dtype, 3, y_dims, 0, 9);
      run(*state, &rp_op_cat, in, MANY, &dim, 1, NULL, 0, &y.array);
      for (int i = 0; i < MANY; i++) {
        for (int64_t e = 0; e < rp_type_count(&in[i].type); e++) {
          int64_t at_x[RP_RANK], at_y[RP_RANK];
          index_of(&in[i].type, e, at_x);
          memcpy(at_y, at_x, sizeof at_x);
          at_y[dim] += start;
          assert_same_element(&in[i], at_x, &y.array, at_y);
        }
        start += in[i].type.dims[dim];
        block_free(&blocks[i]);
      }
      block_free(&y);
    }
}

/* ---- pad, narrow_grad --------------------------------------------------- */

static void pads_with_the_value(void **state) {
  static const int64_t sizes[][6] = {{0, 0, 0, 0, 0, 0}, {1, 2, 3, 0, 0, 4},
                                     {0, 0, 0, 0, 2, 2}, {5, 0, 0, 0, 0, 0},
                                     {0, 1, 0, 1, 0, 1}};
  const double fill = -2;
  for (rp_dtype dtype = 0; dtype < RP_DTYPES; dtype++)
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
      block x = block_of(dtype, 3, (int64_t[]){3, 4, 5}, 0, 1);
      int64_t dims[3];
      for (int i = 0; i < 3; i++)
        dims[i] = x.array.type.dims[i] + sizes[s][2 * i] + sizes[s][2 * i + 1];
      block y = block_of(dtype, 3, dims, 0, 2);
      run(*state, &rp_op_pad, &x.array, 1, sizes[s], 6, &fill, 1, &y.array);
      for (int64_t e = 0; e < rp_type_count(&y.array.type); e++) {
        int64_t at[RP_RANK], from[RP_RANK];
        index_of(&y.array.type, e, at);
        bool inside = true;
        for (int i = 0; i < 3; i++) {
          from[i] = at[i] - sizes[s][2 * i];
          inside &= from[i] >= 0 && from[i] < x.array.type.dims[i];
        }
        const void *p = element(&y.array, at);
        if (inside) {
          assert_same_element(&x.array, from, &y.array, at);
        } else {
          switch (dtype) {
            case RP_F32: assert_true(*(const float *)p == -2); break;
            case RP_F64: assert_true(*(const double *)p == -2); break;
            case RP_BF16: assert_int_equal(*(const uint16_t *)p, 0xc000); break;
            case RP_I32: assert_int_equal(*(const int32_t *)p, -2); break;
            case RP_I64: assert_true(*(const int64_t *)p == -2); break;
            default: assert_int_equal(*(const uint8_t *)p, 1); break;
          }
        }
      }
      block_free(&x);
      block_free(&y);
    }
}

/* Narrowing what narrow_grad made gives dy back, and the rest is zero. */
static void narrow_grad_puts_back(void **state) {
  for (int64_t dim = 0; dim < 3; dim++)
    for (int64_t step = 1; step <= 3; step++)
      for (int64_t length = 0; length <= 3; length++) {
        int64_t dims[3] = {4, 5, 6};
        const int64_t ints[5] = {dim, 2, length, step, 11};
        dims[dim] = length;
        block dy = block_of(RP_F32, 3, dims, 0, 1);
        dims[dim] = 11;
        block dx = block_of(RP_F32, 3, dims, 0, 2);
        run(*state, &rp_op_narrow_grad, &dy.array, 1, ints, 5, NULL, 0,
            &dx.array);
        for (int64_t e = 0; e < rp_type_count(&dx.array.type); e++) {
          int64_t at[RP_RANK];
          index_of(&dx.array.type, e, at);
          const int64_t i = at[dim] - 2;
          if (i >= 0 && i % step == 0 && i / step < length) {
            int64_t from[RP_RANK];
            memcpy(from, at, sizeof at);
            from[dim] = i / step;
            assert_same_element(&dy.array, from, &dx.array, at);
          } else {
            assert_true(*(const float *)element(&dx.array, at) == 0);
          }
        }
        block_free(&dy);
        block_free(&dx);
      }
}

/* ---- the rules ---------------------------------------------------------- */

static void names_what_does_not_fit(void **state) {
  rp_context *ctx = *state;
  const rp_type types[] = {{RP_F32, 2, {2, 3}}, {RP_F32, 2, {2, 4}},
                           {RP_F64, 2, {2, 3}}, {RP_F32, 3, {2, 3, 1}}};
  rp_tensor *t[4];
  for (int i = 0; i < 4; i++)
    assert_non_null(t[i] = rp_leaf(ctx, RP_INPUT, &types[i]));
  const struct {
    const rp_op *op;
    rp_tensor *in[2];
    int n, n_ints;
    int64_t ints[6];
    rp_status status;
    const char *message;
  } cases[] = {
      {&rp_op_cat, {t[0], t[1]}, 2, 1, {0}, RP_SHAPE,
       "[cat] tensor 1 is (2,3), tensor 2 is (2,4): they may differ in dim 1 "
       "alone"},
      {&rp_op_cat, {t[0], t[3]}, 2, 1, {1}, RP_SHAPE,
       "[cat] tensor 1 is (2,3), tensor 2 is (2,3,1): they may differ in dim "
       "2 alone"},
      {&rp_op_cat, {t[0], t[2]}, 2, 1, {0}, RP_DTYPE,
       "[cat] f32 and f64 differ; cast one with :to'f32'"},
      {&rp_op_cat, {t[0], t[1]}, 2, 1, {2}, RP_VALUE,
       "[cat] dim 3 of (2,3): from 1 to 2"},
      {&rp_op_pad, {t[0]}, 1, 2, {1, 1}, RP_VALUE,
       "[pad] (2,3) takes 4 sizes, before and after for each dim, not 2"},
      {&rp_op_pad, {t[0]}, 1, 4, {1, 1, 0, -1}, RP_VALUE,
       "[pad] 0 before and -1 after dim 2: negative sizes do not pad; take a "
       "part with narrow"},
      {&rp_op_pad, {t[0]}, 1, 4, {INT64_MAX, 0, 0, 0}, RP_VALUE,
       "[pad] dim 1 would overflow"},
      {&rp_op_narrow_grad, {t[0]}, 1, 5, {1, 4, 3, 1, 6}, RP_VALUE,
       "[narrow_grad] (2,3) as 3 entries from position 5 by 1 of 6 in dim 2"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_null(rp_record(ctx, cases[i].op, cases[i].in, cases[i].n,
                          cases[i].ints, cases[i].n_ints, NULL, 0));
    assert_string_equal(rp_message(ctx), cases[i].message);
    assert_int_equal(rp_last_status(ctx), cases[i].status);
  }
  for (int i = 0; i < 4; i++) rp_tensor_release(t[i]);
}

static int setup(void **state) {
  *state = rp_context_new();
  return *state == NULL;
}

static int teardown(void **state) {
  rp_context_free(*state);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(copies_every_order_of_dims),
      cmocka_unit_test(copies_narrowed_and_expanded_views),
      cmocka_unit_test(same_bits_for_every_thread_count),
      cmocka_unit_test(joins_along_every_dim),
      cmocka_unit_test(pads_with_the_value),
      cmocka_unit_test(narrow_grad_puts_back),
      cmocka_unit_test(names_what_does_not_fit),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
