/* Fused elementwise nodes: cpu/pieces.h, straight into the output. */
#include "base/memory.h"
#include "cpu/parallel.h"
#include "cpu/pieces.h"

typedef struct fused {
  rp_context *ctx;
  rp_pieces pieces;
} fused;

static rp_status prepare_fused(const rp_kernel_args *args, void **state,
                               int64_t *workspace_bytes) {
  fused *f = rp_alloc(args->ctx, sizeof *f);
  if (f == NULL) return RP_NOMEM;
  *state = f;
  f->ctx = args->ctx;
  const rp_status status = rp_pieces_prepare(&f->pieces, args);
  *workspace_bytes = f->pieces.threads * rp_pieces_slot_bytes(&f->pieces);
  return status;
}

static void destroy_fused(void *state) {
  fused *f = state;
  rp_free(f->ctx, f, sizeof *f);
}

static rp_status run_fused(const rp_kernel_args *args) {
  const rp_pieces *p = &((const fused *)args->state)->pieces;
  const int64_t thread_bytes = rp_pieces_slot_bytes(p);
  const int64_t tiles = (p->count + RP_TILE - 1) / RP_TILE;
  char *out = args->out->data;
  rp_pieces_run r;
  rp_pieces_start(&r, p, args);
#pragma omp parallel for schedule(static) num_threads(p->threads)
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t first = t * RP_TILE, left = p->count - first;
    rp_pieces_make(&r, first, first + (left < RP_TILE ? left : RP_TILE),
                   out + first * p->out_size,
                   (char *)args->workspace +
                       omp_get_thread_num() * thread_bytes);
  }
  return RP_OK;
}

static const rp_kernel rows[] = {
    {&rp_op_fused, RP_F32, run_fused, prepare_fused, destroy_fused},
    {&rp_op_fused, RP_F64, run_fused, prepare_fused, destroy_fused},
    {&rp_op_fused, RP_BF16, run_fused, prepare_fused, destroy_fused},
    {&rp_op_fused, RP_I32, run_fused, prepare_fused, destroy_fused},
    {&rp_op_fused, RP_I64, run_fused, prepare_fused, destroy_fused},
    {&rp_op_fused, RP_BOOL, run_fused, prepare_fused, destroy_fused},
};
const rp_kernel_table rp_cpu_fused = {rows, sizeof rows / sizeof *rows};
