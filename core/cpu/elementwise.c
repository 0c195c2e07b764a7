/* Rows over an output: broadcasting, collapsed dims, threads. */
#include "cpu/elementwise.h"

#include "cpu/bf16.h"
#include "cpu/parallel.h"

/* The output's dims with those of size 1 left out and neighbours merged
   wherever every input goes on through them with one stride. Invariant:
   rank >= 1, and the product of dims is the number of elements. */
typedef struct grid {
  int rank, n_in;
  int64_t count;
  int64_t dims[RP_RANK];
  int64_t strides[RP_ROW_INPUTS][RP_RANK];
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

/* A row of which some arrays are bf16, in pieces that stay in the first-level
   cache. Every piece but the last is a multiple of what a random word block
   serves, so that draws are those of the whole row. */
enum { PIECE = 1024 };

static void run_widened(const rp_row_kernel *k, const rp_row *row) {
  _Alignas(64) float in[RP_ROW_INPUTS][PIECE], out[PIECE];
  rp_row piece = *row;
  for (int64_t at = 0; at < row->n; at += PIECE) {
    piece.n = row->n - at < PIECE ? row->n - at : PIECE;
    piece.first = row->first + at;
    for (int i = 0; i < k->n_in; i++) {
      const int64_t step = row->strides[i];
      const char *from = (const char *)row->in[i] + at * step * k->size[i];
      if (k->narrow[i]) {
        rp_bf16_widen(in[i], from, step, step ? piece.n : 1);
        piece.in[i] = in[i];
        piece.strides[i] = step ? 1 : 0;
      } else {
        piece.in[i] = from;
      }
    }
    char *to = (char *)row->out + at * k->out_size;
    piece.out = k->out_narrow ? (void *)out : to;
    k->function(&piece);
    if (k->out_narrow) rp_bf16_round((uint16_t *)to, out, piece.n);
  }
}

void rp_row_run(const rp_row_kernel *kernel, const rp_row *row) {
  if (kernel->widens) run_widened(kernel, row);
  else kernel->function(row);
}

/* The elements first .. first + n - 1. */
static void run_tile(const grid *g, const rp_kernel_args *args,
                     const rp_row_kernel *kernel, int64_t first, int64_t n) {
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
    row.out = (char *)args->out->data + first * kernel->out_size;
    for (int i = 0; i < g->n_in; i++)
      row.in[i] = (const char *)args->in[i].data + offsets[i] * kernel->size[i];
    rp_row_run(kernel, &row);
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

static rp_status run_tiles(const rp_kernel_args *args,
                           const rp_row_kernel *kernel) {
  const grid g = grid_of(args);
  const int64_t tiles = (g.count + RP_TILE - 1) / RP_TILE;
#pragma omp parallel for schedule(static) if (rp_worth(g.count))
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t first = t * RP_TILE, left = g.count - first;
    run_tile(&g, args, kernel, first, left < RP_TILE ? left : RP_TILE);
  }
  return RP_OK;
}

static rp_status run_or_tell(const rp_kernel_args *args,
                             rp_row_function *function, bool widens) {
  rp_row_kernel kernel = {.function = function, .widens = widens,
                          .n_in = args->n_in};
  const rp_dtype out = (rp_dtype)args->out->type.dtype;
  kernel.out_size = (int64_t)rp_dtype_size(out);
  kernel.out_narrow = out == RP_BF16;
  for (int i = 0; i < args->n_in; i++) {
    const rp_dtype in = (rp_dtype)args->in[i].type.dtype;
    kernel.size[i] = (int64_t)rp_dtype_size(in);
    kernel.narrow[i] = in == RP_BF16;
  }
  if (args->row_kernel == NULL) return run_tiles(args, &kernel);
  *args->row_kernel = kernel;
  return RP_OK;
}

rp_status rp_rows_run(const rp_kernel_args *args, rp_row_function *function) {
  return run_or_tell(args, function, false);
}

rp_status rp_rows_run_narrow(const rp_kernel_args *args,
                             rp_row_function *function) {
  return run_or_tell(args, function, true);
}

static bool any_narrow(const rp_kernel_args *args) {
  bool any = args->out->type.dtype == RP_BF16;
  for (int i = 0; i < args->n_in; i++)
    any |= args->in[i].type.dtype == RP_BF16;
  return any;
}

rp_status rp_rows_run_typed(const rp_kernel_args *args, const rp_rows *rows) {
  if (any_narrow(args)) return rp_rows_run_narrow(args, rows->f32);
  switch (args->in[0].type.dtype) {
    case RP_F32: return rp_rows_run(args, rows->f32);
    case RP_F64: return rp_rows_run(args, rows->f64);
    case RP_I32: return rp_rows_run(args, rows->i32);
    case RP_I64: return rp_rows_run(args, rows->i64);
    case RP_BOOL: return rp_rows_run(args, rows->boolean);
    default: return RP_INTERNAL;
  }
}
