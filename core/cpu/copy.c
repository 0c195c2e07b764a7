/* Copies between strided arrays of any dtype: contiguous, narrow_grad, cat,
   pad.

   A copy is a list of dims, outermost first, each with a step in the target
   and one in the source; filling is a copy from one element with steps 0.
   Items (rows, tiles, pieces) are each written by one thread and nothing is
   summed, so the number of threads cannot show. */
#include "cpu/copy.h"

#include <string.h>

#include "cpu/parallel.h"
#include "graph/op.h"

typedef struct copy_dim {
  int64_t count, to, from; /* steps in bytes */
} copy_dim;

typedef struct copying {
  char *to;
  const char *from;
  int64_t size; /* of an element, in bytes */
  int64_t elements;
  int n;
  copy_dim dims[RP_RANK];
} copying;

/* Fewest dims: those of size 1 dropped, neighbours that continue each other
   in both merged. */
static copying copying_of(const rp_type *type, void *to, const int64_t *to_at,
                          const void *from, const int64_t *from_at) {
  const int64_t size = (int64_t)rp_dtype_size((rp_dtype)type->dtype);
  copying c = {.to = to, .from = from, .size = size,
               .elements = rp_type_count(type)};
  for (int i = 0; i < type->rank; i++) {
    const copy_dim dim = {type->dims[i], to_at[i] * size, from_at[i] * size};
    if (dim.count == 1) continue;
    copy_dim *outer = c.n ? &c.dims[c.n - 1] : NULL;
    if (outer && outer->to == dim.to * dim.count &&
        outer->from == dim.from * dim.count) {
      outer->count *= dim.count;
      outer->to = dim.to;
      outer->from = dim.from;
    } else {
      c.dims[c.n++] = dim;
    }
  }
  return c;
}

/* ---- walking the outer dims --------------------------------------------- */

typedef struct walk {
  const copy_dim *dims;
  int n;
  int64_t index[RP_RANK];
  char *to;
  const char *from;
} walk;

static int64_t items_of(const copy_dim *dims, int n) {
  int64_t items = 1;
  for (int i = 0; i < n; i++) items *= dims[i].count;
  return items;
}

static walk walk_from(const copying *c, int n, int64_t item) {
  walk w = {.dims = c->dims, .n = n, .to = c->to, .from = c->from};
  for (int i = n - 1; i >= 0; i--) {
    w.index[i] = item % w.dims[i].count;
    item /= w.dims[i].count;
    w.to += w.index[i] * w.dims[i].to;
    w.from += w.index[i] * w.dims[i].from;
  }
  return w;
}

static inline void walk_on(walk *w) {
  for (int i = w->n - 1; i >= 0; i--) {
    w->to += w->dims[i].to;
    w->from += w->dims[i].from;
    if (++w->index[i] < w->dims[i].count) return;
    w->to -= w->dims[i].to * w->dims[i].count;
    w->from -= w->dims[i].from * w->dims[i].count;
    w->index[i] = 0;
  }
}

/* This thread's share of n items. */
static void share(int64_t n, int64_t *begin, int64_t *end) {
  const int64_t threads = omp_get_num_threads(), me = omp_get_thread_num();
  *begin = n * me / threads;
  *end = n * (me + 1) / threads;
}

/* ---- rows --------------------------------------------------------------- */

/* `size` is a constant wherever this is inlined: each memcpy is one move. */
static inline __attribute__((always_inline)) void move_each(
    char *to, int64_t to_step, const char *from, int64_t from_step, int64_t n,
    const size_t size) {
  for (int64_t i = 0; i < n; i++)
    memcpy(to + i * to_step, from + i * from_step, size);
}

static inline __attribute__((always_inline)) void fill_each(
    char *to, const char *value, int64_t n, const size_t size) {
  char element[8];
  memcpy(element, value, size);
  for (int64_t i = 0; i < n; i++)
    memcpy(to + i * (int64_t)size, element, size);
}

static void copy_row(const copying *c, const copy_dim *dim, char *to,
                     const char *from) {
  const int64_t n = dim->count;
  if (dim->to == c->size && dim->from == c->size) {
    memcpy(to, from, (size_t)(n * c->size));
  } else if (dim->to == c->size && dim->from == 0) {
    switch (c->size) {
      case 1: memset(to, *from, (size_t)n); break;
      case 2: fill_each(to, from, n, 2); break;
      case 4: fill_each(to, from, n, 4); break;
      default: fill_each(to, from, n, 8); break;
    }
  } else {
    switch (c->size) {
      case 1: move_each(to, dim->to, from, dim->from, n, 1); break;
      case 2: move_each(to, dim->to, from, dim->from, n, 2); break;
      case 4: move_each(to, dim->to, from, dim->from, n, 4); break;
      default: move_each(to, dim->to, from, dim->from, n, 8); break;
    }
  }
}

static void copy_rows(const copying *c) {
  const int64_t items = items_of(c->dims, c->n - 1);
  const copy_dim *row = &c->dims[c->n - 1];
#pragma omp parallel if (rp_worth(c->elements))
  {
    int64_t begin, end;
    share(items, &begin, &end);
    walk w = walk_from(c, c->n - 1, begin);
    for (int64_t i = begin; i < end; i++, walk_on(&w))
      copy_row(c, row, w.to, w.from);
  }
}

/* One long row: in pieces. */
static void copy_one_row(const copying *c) {
  const copy_dim *row = &c->dims[0];
  const int64_t pieces = (row->count + RP_TILE - 1) / RP_TILE;
#pragma omp parallel for schedule(static) if (rp_worth(c->elements))
  for (int64_t i = 0; i < pieces; i++) {
    const int64_t begin = i * RP_TILE;
    copy_dim piece = *row;
    if (piece.count > begin + RP_TILE) piece.count = begin + RP_TILE;
    piece.count -= begin;
    copy_row(c, &piece, c->to + begin * row->to, c->from + begin * row->from);
  }
}

/* ---- transposes --------------------------------------------------------- */

/* A cache line of each of `lines` source rows, then as many target rows: each
   line is fetched and written once, whatever the strides. Target dim `down`
   is dense in the source, `across` is dense in the target. */
enum { LINE = 64 };

static inline __attribute__((always_inline)) void transpose_tile(
    char *to, int64_t to_step, const char *from, int64_t from_step,
    int64_t down, int64_t across, const size_t size) {
  char tile[LINE][LINE];
  if (down * (int64_t)size == LINE) {
    for (int64_t j = 0; j < across; j++)
      memcpy(tile[j], from + j * from_step, LINE);
  } else {
    for (int64_t j = 0; j < across; j++)
      memcpy(tile[j], from + j * from_step, (size_t)down * size);
  }
  if (across * (int64_t)size == LINE) {
    for (int64_t i = 0; i < down; i++)
      for (int64_t j = 0; j < (int64_t)(LINE / size); j++)
        memcpy(to + i * to_step + j * (int64_t)size,
               tile[j] + i * (int64_t)size, size);
  } else {
    for (int64_t i = 0; i < down; i++)
      for (int64_t j = 0; j < across; j++)
        memcpy(to + i * to_step + j * (int64_t)size,
               tile[j] + i * (int64_t)size, size);
  }
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Dims n-2 (dense in the source) and n-1 (dense in the target), in strips of
   a line of target rows. */
static void copy_transposed(const copying *c) {
  const copy_dim *down = &c->dims[c->n - 2], *across = &c->dims[c->n - 1];
  const int64_t side = LINE / c->size;
  const int64_t strips = (down->count + side - 1) / side;
  const int64_t items = items_of(c->dims, c->n - 2) * strips;
#pragma omp parallel for schedule(static) if (rp_worth(c->elements))
  for (int64_t item = 0; item < items; item++) {
    const walk w = walk_from(c, c->n - 2, item / strips);
    const int64_t i = item % strips * side;
    const int64_t height = least(side, down->count - i);
    for (int64_t j = 0; j < across->count; j += side) {
      const int64_t width = least(side, across->count - j);
      char *to = w.to + i * down->to + j * across->to;
      const char *from = w.from + i * down->from + j * across->from;
      switch (c->size) {
        case 1:
          transpose_tile(to, down->to, from, across->from, height, width, 1);
          break;
        case 2:
          transpose_tile(to, down->to, from, across->from, height, width, 2);
          break;
        case 4:
          transpose_tile(to, down->to, from, across->from, height, width, 4);
          break;
        default:
          transpose_tile(to, down->to, from, across->from, height, width, 8);
          break;
      }
    }
  }
}

/* Brings the dim that is dense in the source next to the last; false when
   the copy is no transpose. */
static bool is_transpose(copying *c) {
  if (c->n < 2 || c->dims[c->n - 1].to != c->size ||
      c->dims[c->n - 1].from == c->size || c->dims[c->n - 1].from == 0)
    return false;
  for (int i = c->n - 2; i >= 0; i--) {
    if (c->dims[i].from != c->size) continue;
    const copy_dim dim = c->dims[i];
    memmove(&c->dims[i], &c->dims[i + 1],
            (size_t)(c->n - 2 - i) * sizeof dim);
    c->dims[c->n - 2] = dim;
    return true;
  }
  return false;
}

void rp_copy_strided(const rp_type *type, void *to, const int64_t *to_strides,
                     const void *from, const int64_t *from_strides) {
  copying c = copying_of(type, to, to_strides, from, from_strides);
  if (c.elements == 0) return;
  if (c.n == 0) memcpy(c.to, c.from, (size_t)c.size);
  else if (c.n == 1) copy_one_row(&c);
  else if (is_transpose(&c)) copy_transposed(&c);
  else copy_rows(&c);
}

/* ---- kernels ------------------------------------------------------------ */

static char *element(const rp_array *x, int64_t offset) {
  return (char *)x->data +
         offset * (int64_t)rp_dtype_size((rp_dtype)x->type.dtype);
}

static rp_status contiguous(const rp_kernel_args *args) {
  const rp_array *x = &args->in[0], *y = &args->out[0];
  rp_copy_strided(&y->type, y->data, y->strides, x->data, x->strides);
  return RP_OK;
}

/* y[..., start..start+length, ...] = x, y and x alike but in dim. */
static void put(const rp_array *y, const rp_array *x, int64_t dim,
                int64_t start) {
  rp_copy_strided(&x->type, element(y, start * y->strides[dim]), y->strides,
                  x->data, x->strides);
}

static rp_status cat(const rp_kernel_args *args) {
  const int64_t dim = args->ints[0];
  for (int64_t i = 0, start = 0; i < args->n_in; i++) {
    put(&args->out[0], &args->in[i], dim, start);
    start += args->in[i].type.dims[dim];
  }
  return RP_OK;
}

static const int64_t no_strides[RP_RANK];

/* y[box] = value, where the box is dims[] at offset[]. */
static void fill_box(const rp_array *y, const int64_t *offset,
                     const int64_t *dims, const void *value) {
  rp_type type = y->type;
  int64_t first = 0;
  for (int i = 0; i < type.rank; i++) {
    first += offset[i] * y->strides[i];
    type.dims[i] = dims[i];
  }
  rp_copy_strided(&type, element(y, first), y->strides, value, no_strides);
}

/* y is x at before[], and value around it: for each dim the slabs before and
   after x, as wide as x in the dims ahead of it. */
static void put_padded(const rp_array *y, const rp_array *x,
                       const int64_t *before, const void *value) {
  int64_t offset[RP_RANK] = {0}, dims[RP_RANK], first = 0;
  memcpy(dims, y->type.dims, sizeof dims);
  for (int i = 0; i < y->type.rank; i++) {
    const int64_t end = before[i] + x->type.dims[i];
    dims[i] = before[i];
    fill_box(y, offset, dims, value);
    offset[i] = end;
    dims[i] = y->type.dims[i] - end;
    fill_box(y, offset, dims, value);
    offset[i] = before[i];
    dims[i] = x->type.dims[i];
    first += before[i] * y->strides[i];
  }
  rp_copy_strided(&x->type, element(y, first), y->strides, x->data,
                  x->strides);
}

/* ints {before0, after0, before1, ...}, reals {value}. */
static rp_status pad(const rp_kernel_args *args) {
  int64_t before[RP_RANK] = {0}, value = 0;
  for (int i = 0; 2 * i < args->n_ints; i++) before[i] = args->ints[2 * i];
  rp_store_number(&value, (rp_dtype)args->out[0].type.dtype,
        args->n_reals ? args->reals[0] : 0);
  put_padded(&args->out[0], &args->in[0], before, &value);
  return RP_OK;
}

/* ints {dim, start, length, step, size}. */
static rp_status narrow_grad(const rp_kernel_args *args) {
  static const int64_t zero;
  const rp_array *y = &args->out[0], *x = &args->in[0];
  const int64_t dim = args->ints[0], start = args->ints[1],
                step = args->ints[3];
  int64_t before[RP_RANK] = {0};
  if (step == 1) {
    before[dim] = start;
    put_padded(y, x, before, &zero);
    return RP_OK;
  }
  fill_box(y, before, y->type.dims, &zero);
  rp_array taken = *y;
  taken.strides[dim] *= step;
  taken.data = element(y, start * y->strides[dim]);
  put(&taken, x, dim, 0);
  return RP_OK;
}

extern const rp_op rp_op_contiguous, rp_op_narrow_grad, rp_op_cat, rp_op_pad;

static const rp_kernel rows[] = {
    {&rp_op_contiguous, RP_F32, contiguous, NULL, NULL},
    {&rp_op_contiguous, RP_F64, contiguous, NULL, NULL},
    {&rp_op_contiguous, RP_BF16, contiguous, NULL, NULL},
    {&rp_op_contiguous, RP_I32, contiguous, NULL, NULL},
    {&rp_op_contiguous, RP_I64, contiguous, NULL, NULL},
    {&rp_op_contiguous, RP_BOOL, contiguous, NULL, NULL},
    {&rp_op_narrow_grad, RP_F32, narrow_grad, NULL, NULL},
    {&rp_op_narrow_grad, RP_F64, narrow_grad, NULL, NULL},
    {&rp_op_narrow_grad, RP_BF16, narrow_grad, NULL, NULL},
    {&rp_op_cat, RP_F32, cat, NULL, NULL},
    {&rp_op_cat, RP_F64, cat, NULL, NULL},
    {&rp_op_cat, RP_BF16, cat, NULL, NULL},
    {&rp_op_cat, RP_I32, cat, NULL, NULL},
    {&rp_op_cat, RP_I64, cat, NULL, NULL},
    {&rp_op_cat, RP_BOOL, cat, NULL, NULL},
    {&rp_op_pad, RP_F32, pad, NULL, NULL},
    {&rp_op_pad, RP_F64, pad, NULL, NULL},
    {&rp_op_pad, RP_BF16, pad, NULL, NULL},
    {&rp_op_pad, RP_I32, pad, NULL, NULL},
    {&rp_op_pad, RP_I64, pad, NULL, NULL},
    {&rp_op_pad, RP_BOOL, pad, NULL, NULL},
};

const rp_kernel_table rp_cpu_copy = {rows, sizeof rows / sizeof *rows};
