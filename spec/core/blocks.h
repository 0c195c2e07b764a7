/* For tests of kernels that take strided arrays: blocks of memory, guarded on
   both sides, with an array of any strides over each, and one call of a row.
   (kernel.h calls a kernel on contiguous arrays as its record says.) */
#ifndef RP_SPEC_BLOCKS_H
#define RP_SPEC_BLOCKS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/context.h"
#include "exec/backend.h"

enum { GUARD = 64, GUARD_BYTE = 0xa5 };

/* A block of elements and the array over it. */
typedef struct block {
  unsigned char *bytes;
  int64_t size_bytes;
  rp_array array;
} block;

/* A small generator of our own: the tests' data must not depend on what they
   test. In (-1, 1), never 0. */
static inline double noise(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  const double x = (double)(*state >> 11) * 0x1p-52 - 1;
  return x == 0 ? 0.5 : x;
}

/* `elements` of noise, and room for `shift` bytes in front: the array's data
   is that much off its alignment. */
static inline block block_new(rp_dtype dtype, int64_t elements, int shift,
                              uint64_t seed) {
  block b = {.size_bytes = elements * (int64_t)rp_dtype_size(dtype)};
  const size_t taken = (size_t)rp_align(b.size_bytes + shift) + 2 * GUARD;
  b.bytes = aligned_alloc(RP_ALIGN, taken);
  assert_non_null(b.bytes);
  memset(b.bytes, GUARD_BYTE, taken);
  b.array.data = b.bytes + GUARD + shift;
  b.array.type.dtype = (int32_t)dtype;
  for (int64_t i = 0; i < elements; i++) {
    const double x = noise(&seed);
    switch (dtype) {
      case RP_F32: ((float *)b.array.data)[i] = (float)x; break;
      case RP_F64: ((double *)b.array.data)[i] = x; break;
      case RP_BF16:
        ((uint16_t *)b.array.data)[i] = rp_f32_to_bf16((float)x);
        break;
      case RP_I32: ((int32_t *)b.array.data)[i] = (int32_t)(x * 1e9); break;
      case RP_I64: ((int64_t *)b.array.data)[i] = (int64_t)(x * 1e18); break;
      default: ((uint8_t *)b.array.data)[i] = x > 0; break;
    }
  }
  return b;
}

static inline void block_free(block *b) {
  const unsigned char *first = b->array.data;
  for (const unsigned char *p = b->bytes; p < first; p++)
    assert_int_equal(*p, GUARD_BYTE);
  for (int i = 0; i < GUARD; i++)
    assert_int_equal(first[b->size_bytes + i], GUARD_BYTE);
  free(b->bytes);
  b->bytes = NULL;
}

static inline rp_type type_of(rp_dtype dtype, int rank, const int64_t *dims) {
  rp_type type = {.dtype = (int32_t)dtype, .rank = rank};
  for (int i = 0; i < rank; i++) type.dims[i] = dims[i];
  return type;
}

/* A contiguous array of noise. */
static inline block block_of(rp_dtype dtype, int rank, const int64_t *dims,
                             int shift, uint64_t seed) {
  const rp_type type = type_of(dtype, rank, dims);
  block b = block_new(dtype, rp_type_count(&type), shift, seed);
  rp_strides strides;
  rp_strides_contiguous(&type, &strides);
  b.array.type = type;
  memcpy(b.array.strides, strides.at, sizeof b.array.strides);
  return b;
}

static inline const rp_kernel *row_of(const rp_kernel_table *table,
                                      const rp_op *op, rp_dtype dtype) {
  for (int i = 0; i < table->n; i++)
    if (table->rows[i].op == op && table->rows[i].dtype == dtype)
      return &table->rows[i];
  fail_msg("no such kernel row");
  return NULL;
}

/* The arrays as they are at plan time. */
static inline rp_array *without_data(const rp_array *arrays, int n) {
  rp_array *copy = malloc((size_t)(n + 1) * sizeof *copy);
  assert_non_null(copy);
  for (int i = 0; i < n; i++) {
    copy[i] = arrays[i];
    copy[i].data = NULL;
  }
  return copy;
}

/* Prepares, runs and destroys; the workspace is exactly as asked for. */
static inline rp_status kernel_run(const rp_kernel *row, rp_context *ctx,
                                   rp_kernel_args args) {
  int64_t workspace_bytes = 0;
  args.ctx = ctx;
  if (row->prepare) {
    rp_kernel_args planned = args;
    rp_array *in = without_data(args.in, args.n_in);
    rp_array *out = without_data(args.out, args.n_out);
    planned.in = in;
    planned.out = out;
    const rp_status status =
        row->prepare(&planned, &args.state, &workspace_bytes);
    free(in);
    free(out);
    if (status != RP_OK) return status;
  }
  block workspace = block_new(RP_BOOL, workspace_bytes, 0, 1);
  args.workspace = workspace.array.data;
  const rp_status status = row->run(&args);
  if (row->destroy) row->destroy(args.state);
  block_free(&workspace);
  return status;
}

#endif
