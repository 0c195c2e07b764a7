/* A matrix product in its fewest dims, for whichever library computes it.

   y[..., i, j] = sum_k a[..., i, k] b[..., k, j]

   Invariant of every rp_product that rp_product_from made: each of the
   matrices' strides has the form {leading, 1} or {1, leading} with leading
   >= the dim that lies inside it; batch dims are larger than 1, and no two
   neighbours could be one; a step of 0 means the same matrix for the whole
   dim. */
#ifndef RP_EXEC_PRODUCT_H
#define RP_EXEC_PRODUCT_H

#include "exec/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* rows x columns, one row `leading` elements behind the other. */
static inline rp_array rp_matrix(rp_dtype dtype, const void *data, int64_t rows,
                                 int64_t columns, int64_t leading) {
  const rp_array x = {
      (void *)data, {dtype, 2, {rows, columns}}, {leading, 1}};
  return x;
}

static inline rp_array rp_matrix_transposed(rp_array x) {
  const int64_t dim = x.type.dims[0], stride = x.strides[0];
  x.type.dims[0] = x.type.dims[1];
  x.strides[0] = x.strides[1];
  x.type.dims[1] = dim;
  x.strides[1] = stride;
  return x;
}

/* x:(K) is x:(1, K). */
static inline rp_array rp_at_least_a_row(rp_array x) {
  if (x.type.rank > 1) return x;
  x.type.rank = 2;
  x.type.dims[1] = x.type.dims[0];
  x.strides[1] = x.strides[0];
  x.type.dims[0] = 1;
  x.strides[0] = x.type.dims[1];
  return x;
}

typedef struct rp_product_dim {
  int64_t count, a, b, y; /* steps in elements */
} rp_product_dim;

typedef struct rp_product {
  int64_t m, k, n;
  int64_t a[2], b[2], y[2]; /* strides of the two matrix dims */
  int32_t n_batch;
  rp_product_dim batch[RP_RANK];
  bool empty; /* y has no elements */
} rp_product;

/* a:(..., M, K), b:(..., K, N), y:(..., M, N); leading dims equal or 1 or
   absent; strides as the ops' `accepts` lets them through. */
rp_product rp_product_from(const rp_array *a, const rp_array *b,
                           const rp_array *y);

/* Calls `each` with the matrices' first elements, in elements from those of
   a, b and y, for every combination of the first n batch dims. Stops at and
   returns the first status that is not RP_OK. */
typedef rp_status rp_product_each(void *user, int64_t a, int64_t b, int64_t y);
rp_status rp_product_loop(const rp_product *product, int n,
                          rp_product_each *each, void *user);

#ifdef __cplusplus
}
#endif

#endif
