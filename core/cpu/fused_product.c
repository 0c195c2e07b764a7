/* Products with elementwise ops in front of an operand or behind the result, a
   tile at a time: tiles are rows of the result, or columns of it, so each
   element's sum is the one that the whole product takes.

   Invariants
     - extent is cut into tiles of `step`, the last maybe smaller, all of a size
       at which a product is at full rate and in which oneDNN 2.6 sums in the
       order that it would for the whole (spec/core/fused_product_test.c).
     - the workspace is: the made operand's tile, the result's tile, slots for
       the pieces of each thread (cpu/pieces.h), the product's own.
     - tiles of operands and results lie densely, so no product falls back to
       oneDNN's packed GEMM with buffers of its own. */
#include <string.h>

#include "base/memory.h"
#include "cpu/mixed_product.h"
#include "cpu/parallel.h"
#include "cpu/pieces.h"
#include "exec/product.h"

/* A tile has STEP rows, or columns in runs of RUN bytes, which memory is slow
   to begin; half of that above MOST_TILE bytes, more below LEAST_TILE. */
enum {
  STEP = 256, RUN = 1536, UNIT = 16,
  LEAST_TILE = 1 << 20, MOST_TILE = 3 << 20, LINE = 64
};

typedef enum way {
  ROWS,      /* of input 0 and of the result */
  TURNED,    /* columns of what input 0 is the transpose of */
  COLUMNS    /* of input 1 and of the result */
} way;

/* Elementwise parts, and what they read: operands of the node, -1 the
   product's result. */
typedef struct side {
  bool is_there;
  rp_pieces pieces;
  int32_t n_in, from[RP_PIECE_OPERANDS];
} side;

typedef struct fused_product {
  rp_context *ctx;
  side front, behind;
  way way;
  bool in_front, bias;
  int32_t in[RP_PART_INPUTS]; /* the product's, -1 the one that is made */
  rp_array a, b, y;           /* as matrices, without data */
  rp_array bias_array;
  int64_t extent, step;
  rp_mixed_product *full, *last;
  int64_t made_bytes, result_bytes, slots_bytes, slots_thread;
} fused_product;

/* ---- arrays -------------------------------------------------------------------- */

static rp_array dense(rp_dtype dtype, int64_t rows, int64_t columns) {
  return (rp_array){.type = {dtype, 2, {rows, columns}},
                    .strides = {columns, 1}};
}

static rp_array turned(rp_array x) {
  const int64_t dim = x.type.dims[0], stride = x.strides[0];
  x.type.dims[0] = x.type.dims[1];
  x.strides[0] = x.strides[1];
  x.type.dims[1] = dim;
  x.strides[1] = stride;
  return x;
}

/* x:(..., k) as (rows, k): it is that already, or dense. */
static rp_array as_matrix(const rp_array *x) {
  if (x->type.rank == 2) return *x;
  const int64_t k = x->type.dims[x->type.rank - 1];
  return dense((rp_dtype)x->type.dtype, rp_type_count(&x->type) / k, k);
}

static int64_t size_of(const rp_array *x) {
  return (int64_t)rp_dtype_size((rp_dtype)x->type.dtype);
}

/* ---- preparing ------------------------------------------------------------------ */

/* The parts first .. end - 1 as a fusion of their own. */
static rp_status prepare_side(side *s, const rp_kernel_args *args,
                              int32_t first, int32_t end) {
  const rp_fusion *whole = args->fusion;
  if (first == end) return RP_OK;
  s->is_there = true;
  rp_fusion own = {.n = end - first};
  rp_array in[RP_PIECE_OPERANDS];
  for (int32_t i = first; i < end; i++) {
    rp_part *part = &own.parts[i - first];
    *part = whole->parts[i];
    for (int32_t k = 0; k < part->n_in; k++) {
      int32_t from = part->in[k];
      if (from < 0 && -1 - from >= first) {
        part->in[k] = from + first;
        continue;
      }
      if (from < 0) from = -1; /* the product */
      int32_t j = 0;
      while (j < s->n_in && s->from[j] != from) j++;
      if (j == s->n_in) {
        s->from[s->n_in++] = from;
        if (from >= 0) in[j] = args->in[from];
      }
      part->in[k] = j;
      if (from >= 0) continue;
      rp_strides strides = {0};
      in[j] = (rp_array){.type = own.parts[i - first].type};
      in[j].type.dtype = whole->parts[whole->product].type.dtype;
      rp_strides_contiguous(&in[j].type, &strides);
      memcpy(in[j].strides, strides.at, sizeof in[j].strides);
    }
  }
  const rp_kernel_args own_args = {.in = in, .n_in = s->n_in,
                                   .fusion = &own, .ctx = args->ctx};
  return rp_pieces_prepare(&s->pieces, &own_args);
}

static int64_t slots_of(const side *s) {
  return s->is_there ? rp_pieces_slot_bytes(&s->pieces) : 0;
}

/* A tile of `n` rows or columns for its product. */
static void tile_arrays(const fused_product *f, int64_t n, rp_array *a,
                        rp_array *b, rp_array *y) {
  const rp_dtype in = (rp_dtype)f->a.type.dtype;
  const rp_dtype out = (rp_dtype)f->y.type.dtype;
  const int64_t m = f->a.type.dims[0], k = f->a.type.dims[1];
  *a = f->a;
  *b = f->b;
  if (f->way == COLUMNS) {
    *b = dense(in, k, n);
    *y = dense(out, m, n);
    return;
  }
  a->type.dims[0] = n;
  if (f->way == TURNED) *a = turned(dense(in, k, n));
  else if (f->in_front) *a = dense(in, n, k);
  *y = dense(out, n, f->y.type.dims[1]);
}

static rp_status make_product(fused_product *f, int64_t n,
                              rp_mixed_product **out, int64_t *bytes) {
  rp_array a, b, y;
  int64_t own = 0;
  tile_arrays(f, n, &a, &b, &y);
  *out = rp_mixed_product_new(f->ctx, &a, &b, f->bias ? &f->bias_array : NULL,
                              &y, false, &own);
  if (own > *bytes) *bytes = own;
  return *out ? RP_OK : rp_last_status(f->ctx);
}

/* The last tile is no smaller than three quarters of a tile, where that can
   be: few columns are summed in another order on some numbers of threads. */
static int64_t choose_step(int64_t least, int64_t extent,
                           int64_t bytes_each) {
  if (least * bytes_each > MOST_TILE) least /= 2;
  while (least * bytes_each < LEAST_TILE && 4 * least <= extent) least *= 2;
  int64_t step = least, most = 0;
  for (int64_t at = least; at <= least + least / 2; at += UNIT) {
    const int64_t rest = (extent - 1) % at + 1;
    if (4 * rest >= 3 * at) return at;
    if (rest > most) most = rest, step = at;
  }
  return step;
}

static rp_status prepare_product(fused_product *f, const rp_kernel_args *args,
                                 int64_t *workspace_bytes) {
  const rp_fusion *fusion = args->fusion;
  const rp_part *part = &fusion->parts[fusion->product];
  rp_array in[RP_PART_INPUTS];
  int made = -1;
  for (int32_t k = 0; k < part->n_in; k++) {
    f->in[k] = part->in[k];
    if (part->in[k] >= 0) {
      in[k] = args->in[part->in[k]];
      continue;
    }
    made = k;
    f->in[k] = -1;
    in[k] = (rp_array){.type = fusion->made};
    memcpy(in[k].strides, fusion->made_strides.at, sizeof in[k].strides);
  }
  f->in_front = made >= 0;
  f->a = as_matrix(&in[0]);
  f->b = part->op->product == RP_PRODUCT_TRANSPOSED ? turned(in[1]) : in[1];
  f->y = dense((rp_dtype)part->type.dtype, f->a.type.dims[0],
               f->b.type.dims[1]);
  f->bias = part->n_in > 2;
  if (f->bias) f->bias_array = in[2];
  f->way = made == 1                             ? COLUMNS
           : made == 0 && f->a.strides[1] != 1 ? TURNED
                                                 : ROWS;
  int64_t bytes_each = 0;
  f->extent = f->way == COLUMNS ? f->b.type.dims[1] : f->a.type.dims[0];
  if (made >= 0) bytes_each += f->a.type.dims[1] * size_of(&f->a);
  if (f->behind.is_there) bytes_each += f->y.type.dims[1] * size_of(&f->y);
  f->step = choose_step(f->way == ROWS ? STEP : RUN / size_of(&f->a), f->extent,
                        bytes_each);
  rp_array a, b, y;
  tile_arrays(f, f->step, &a, &b, &y);
  if (made >= 0)
    f->made_bytes =
        rp_align(rp_type_bytes(f->way == COLUMNS ? &b.type : &a.type));
  if (f->behind.is_there || f->way == COLUMNS)
    f->result_bytes = rp_align(rp_type_bytes(&y.type));
  int64_t own = 0;
  rp_status status = make_product(f, f->step, &f->full, &own);
  const int64_t rest = f->extent % f->step;
  if (status == RP_OK && rest) status = make_product(f, rest, &f->last, &own);
  const int64_t one = slots_of(&f->front), two = slots_of(&f->behind);
  f->slots_thread = one > two ? one : two;
  f->slots_bytes = omp_get_max_threads() * f->slots_thread;
  *workspace_bytes = f->made_bytes + f->result_bytes + f->slots_bytes + own;
  return status;
}

static rp_status prepare_fused_product(const rp_kernel_args *args,
                                       void **state,
                                       int64_t *workspace_bytes) {
  const rp_fusion *fusion = args->fusion;
  fused_product *f = rp_alloc(args->ctx, sizeof *f);
  if (f == NULL) return RP_NOMEM;
  *state = f;
  f->ctx = args->ctx;
  rp_status status = prepare_side(&f->front, args, 0, fusion->product);
  if (status == RP_OK)
    status = prepare_side(&f->behind, args, fusion->product + 1, fusion->n);
  return status == RP_OK ? prepare_product(f, args, workspace_bytes) : status;
}

static void destroy_fused_product(void *state) {
  fused_product *f = state;
  rp_mixed_product_free(f->full);
  rp_mixed_product_free(f->last);
  rp_free(f->ctx, f, sizeof *f);
}

/* ---- running -------------------------------------------------------------------- */

typedef struct running {
  const side *side;
  rp_array in[RP_PIECE_OPERANDS];
  rp_kernel_args args;
  rp_pieces_run run;
  char *slots;
  int64_t slots_thread;
} running;

/* The product's result is found where `result` says element 0 would be. */
static void start_side(running *r, const fused_product *f, const side *s,
                       const rp_kernel_args *args, char *slots) {
  r->side = s;
  r->slots = slots;
  r->slots_thread = f->slots_thread;
  for (int32_t j = 0; j < s->n_in; j++)
    if (s->from[j] >= 0) r->in[j] = args->in[s->from[j]];
  r->args = *args;
  r->args.in = r->in;
  r->args.n_in = s->n_in;
  rp_pieces_start(&r->run, &s->pieces, &r->args);
}

/* Asks for what n elements from `first` on are made of. Inlined: GCC 12 takes a
   function that does nothing else for one without effect. */
RP_INLINE void prefetch(const running *r, int64_t first, int64_t n) {
  const rp_pieces *p = &r->side->pieces;
  const int last = p->rank - 1;
  int64_t index[RP_RANK];
  for (int d = last; d >= 0; d--) {
    index[d] = first % p->dims[d];
    first /= p->dims[d];
  }
  for (int32_t j = 0; j < r->side->n_in; j++) {
    if (p->strides[j][last] != 1) continue;
    int64_t offset = 0;
    for (int d = 0; d <= last; d++) offset += index[d] * p->strides[j][d];
    const char *from = (const char *)r->in[j].data + offset * p->size[j];
    for (int64_t at = 0; at < n * p->size[j]; at += LINE)
      __builtin_prefetch(from + at, 0, 2);
  }
}

/* n elements of a run from `first` on, in each of `rows` runs that are `apart`
   elements from each other, densely to `out`. The processor foresees what a run
   reads, but not where the next one begins. */
static void make_rows(const running *r, int64_t first, int64_t n, int64_t rows,
                      int64_t apart, char *out) {
  const rp_pieces *p = &r->side->pieces;
  const int64_t chunks = n > RP_TILE ? (n + RP_TILE - 1) / RP_TILE : 1;
#pragma omp parallel for schedule(static) num_threads(p->threads)
  for (int64_t t = 0; t < rows * chunks; t++) {
    const int64_t row = t / chunks, at = t % chunks * RP_TILE;
    const int64_t from = first + row * apart + at;
    const int64_t left = chunks == 1 ? n : n - at;
    const int64_t count = chunks > 1 && left > RP_TILE ? RP_TILE : left;
    if (chunks == 1 && row + 1 < rows) prefetch(r, from + apart, n);
    rp_pieces_make(&r->run, from, from + count,
                   out + (row * n + at) * p->out_size,
                   r->slots + omp_get_thread_num() * r->slots_thread);
  }
}

static void copy_columns(const fused_product *f, const char *tile, int64_t n,
                         char *y, int64_t at) {
  const int64_t size = size_of(&f->y), whole = f->y.type.dims[1];
  const int64_t rows = f->y.type.dims[0];
#pragma omp parallel for schedule(static) if (rp_worth(rows * n))
  for (int64_t i = 0; i < rows; i++)
    memcpy(y + (i * whole + at) * size, tile + i * n * size,
           (size_t)(n * size));
}

static rp_status run_fused_product(const rp_kernel_args *args) {
  const fused_product *f = args->state;
  char *made = args->workspace, *result = made + f->made_bytes;
  char *slots = result + f->result_bytes, *own = slots + f->slots_bytes;
  running front, behind;
  if (f->front.is_there) start_side(&front, f, &f->front, args, slots);
  if (f->behind.is_there) start_side(&behind, f, &f->behind, args, slots);
  const int64_t m = f->a.type.dims[0], k = f->a.type.dims[1];
  const int64_t n = f->y.type.dims[1], size = size_of(&f->y);
  char *out = args->out->data;
  rp_status status = RP_OK;
  for (int64_t at = 0; at < f->extent && status == RP_OK; at += f->step) {
    const int64_t left = f->extent - at;
    const int64_t count = left < f->step ? left : f->step;
    rp_array a, b, y, bias = {0};
    tile_arrays(f, count, &a, &b, &y);
    if (f->in[0] >= 0)
      a.data = (char *)args->in[f->in[0]].data +
               (f->way == COLUMNS ? 0 : at * f->a.strides[0] * size_of(&a));
    if (f->in[1] >= 0) b.data = args->in[f->in[1]].data;
    if (f->bias) bias = args->in[f->in[2]];
    if (f->way == COLUMNS) {
      b.data = made;
      make_rows(&front, at, count, k, n, made);
    } else if (f->way == TURNED) {
      a.data = made;
      make_rows(&front, at, count, k, m, made);
    } else if (f->in_front) {
      a.data = made;
      make_rows(&front, at * k, count * k, 1, 0, made);
    }
    y.data = f->result_bytes ? result : out + at * n * size;
    status = rp_mixed_product_run(count == f->step ? f->full : f->last,
                                  args->ctx, &a, &b, f->bias ? &bias : NULL,
                                  &y, own);
    if (status != RP_OK) break;
    if (f->way == COLUMNS) copy_columns(f, result, count, out, at);
    if (!f->behind.is_there) continue;
    for (int32_t j = 0; j < f->behind.n_in; j++)
      if (f->behind.from[j] < 0)
        behind.in[j].data = result - at * n * size;
    make_rows(&behind, at * n, count * n, 1, 0,
              out + at * n * f->behind.pieces.out_size);
  }
  return status;
}

static const rp_kernel rows[] = {
    {&rp_op_fused_product, RP_F32, run_fused_product, prepare_fused_product,
     destroy_fused_product},
    {&rp_op_fused_product, RP_BF16, run_fused_product, prepare_fused_product,
     destroy_fused_product},
};
const rp_kernel_table rp_cpu_fused_product = {rows, sizeof rows / sizeof *rows};
