/* Reading and adding at indices. All indices are checked before the first
   element is written.

   The additions are the same for any number of threads: what is added to is
   cut into ranges of columns, each owned by one thread, which meets the
   indices in order. Where the cut lies changes no sum. */
#include <string.h>

#include "cpu/bf16.h"
#include "cpu/extent.h"
#include "cpu/indices.h"
#include "cpu/lanes.h"
#include "cpu/parallel.h"
#include "graph/op.h"

/* Columns that are worth a thread: a cache line of f32. */
enum { GRAIN = 16 };

/* ---- embedding, index_select -------------------------------------------- */

/* y:(outer, k, inner) from x:(outer, n, inner) at k indices, in bytes. */
static rp_status select_rows(const rp_kernel_args *args, rp_extent e) {
  const rp_status status = rp_indices_check(args, 1, e.n, NULL, "index");
  if (status != RP_OK) return status;
  const int64_t size =
      (int64_t)rp_dtype_size((rp_dtype)args->in[0].type.dtype);
  const int64_t k = rp_type_count(&args->in[1].type);
  const char *x = args->in[0].data;
  char *y = args->out[0].data;
#pragma omp parallel for schedule(static) if (rp_worth(e.outer * k * e.inner))
  for (int64_t i = 0; i < e.outer * k; i++) {
    const int64_t row = i / k * e.n + rp_index_at(&args->in[1], i % k);
    memcpy(y + i * e.inner * size, x + row * e.inner * size,
           (size_t)(e.inner * size));
  }
  return RP_OK;
}

static rp_status run_embedding(const rp_kernel_args *args) {
  return select_rows(args, rp_extent_of(&args->in[0].type, 0));
}

static rp_status run_index_select(const rp_kernel_args *args) {
  return select_rows(args, rp_extent_of(&args->in[0].type, args->ints[0]));
}

/* ---- their transposes --------------------------------------------------- */

static void add_f32(float *restrict y, const float *restrict x, int64_t n) {
  for (int64_t j = 0; j < n; j++) y[j] += x[j];
}
static void add_f64(double *restrict y, const double *restrict x, int64_t n) {
  for (int64_t j = 0; j < n; j++) y[j] += x[j];
}

/* dx:(outer, n, inner) = dw (NULL: 0), and then dx[.., idx[i], ..] += dy[..,
   i, ..] for k indices. dw may be dx. */
typedef struct addition {
  const rp_array *idx;
  const void *dw, *dy;
  void *dx;
  rp_extent e;
  int64_t k;
  size_t size; /* of an element */
} addition;

/* Where columns first..last-1 begin. */
static void start_rows(const addition *a, int64_t to, int64_t first,
                       int64_t last) {
  if (a->dw == a->dx) return;
  for (int64_t i = 0; i < a->e.n; i++) {
    const size_t at = (size_t)(to + i * a->e.inner + first) * a->size;
    const size_t bytes = (size_t)(last - first) * a->size;
    if (a->dw) memcpy((char *)a->dx + at, (const char *)a->dw + at, bytes);
    else memset((char *)a->dx + at, 0, bytes);
  }
}

/* Columns first..last-1 of one of dx's outer parts. */
static void add_rows(const addition *a, int64_t outer, int64_t first,
                     int64_t last) {
  const rp_extent e = a->e;
  const int64_t from = outer * a->k * e.inner, to = outer * e.n * e.inner;
  const int64_t m = last - first;
  if (m == 0) return;
  start_rows(a, to, first, last);
  for (int64_t i = 0; i < a->k; i++) {
    const int64_t source = from + i * e.inner + first;
    const int64_t target = to + rp_index_at(a->idx, i) * e.inner + first;
    if (a->size == sizeof(double))
      add_f64((double *)a->dx + target, (const double *)a->dy + source, m);
    else
      add_f32((float *)a->dx + target, (const float *)a->dy + source, m);
  }
}

/* Shares 0..total-1 among `parts`: where part i begins. */
static int64_t share(int64_t total, int64_t parts, int64_t i) {
  const int64_t grains = (total + GRAIN - 1) / GRAIN;
  const int64_t at = grains * i / parts * GRAIN;
  return at < total ? at : total;
}

/* dy is input `dy`, the indices the next one, dw (onto which dy is added) the
   one before where there is one. */
static rp_status add_selected(const rp_kernel_args *args, int dy,
                              rp_extent e) {
  const rp_status status = rp_indices_check(args, dy + 1, e.n, NULL, "index");
  if (status != RP_OK) return status;
  const addition a = {
      .idx = &args->in[dy + 1], .dw = dy > 0 ? args->in[0].data : NULL,
      .dy = args->in[dy].data, .dx = args->out[0].data, .e = e,
      .k = rp_type_count(&args->in[dy + 1].type),
      .size = rp_dtype_size((rp_dtype)args->out[0].type.dtype),
  };
  const int64_t passed = a.dw == a.dx ? 0 : e.n;
  const int64_t work = e.outer * (a.k + passed) * e.inner;
  const int64_t threads = rp_worth(work) ? omp_get_max_threads() : 1;
  const int64_t parts = e.outer >= threads ? 1 : threads;
#pragma omp parallel for schedule(static) if (rp_worth(work))
  for (int64_t item = 0; item < e.outer * parts; item++) {
    const int64_t part = item % parts;
    add_rows(&a, item / parts, share(e.inner, parts, part),
             share(e.inner, parts, part + 1));
  }
  return RP_OK;
}

static rp_status run_embedding_grad(const rp_kernel_args *args) {
  return add_selected(args, 0, rp_extent_of(&args->out[0].type, 0));
}

static rp_status run_embedding_grad_add(const rp_kernel_args *args) {
  return add_selected(args, 1, rp_extent_of(&args->out[0].type, 0));
}

/* ---- embedding's, in bf16 ----------------------------------------------- */

/* Columns of a row that are summed up in f32 at a time. */
enum { COLUMNS = 256 };

/* Positions sorted by the row that they add to, in order within it: row v has
   order[ends[v - 1]] .. order[ends[v] - 1]. */
typedef struct sorted {
  int64_t *ends, *order;
} sorted;

static rp_status prepare_bf16(const rp_kernel_args *args, void **state,
                              int64_t *workspace_bytes) {
  *state = NULL;
  const int64_t rows = args->out[0].type.dims[0];
  const int64_t positions = rp_type_count(&args->in[args->n_in - 1].type);
  *workspace_bytes = (rows + positions) * (int64_t)sizeof(int64_t);
  return RP_OK;
}

static sorted sort_positions(const rp_array *idx, int64_t rows, int64_t n,
                             void *workspace) {
  const sorted s = {workspace, (int64_t *)workspace + rows};
  memset(s.ends, 0, (size_t)rows * sizeof *s.ends);
  for (int64_t i = 0; i < n; i++) s.ends[rp_index_at(idx, i)]++;
  int64_t before = 0;
  for (int64_t v = 0; v < rows; v++) {
    const int64_t count = s.ends[v];
    s.ends[v] = before;
    before += count;
  }
  for (int64_t i = 0; i < n; i++) s.order[s.ends[rp_index_at(idx, i)]++] = i;
  return s;
}

/* A row is summed up in f32 and rounded once. dw (NULL: 0) may be dx. */
static void add_row_bf16(const int64_t *order, int64_t n, int64_t width,
                         const uint16_t *dw, const uint16_t *dy,
                         uint16_t *dx) {
  for (int64_t first = 0; first < width; first += COLUMNS) {
    const int64_t m = width - first < COLUMNS ? width - first : COLUMNS;
    float sum[COLUMNS] = {0}, next[COLUMNS];
    if (dw) rp_bf16_widen(sum, dw + first, 1, m);
    for (int64_t i = 0; i < n; i++) {
      rp_bf16_widen(next, dy + order[i] * width + first, 1, m);
      add_f32(sum, next, m);
    }
    rp_bf16_round(dx + first, sum, m);
  }
}

static rp_status add_bf16(const rp_kernel_args *args, int dy) {
  const rp_type *table = &args->out[0].type;
  const int64_t rows = table->dims[0], width = table->dims[1];
  const rp_status status = rp_indices_check(args, dy + 1, rows, NULL, "index");
  if (status != RP_OK) return status;
  const int64_t n = rp_type_count(&args->in[dy + 1].type);
  const uint16_t *dw = dy > 0 ? args->in[0].data : NULL;
  const uint16_t *from = args->in[dy].data;
  uint16_t *dx = args->out[0].data;
  const sorted s =
      sort_positions(&args->in[dy + 1], rows, n, args->workspace);
#pragma omp parallel for schedule(static) if (rp_worth((n + rows) * width))
  for (int64_t v = 0; v < rows; v++) {
    const int64_t first = v > 0 ? s.ends[v - 1] : 0;
    if (first == s.ends[v] && dw == dx) continue;
    add_row_bf16(s.order + first, s.ends[v] - first, width,
                 dw ? dw + v * width : NULL, from, dx + v * width);
  }
  return RP_OK;
}

static rp_status run_embedding_grad_bf16(const rp_kernel_args *args) {
  return add_bf16(args, 0);
}

static rp_status run_embedding_grad_add_bf16(const rp_kernel_args *args) {
  return add_bf16(args, 1);
}

/* ---- index_select's ----------------------------------------------------- */

static rp_status run_index_select_grad(const rp_kernel_args *args) {
  return add_selected(args, 0,
                      rp_extent_of(&args->out[0].type, args->ints[0]));
}

/* ---- gather ------------------------------------------------------------- */

RP_INLINE void copy_element(void *y, int64_t i, const void *x, int64_t j,
                            size_t size) {
  memcpy((char *)y + (size_t)i * size, (const char *)x + (size_t)j * size,
         size);
}

/* y:(outer, k, inner), x:(outer, n, inner). */
RP_INLINE void gather_as(const rp_kernel_args *args, rp_extent e, int64_t k,
                         size_t size) {
  const void *x = args->in[0].data;
  void *y = args->out[0].data;
#pragma omp parallel for schedule(static) if (rp_worth(e.outer * k * e.inner))
  for (int64_t row = 0; row < e.outer * k; row++)
    for (int64_t j = 0; j < e.inner; j++) {
      const int64_t i = row * e.inner + j;
      const int64_t at = row / k * e.n + rp_index_at(&args->in[1], i);
      copy_element(y, i, x, at * e.inner + j, size);
    }
}

static rp_status run_gather(const rp_kernel_args *args) {
  const rp_extent e = rp_extent_of(&args->in[0].type, args->ints[0]);
  const rp_status status = rp_indices_check(args, 1, e.n, NULL, "index");
  if (status != RP_OK) return status;
  const int64_t k = args->in[1].type.dims[args->ints[0]];
  switch (rp_dtype_size((rp_dtype)args->in[0].type.dtype)) {
    case 1: gather_as(args, e, k, 1); break;
    case 4: gather_as(args, e, k, 4); break;
    default: gather_as(args, e, k, 8); break;
  }
  return RP_OK;
}

/* dx:(outer, n, inner), dy:(outer, k, inner): columns first..last-1. */
static void gather_add(const rp_kernel_args *args, int64_t outer, rp_extent e,
                       int64_t k, int64_t first, int64_t last) {
  const bool wide = args->in[0].type.dtype == RP_F64;
  const void *dy = args->in[0].data;
  void *dx = args->out[0].data;
  const int64_t to = outer * e.n * e.inner;
  const size_t size = wide ? sizeof(double) : sizeof(float);
  for (int64_t i = 0; i < e.n; i++)
    memset((char *)dx + (size_t)(to + i * e.inner + first) * size, 0,
           (size_t)(last - first) * size);
  for (int64_t row = outer * k; row < (outer + 1) * k; row++)
    for (int64_t j = first; j < last; j++) {
      const int64_t i = row * e.inner + j;
      const int64_t at = to + rp_index_at(&args->in[1], i) * e.inner + j;
      if (wide) ((double *)dx)[at] += ((const double *)dy)[i];
      else ((float *)dx)[at] += ((const float *)dy)[i];
    }
}

static rp_status run_gather_grad(const rp_kernel_args *args) {
  const rp_extent e = rp_extent_of(&args->out[0].type, args->ints[0]);
  const rp_status status = rp_indices_check(args, 1, e.n, NULL, "index");
  if (status != RP_OK) return status;
  const int64_t k = args->in[1].type.dims[args->ints[0]];
  const int64_t work = e.outer * (k + e.n) * e.inner;
  const int64_t threads = rp_worth(work) ? omp_get_max_threads() : 1;
  const int64_t parts = e.outer >= threads ? 1 : threads;
#pragma omp parallel for schedule(static) if (rp_worth(work))
  for (int64_t item = 0; item < e.outer * parts; item++) {
    const int64_t part = item % parts;
    gather_add(args, item / parts, e, k, share(e.inner, parts, part),
               share(e.inner, parts, part + 1));
  }
  return RP_OK;
}

extern const rp_op rp_op_embedding, rp_op_embedding_grad,
    rp_op_embedding_grad_add, rp_op_index_select, rp_op_index_select_grad,
    rp_op_gather, rp_op_gather_grad;

static const rp_kernel rows[] = {
    {&rp_op_embedding, RP_F32, run_embedding, NULL, NULL},
    {&rp_op_embedding, RP_F64, run_embedding, NULL, NULL},
    {&rp_op_embedding, RP_BF16, run_embedding, NULL, NULL},
    {&rp_op_embedding_grad, RP_F32, run_embedding_grad, NULL, NULL},
    {&rp_op_embedding_grad, RP_F64, run_embedding_grad, NULL, NULL},
    {&rp_op_embedding_grad, RP_BF16, run_embedding_grad_bf16, prepare_bf16,
     NULL},
    {&rp_op_embedding_grad_add, RP_F32, run_embedding_grad_add, NULL, NULL},
    {&rp_op_embedding_grad_add, RP_F64, run_embedding_grad_add, NULL, NULL},
    {&rp_op_embedding_grad_add, RP_BF16, run_embedding_grad_add_bf16,
     prepare_bf16, NULL},
    {&rp_op_index_select, RP_F32, run_index_select, NULL, NULL},
    {&rp_op_index_select, RP_F64, run_index_select, NULL, NULL},
    {&rp_op_index_select, RP_I32, run_index_select, NULL, NULL},
    {&rp_op_index_select, RP_I64, run_index_select, NULL, NULL},
    {&rp_op_index_select, RP_BOOL, run_index_select, NULL, NULL},
    {&rp_op_index_select_grad, RP_F32, run_index_select_grad, NULL, NULL},
    {&rp_op_index_select_grad, RP_F64, run_index_select_grad, NULL, NULL},
    {&rp_op_gather, RP_F32, run_gather, NULL, NULL},
    {&rp_op_gather, RP_F64, run_gather, NULL, NULL},
    {&rp_op_gather, RP_I32, run_gather, NULL, NULL},
    {&rp_op_gather, RP_I64, run_gather, NULL, NULL},
    {&rp_op_gather, RP_BOOL, run_gather, NULL, NULL},
    {&rp_op_gather_grad, RP_F32, run_gather_grad, NULL, NULL},
    {&rp_op_gather_grad, RP_F64, run_gather_grad, NULL, NULL},
};
const rp_kernel_table rp_cpu_index = {rows, sizeof rows / sizeof *rows};
