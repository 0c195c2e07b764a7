/* Rows over an output: broadcasting, collapsed dims, threads. */
#include "cpu/elementwise.h"

#include "cpu/parallel.h"

/* The output's dims with those of size 1 left out and neighbours merged
   wherever every input goes on through them with one stride. Invariant:
   rank >= 1, and the product of dims is the number of elements. */
typedef struct grid {
  int rank, n_in;
  int64_t count;
  int64_t dims[RP_RANK];
  int64_t strides[RP_ROW_INPUTS][RP_RANK];
  int64_t size[RP_ROW_INPUTS], out_size; /* bytes an element */
} grid;

/* Input i's stride along dim d of the output; 0 where it is broadcast. */
static int64_t stride_along(const rp_kernel_args *args, int i, int d) {
  const rp_array *in = &args->in[i];
  const int at = d - (args->out->type.rank - in->type.rank);
  return at < 0 || in->type.dims[at] == 1 ? 0 : in->strides[at];
}

static grid grid_of(const rp_kernel_args *args) {
  const rp_type *out = &args->out->type;
  grid g = {.n_in = args->n_in, .count = rp_type_count(out)};
  g.out_size = (int64_t)rp_dtype_size((rp_dtype)out->dtype);
  for (int i = 0; i < g.n_in; i++)
    g.size[i] = (int64_t)rp_dtype_size((rp_dtype)args->in[i].type.dtype);
  for (int d = 0; d < out->rank; d++) {
    if (out->dims[d] == 1) continue;
    bool merges = g.rank > 0;
    for (int i = 0; i < g.n_in && merges; i++)
      merges = g.strides[i][g.rank - 1] ==
               stride_along(args, i, d) * out->dims[d];
    if (!merges) g.dims[g.rank++] = 1;
    g.dims[g.rank - 1] *= out->dims[d];
    for (int i = 0; i < g.n_in; i++)
      g.strides[i][g.rank - 1] = stride_along(args, i, d);
  }
  if (g.rank == 0) {
    g.rank = 1, g.dims[0] = 1;
    for (int i = 0; i < g.n_in; i++) g.strides[i][0] = 1;
  }
  return g;
}

/* The elements first .. first + n - 1. */
static void run_tile(const grid *g, const rp_kernel_args *args,
                     rp_row_function *function, int64_t first, int64_t n) {
  const int last = g->rank - 1;
  int64_t index[RP_RANK], offsets[RP_ROW_INPUTS] = {0};
  int64_t rest = first;
  for (int d = last; d >= 0; d--) {
    index[d] = rest % g->dims[d];
    rest /= g->dims[d];
    for (int i = 0; i < g->n_in; i++)
      offsets[i] += index[d] * g->strides[i][d];
  }
  rp_row row = {.args = args};
  for (int i = 0; i < g->n_in; i++) row.strides[i] = g->strides[i][last];
  while (n > 0) {
    const int64_t left = g->dims[last] - index[last];
    row.n = left < n ? left : n;
    row.first = args->first + first;
    row.out = (char *)args->out->data + first * g->out_size;
    for (int i = 0; i < g->n_in; i++)
      row.in[i] = (const char *)args->in[i].data + offsets[i] * g->size[i];
    function(&row);
    first += row.n;
    n -= row.n;
    for (int i = 0; i < g->n_in; i++)
      offsets[i] -= index[last] * g->strides[i][last];
    index[last] = 0;
    for (int d = last - 1; d >= 0; d--) {
      for (int i = 0; i < g->n_in; i++) offsets[i] += g->strides[i][d];
      if (++index[d] < g->dims[d]) break;
      for (int i = 0; i < g->n_in; i++)
        offsets[i] -= index[d] * g->strides[i][d];
      index[d] = 0;
    }
  }
}

rp_status rp_rows_run(const rp_kernel_args *args, rp_row_function *function) {
  const grid g = grid_of(args);
  const int64_t tiles = (g.count + RP_TILE - 1) / RP_TILE;
#pragma omp parallel for schedule(static) if (rp_worth(g.count))
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t first = t * RP_TILE, left = g.count - first;
    run_tile(&g, args, function, first, left < RP_TILE ? left : RP_TILE);
  }
  return RP_OK;
}

rp_status rp_rows_run_typed(const rp_kernel_args *args, const rp_rows *rows) {
  switch (args->in[0].type.dtype) {
    case RP_F32: return rp_rows_run(args, rows->f32);
    case RP_F64: return rp_rows_run(args, rows->f64);
    case RP_I32: return rp_rows_run(args, rows->i32);
    case RP_I64: return rp_rows_run(args, rows->i64);
    case RP_BOOL: return rp_rows_run(args, rows->boolean);
    default: return RP_INTERNAL;
  }
}
