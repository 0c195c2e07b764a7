/* Fused elementwise nodes: pieces of the output that stay in the first-level
   cache while every part runs over them, in order, by its own row function. So
   values are those of the parts run one by one, bit for bit.

   Invariants
     - dims are the output's with neighbours merged wherever every operand
       goes on through them with one stride; strides[j] are operand j's along
       them, 0 where it is broadcast.
     - a piece is at most PIECE neighbours along the last dim: a run of the
       contiguous output.
     - slot[i] is where part i's values lie in a thread's workspace, -1 for
       the last part, which writes the output. A slot is free again behind its
       last reader. */
#include <string.h>

#include "base/memory.h"
#include "cpu/elementwise.h"
#include "cpu/parallel.h"
#include "graph/op.h"

/* PIECE: a slot and what else a part touches fit into the first-level cache
   together; random words come in blocks that divide it. */
enum { OPERANDS = 16, SLOTS = RP_PARTS, PIECE = 1024 };

extern const rp_backend rp_cpu;

typedef struct fused {
  rp_context *ctx;
  rp_fusion fusion; /* attributes are the graph's */
  rp_row_kernel kernels[RP_PARTS];
  rp_array made[RP_PARTS]; /* types alone */
  int rank;
  int64_t dims[RP_RANK], strides[OPERANDS][RP_RANK];
  int64_t count, size[OPERANDS], out_size;
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
  f->count = rp_type_count(out);
  f->out_size = (int64_t)rp_dtype_size((rp_dtype)out->dtype);
  for (int j = 0; j < args->n_in; j++)
    f->size[j] = (int64_t)rp_dtype_size((rp_dtype)args->in[j].type.dtype);
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
}

/* ---- what runs, and where it writes ------------------------------------------- */

/* The kernel of part i would run over all; its row function is kept. */
static rp_status find_kernel(fused *f, const rp_kernel_args *args, int32_t i) {
  const rp_part *part = &f->fusion.parts[i];
  rp_array in[RP_PART_INPUTS];
  for (int32_t k = 0; k < part->n_in; k++)
    in[k] = part->in[k] >= 0 ? args->in[part->in[k]]
                             : f->made[-1 - part->in[k]];
  f->made[i].type = part->type;
  const rp_kernel *kernel = rp_backend_find(&rp_cpu, part->op,
                                            (rp_dtype)in[0].type.dtype);
  const rp_kernel_args own = {
      .in = in, .out = &f->made[i], .n_in = part->n_in, .n_out = 1,
      .ints = part->ints, .reals = part->reals, .n_ints = part->n_ints,
      .n_reals = part->n_reals, .ctx = args->ctx,
      .row_kernel = &f->kernels[i]};
  if (kernel && !kernel->prepare && kernel->run(&own) == RP_OK &&
      f->kernels[i].function)
    return RP_OK;
  return rp_fail(args->ctx, RP_INTERNAL, "[fused] %s does not run in rows",
                 part->op->name);
}

static int32_t last_reader(const rp_fusion *fusion, int32_t part) {
  int32_t last = part;
  for (int32_t i = part + 1; i < fusion->n; i++)
    for (int32_t k = 0; k < fusion->parts[i].n_in; k++)
      if (fusion->parts[i].in[k] == -1 - part) last = i;
  return last;
}

static void assign_slots(fused *f) {
  int32_t taken_until[SLOTS];
  int64_t widest = 0;
  for (int32_t i = 0; i < f->fusion.n - 1; i++) {
    int32_t s = 0;
    while (s < f->n_slots && taken_until[s] >= i) s++;
    if (s == f->n_slots) f->n_slots++;
    f->slot[i] = s;
    taken_until[s] = last_reader(&f->fusion, i);
    if (f->kernels[i].out_size > widest) widest = f->kernels[i].out_size;
  }
  f->slot[f->fusion.n - 1] = -1;
  const int64_t row = f->dims[f->rank - 1];
  f->slot_bytes = rp_align((row < PIECE ? row : PIECE) * widest);
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
    const rp_status status = find_kernel(f, args, i);
    if (status != RP_OK) return status;
  }
  make_grid(f, args);
  assign_slots(f);
  f->threads = rp_worth(f->count) ? omp_get_max_threads() : 1;
  *workspace_bytes = f->threads * f->n_slots * f->slot_bytes;
  return RP_OK;
}

static void destroy_fused(void *state) {
  fused *f = state;
  rp_free(f->ctx, f, sizeof *f);
}

/* ---- running ------------------------------------------------------------------- */

typedef struct run {
  const fused *f;
  const rp_kernel_args *args;
  rp_kernel_args own[RP_PARTS]; /* what row functions read of them */
} run;

/* The piece of n elements from output element `first` on; operand j begins
   offsets[j] elements behind its first. */
static void run_piece(const run *r, int64_t first, int64_t n,
                      const int64_t *offsets, char *slots) {
  const fused *f = r->f;
  for (int32_t i = 0; i < f->fusion.n; i++) {
    const rp_part *part = &f->fusion.parts[i];
    rp_row row = {.n = n, .first = first, .args = &r->own[i]};
    for (int32_t k = 0; k < part->n_in; k++) {
      const int32_t j = part->in[k];
      if (j >= 0) {
        row.in[k] = (char *)r->args->in[j].data + offsets[j] * f->size[j];
        row.strides[k] = f->strides[j][f->rank - 1];
      } else {
        row.in[k] = slots + f->slot[-1 - j] * f->slot_bytes;
        row.strides[k] = 1;
      }
    }
    row.out = f->slot[i] >= 0
                  ? slots + f->slot[i] * f->slot_bytes
                  : (char *)r->args->out->data + first * f->out_size;
    rp_row_run(&f->kernels[i], &row);
  }
}

/* Output elements first .. end - 1. */
static void run_tile(const run *r, int64_t first, int64_t end, char *slots) {
  const fused *f = r->f;
  const int last = f->rank - 1, n_in = r->args->n_in;
  while (first < end) {
    int64_t offsets[OPERANDS] = {0}, rest = first, at = 0;
    for (int d = last; d >= 0; d--) {
      const int64_t index = rest % f->dims[d];
      if (d == last) at = index;
      rest /= f->dims[d];
      for (int j = 0; j < n_in; j++) offsets[j] += index * f->strides[j][d];
    }
    int64_t left = f->dims[last] - at;
    if (left > end - first) left = end - first;
    while (left > 0) {
      const int64_t n = left < PIECE ? left : PIECE;
      run_piece(r, first, n, offsets, slots);
      for (int j = 0; j < n_in; j++) offsets[j] += n * f->strides[j][last];
      first += n;
      left -= n;
    }
  }
}

static rp_status run_fused(const rp_kernel_args *args) {
  const fused *f = args->state;
  const int64_t thread_bytes = f->n_slots * f->slot_bytes;
  const int64_t tiles = (f->count + RP_TILE - 1) / RP_TILE;
  run r = {.f = f, .args = args};
  for (int32_t i = 0; i < f->fusion.n; i++) {
    const rp_part *part = &f->fusion.parts[i];
    r.own[i] = (rp_kernel_args){
        .out = &f->made[i], .n_out = 1, .ints = part->ints,
        .reals = part->reals, .n_ints = part->n_ints,
        .n_reals = part->n_reals, .seed = args->seed, .stream = args->stream,
        .ctx = args->ctx};
  }
#pragma omp parallel for schedule(static) num_threads(f->threads)
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t first = t * RP_TILE, left = f->count - first;
    run_tile(&r, first, first + (left < RP_TILE ? left : RP_TILE),
             (char *)args->workspace + omp_get_thread_num() * thread_bytes);
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
