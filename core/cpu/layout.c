#include "cpu/reduce.h"

enum {
  ROW_CHUNK = 32768,     /* elements of one partial of a row */
  COLUMN_CHUNK = 131072, /* elements of a chunk of rows, and bounds on them */
  COLUMN_ROWS_MIN = 32,
  COLUMN_ROWS_MAX = 1024,
  COLUMN_ITEMS = 16      /* tiles that are work enough without chunks */
};

int64_t rp_groups_offset(const rp_groups *g, int64_t index) {
  int64_t offset = 0;
  for (int i = g->n - 1; i > 0; i--) {
    offset += index % g->dims[i] * g->strides[i];
    index /= g->dims[i];
  }
  return g->n ? offset + index * g->strides[0] : 0;
}

static void groups_push(rp_groups *g, int64_t dim, int64_t stride) {
  g->dims[g->n] = dim;
  g->strides[g->n++] = stride;
  g->count *= dim;
}

static int64_t columns_chunk(const rp_layout *l) {
  const int64_t tiles = (l->run + RP_COLUMN_TILE - 1) / RP_COLUMN_TILE;
  if (l->kept.count * tiles >= COLUMN_ITEMS) return COLUMN_ROWS_MAX;
  const int64_t rows = COLUMN_CHUNK / (l->run ? l->run : 1);
  if (rows < COLUMN_ROWS_MIN) return COLUMN_ROWS_MIN;
  if (rows > COLUMN_ROWS_MAX) return COLUMN_ROWS_MAX;
  return rows / RP_FOLD_ROWS * RP_FOLD_ROWS;
}

void rp_layout_of(rp_layout *l, const rp_type *x, uint32_t set) {
  int64_t dims[RP_RANK];
  bool reduced[RP_RANK];
  int n = 0;
  for (int i = 0; i < x->rank; i++) {
    const bool r = set >> i & 1u;
    if (x->dims[i] == 1) continue;
    if (n && reduced[n - 1] == r) dims[n - 1] *= x->dims[i];
    else dims[n] = x->dims[i], reduced[n++] = r;
  }
  *l = (rp_layout){.kept.count = 1, .reduced.count = 1, .run = 1,
                   .rows = true};
  if (n) l->run = dims[n - 1], l->rows = reduced[n - 1];
  int64_t strides[RP_RANK];
  for (int64_t i = n - 2, stride = l->run; i >= 0; stride *= dims[i--])
    strides[i] = stride;
  for (int i = 0; i < n - 1; i++)
    groups_push(reduced[i] ? &l->reduced : &l->kept, dims[i], strides[i]);

  const int64_t length = l->reduced.count * (l->rows ? l->run : 1);
  l->chunk = l->rows ? ROW_CHUNK : columns_chunk(l);
  l->chunks = length > l->chunk ? (length + l->chunk - 1) / l->chunk : 1;
}

uint32_t rp_reduced_set(const rp_kernel_args *args, int first) {
  uint32_t set = 0;
  for (int i = first; i < args->n_ints; i++) set |= 1u << args->ints[i];
  return set ? set : (1u << args->in[0].type.rank) - 1;
}
