#include "exec/product.h"

/* The invariant's form of one matrix: strides of dims of size 1 are chosen so
   that the matrix is as dense as it can be. */
static void matrix_strides(int64_t rows, int64_t columns, int64_t row_stride,
                           int64_t column_stride, int64_t out[2]) {
  if (columns <= 1) column_stride = 1;
  if (rows <= 1 && column_stride == 1) row_stride = columns;
  if (rows <= 1 && column_stride != 1) row_stride = 1;
  if (row_stride < 1) row_stride = 1;
  out[0] = row_stride;
  out[1] = column_stride;
}

/* Stride of the dim that is `back` before the last; 0 where it is absent or
   of size 1. */
static int64_t step_of(const rp_array *x, int back) {
  const int at = x->type.rank - 1 - back;
  return at < 0 || x->type.dims[at] == 1 ? 0 : x->strides[at];
}

static int64_t dim_of(const rp_array *x, int back) {
  const int at = x->type.rank - 1 - back;
  return at < 0 ? 1 : x->type.dims[at];
}

/* Whether dim `outer` continues where dim `inner` ends, in all three. */
static bool continues(const rp_product_dim *outer,
                      const rp_product_dim *inner) {
  return outer->a == inner->a * inner->count &&
         outer->b == inner->b * inner->count &&
         outer->y == inner->y * inner->count;
}

/* The innermost batch dim can be more rows of the same product: b stays, and
   a and y go on row after row. */
static bool is_more_rows(const rp_product *p, const rp_product_dim *dim) {
  if (dim->b != 0 || p->a[1] != 1 || p->y[1] != 1) return false;
  if (p->m == 1) return dim->a >= p->k && dim->y >= p->n;
  return dim->a == p->m * p->a[0] && dim->y == p->m * p->y[0];
}

static void absorb_rows(rp_product *p) {
  while (p->n_batch > 0 && is_more_rows(p, &p->batch[p->n_batch - 1])) {
    const rp_product_dim *dim = &p->batch[--p->n_batch];
    if (p->m == 1) {
      p->a[0] = dim->a;
      p->y[0] = dim->y;
    }
    p->m *= dim->count;
  }
}

rp_product rp_product_from(const rp_array *a, const rp_array *b,
                           const rp_array *y) {
  rp_product p = {.m = dim_of(y, 1), .n = dim_of(y, 0), .k = dim_of(a, 0)};
  matrix_strides(p.m, p.k, step_of(a, 1), step_of(a, 0), p.a);
  matrix_strides(p.k, p.n, step_of(b, 1), step_of(b, 0), p.b);
  matrix_strides(p.m, p.n, step_of(y, 1), step_of(y, 0), p.y);
  p.empty = p.m == 0 || p.n == 0;
  for (int back = y->type.rank - 1; back >= 2; back--) {
    const rp_product_dim dim = {dim_of(y, back), step_of(a, back),
                                step_of(b, back), step_of(y, back)};
    p.empty |= dim.count == 0;
    if (dim.count == 1) continue;
    rp_product_dim *outer = p.n_batch ? &p.batch[p.n_batch - 1] : NULL;
    if (outer && continues(outer, &dim)) {
      const int64_t count = outer->count * dim.count;
      *outer = dim;
      outer->count = count;
    } else {
      p.batch[p.n_batch++] = dim;
    }
  }
  absorb_rows(&p);
  return p;
}

rp_status rp_product_loop(const rp_product *product, int n,
                          rp_product_each *each, void *user) {
  int64_t index[RP_RANK] = {0};
  int64_t a = 0, b = 0, y = 0;
  for (;;) {
    const rp_status status = each(user, a, b, y);
    if (status != RP_OK) return status;
    int i = n - 1;
    for (; i >= 0; i--) {
      const rp_product_dim *dim = &product->batch[i];
      a += dim->a, b += dim->b, y += dim->y;
      if (++index[i] < dim->count) break;
      a -= dim->a * dim->count;
      b -= dim->b * dim->count;
      y -= dim->y * dim->count;
      index[i] = 0;
    }
    if (i < 0) return RP_OK;
  }
}
