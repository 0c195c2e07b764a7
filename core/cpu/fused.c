/* Fused elementwise nodes: tiles of the output that stay in the cache while
   every part runs over them, in order, through its own kernel. So values are
   those of the parts run one by one, bit for bit.

   Invariants
     - dims are the output's with neighbours merged wherever every operand
       goes on through them with one stride; strides[j] are operand j's along
       them, 0 where it is broadcast.
     - a tile is all of dims split+1.., up to `piece` of dim `split`, and one
       index of each before: a run of the contiguous output.
     - slot[i] is where part i's values lie in a thread's workspace, -1 for
       the last part, which writes the output. A slot is free again behind its
       last reader. */
#include <string.h>

#include "base/memory.h"
#include "cpu/parallel.h"
#include "exec/backend.h"
#include "graph/op.h"

enum { OPERANDS = 16, SLOTS = RP_PARTS };

extern const rp_backend rp_cpu;

typedef struct fused {
  rp_context *ctx;
  rp_fusion fusion; /* attributes are the graph's */
  const rp_kernel *kernels[RP_PARTS];
  int rank, split;
  int64_t dims[RP_RANK], strides[OPERANDS][RP_RANK];
  int64_t piece, inner, pieces, tiles;
  int32_t slot[RP_PARTS], n_slots;
  int64_t slot_bytes;
  int threads; /* that have slots */
} fused;

/* ---- the grid ---------------------------------------------------------------- */

static int64_t stride_along(const rp_array *in, int rank, int d) {
  const int at = d - (rank - in->type.rank);
  return at < 0 || in->type.dims[at] == 1 ? 0 : in->strides[at];
}

static void make_grid(fused *f, const rp_kernel_args *args) {
  const rp_type *out = &args->out->type;
  for (int d = 0; d < out->rank; d++) {
    if (out->dims[d] == 1) continue;
    bool merges = f->rank > 0;
    for (int j = 0; j < args->n_in && merges; j++)
      merges = f->strides[j][f->rank - 1] ==
               stride_along(&args->in[j], out->rank, d) * out->dims[d];
    if (!merges) f->dims[f->rank++] = 1;
    f->dims[f->rank - 1] *= out->dims[d];
    for (int j = 0; j < args->n_in; j++)
      f->strides[j][f->rank - 1] = stride_along(&args->in[j], out->rank, d);
  }
  if (f->rank == 0) f->rank = 1, f->dims[0] = 1;
  f->split = f->rank - 1;
  f->inner = 1;
  while (f->split > 0 && f->inner * f->dims[f->split] <= RP_TILE)
    f->inner *= f->dims[f->split--];
  f->piece = RP_TILE / (f->inner ? f->inner : 1);
  if (f->piece > f->dims[f->split]) f->piece = f->dims[f->split];
  if (f->piece < 1) f->piece = 1;
  f->pieces = (f->dims[f->split] + f->piece - 1) / f->piece;
  f->tiles = f->pieces;
  for (int d = 0; d < f->split; d++) f->tiles *= f->dims[d];
}

/* ---- where parts write --------------------------------------------------------- */

static int32_t last_reader(const rp_fusion *fusion, int32_t part) {
  int32_t last = part;
  for (int32_t i = part + 1; i < fusion->n; i++)
    for (int32_t k = 0; k < fusion->parts[i].n_in; k++)
      if (fusion->parts[i].in[k] == -1 - part) last = i;
  return last;
}

static void assign_slots(fused *f) {
  int32_t taken_until[SLOTS];
  size_t widest = 0;
  for (int32_t i = 0; i < f->fusion.n - 1; i++) {
    int32_t s = 0;
    while (s < f->n_slots && taken_until[s] >= i) s++;
    if (s == f->n_slots) f->n_slots++;
    f->slot[i] = s;
    taken_until[s] = last_reader(&f->fusion, i);
    const size_t size =
        rp_dtype_size((rp_dtype)f->fusion.parts[i].type.dtype);
    if (size > widest) widest = size;
  }
  f->slot[f->fusion.n - 1] = -1;
  f->slot_bytes = rp_align(f->piece * f->inner * (int64_t)widest);
}

static rp_status prepare_fused(const rp_kernel_args *args, void **state,
                               int64_t *workspace_bytes) {
  if (args->n_in > OPERANDS)
    return rp_fail(args->ctx, RP_INTERNAL, "[fused] %d operands", args->n_in);
  fused *f = rp_alloc(args->ctx, sizeof *f);
  if (f == NULL) return RP_NOMEM;
  *state = f;
  f->ctx = args->ctx;
  f->fusion = *args->fusion;
  for (int32_t i = 0; i < f->fusion.n; i++) {
    const rp_part *part = &f->fusion.parts[i];
    const rp_type *type = part->in[0] >= 0
                              ? &args->in[part->in[0]].type
                              : &f->fusion.parts[-1 - part->in[0]].type;
    f->kernels[i] = rp_backend_find(&rp_cpu, part->op, (rp_dtype)type->dtype);
    if (f->kernels[i] == NULL || f->kernels[i]->prepare)
      return rp_fail(args->ctx, RP_INTERNAL, "[fused] %s does not run in tiles",
                     part->op->name);
  }
  make_grid(f, args);
  assign_slots(f);
  f->threads = rp_worth(rp_type_count(&args->out->type)) ? omp_get_max_threads()
                                                         : 1;
  *workspace_bytes = f->threads * f->n_slots * f->slot_bytes;
  return RP_OK;
}

static void destroy_fused(void *state) {
  fused *f = state;
  rp_free(f->ctx, f, sizeof *f);
}

/* ---- a tile --------------------------------------------------------------------- */

static void contiguous(rp_array *array) {
  int64_t stride = 1;
  for (int d = array->type.rank - 1; d >= 0; d--) {
    array->strides[d] = stride;
    stride *= array->type.dims[d];
  }
}

static rp_status run_tile(const fused *f, const rp_kernel_args *args,
                          int64_t tile, char *slots) {
  rp_type type = {.rank = f->rank - f->split};
  int64_t index[RP_RANK] = {0}, rest = tile;
  index[f->split] = rest % f->pieces * f->piece;
  rest /= f->pieces;
  int64_t first = 0;
  for (int d = f->split - 1; d >= 0; d--) {
    index[d] = rest % f->dims[d];
    rest /= f->dims[d];
  }
  for (int d = 0; d <= f->split; d++) first = first * f->dims[d] + index[d];
  first *= f->inner;
  const int64_t left = f->dims[f->split] - index[f->split];
  type.dims[0] = left < f->piece ? left : f->piece;
  for (int d = 1; d < type.rank; d++) type.dims[d] = f->dims[f->split + d];

  rp_array made[RP_PARTS];
  for (int32_t i = 0; i < f->fusion.n; i++) {
    const rp_part *part = &f->fusion.parts[i];
    rp_array in[RP_PART_INPUTS];
    for (int32_t k = 0; k < part->n_in; k++) {
      const int32_t j = part->in[k];
      if (j < 0) {
        in[k] = made[-1 - j];
        continue;
      }
      in[k].type = type;
      in[k].type.dtype = args->in[j].type.dtype;
      int64_t offset = 0;
      for (int d = 0; d <= f->split; d++) offset += index[d] * f->strides[j][d];
      in[k].data = (char *)args->in[j].data +
                   offset * (int64_t)rp_dtype_size(
                                (rp_dtype)args->in[j].type.dtype);
      for (int d = 0; d < type.rank; d++)
        in[k].strides[d] = f->strides[j][f->split + d];
    }
    made[i].type = type;
    made[i].type.dtype = part->type.dtype;
    contiguous(&made[i]);
    made[i].data =
        f->slot[i] >= 0
            ? slots + f->slot[i] * f->slot_bytes
            : (char *)args->out->data +
                  first * (int64_t)rp_dtype_size((rp_dtype)part->type.dtype);
    const rp_kernel_args own = {
        .in = in, .out = &made[i], .n_in = part->n_in, .n_out = 1,
        .ints = part->ints, .reals = part->reals, .n_ints = part->n_ints,
        .n_reals = part->n_reals, .first = first, .seed = args->seed,
        .stream = args->stream, .ctx = args->ctx};
    const rp_status status = f->kernels[i]->run(&own);
    if (status != RP_OK) return status;
  }
  return RP_OK;
}

static rp_status run_fused(const rp_kernel_args *args) {
  const fused *f = args->state;
  const int64_t thread_bytes = f->n_slots * f->slot_bytes;
  rp_status failure = RP_OK;
#pragma omp parallel for schedule(static) num_threads(f->threads)
  for (int64_t t = 0; t < f->tiles; t++) {
    char *slots = (char *)args->workspace + omp_get_thread_num() * thread_bytes;
    const rp_status status = run_tile(f, args, t, slots);
    if (status != RP_OK) {
#pragma omp atomic write
      failure = status;
    }
  }
  return failure;
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
