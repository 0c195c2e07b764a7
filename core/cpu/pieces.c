#include "cpu/pieces.h"

#include <string.h>

#include "base/memory.h"
#include "cpu/parallel.h"

enum { SLOTS = RP_PARTS };

extern const rp_backend rp_cpu;

/* ---- the grid ------------------------------------------------------------ */

static int64_t stride_along(const rp_array *in, int rank, int d) {
  const int at = d - (rank - in->type.rank);
  return at < 0 || in->type.dims[at] == 1 ? 0 : in->strides[at];
}

static void make_grid(rp_pieces *f, const rp_kernel_args *args) {
  const rp_type *out = &f->made[f->fusion.n - 1].type;
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

/* ---- what runs, and where it writes -------------------------------------- */

/* The kernel of part i would run over all; its row function is kept. */
static rp_status find_kernel(rp_pieces *f, const rp_kernel_args *args,
                             int32_t i) {
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

static void assign_slots(rp_pieces *f) {
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
  f->slot_bytes = rp_align((row < RP_PIECE ? row : RP_PIECE) * widest);
}

rp_status rp_pieces_prepare(rp_pieces *f, const rp_kernel_args *args) {
  if (args->n_in > RP_PIECE_OPERANDS)
    return rp_fail(args->ctx, RP_INTERNAL, "[fused] %d operands", args->n_in);
  f->fusion = *args->fusion;
  for (int32_t i = 0; i < f->fusion.n; i++) {
    const rp_status status = find_kernel(f, args, i);
    if (status != RP_OK) return status;
  }
  make_grid(f, args);
  assign_slots(f);
  f->threads = rp_worth(f->count) ? omp_get_max_threads() : 1;
  return RP_OK;
}

/* ---- running ------------------------------------------------------------- */

void rp_pieces_start(rp_pieces_run *run, const rp_pieces *f,
                     const rp_kernel_args *args) {
  *run = (rp_pieces_run){.pieces = f, .args = args};
  for (int32_t i = 0; i < f->fusion.n; i++) {
    const rp_part *part = &f->fusion.parts[i];
    run->own[i] = (rp_kernel_args){
        .out = &f->made[i], .n_out = 1, .ints = part->ints,
        .reals = part->reals, .n_ints = part->n_ints,
        .n_reals = part->n_reals, .seed = args->seed, .stream = args->stream,
        .ctx = args->ctx};
  }
}

/* The piece of n elements from result element `first` on; operand j begins
   offsets[j] elements behind its first. */
static void run_piece(const rp_pieces_run *r, int64_t first, int64_t n,
                      const int64_t *offsets, char *out, char *slots) {
  const rp_pieces *f = r->pieces;
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
    row.out = f->slot[i] >= 0 ? slots + f->slot[i] * f->slot_bytes : out;
    rp_row_run(&f->kernels[i], &row);
  }
}

void rp_pieces_make(const rp_pieces_run *r, int64_t first, int64_t end,
                    void *out, char *slots) {
  const rp_pieces *f = r->pieces;
  const int last = f->rank - 1, n_in = r->args->n_in;
  char *to = out;
  while (first < end) {
    int64_t offsets[RP_PIECE_OPERANDS] = {0}, rest = first, at = 0;
    for (int d = last; d >= 0; d--) {
      const int64_t index = rest % f->dims[d];
      if (d == last) at = index;
      rest /= f->dims[d];
      for (int j = 0; j < n_in; j++) offsets[j] += index * f->strides[j][d];
    }
    int64_t left = f->dims[last] - at;
    if (left > end - first) left = end - first;
    while (left > 0) {
      const int64_t n = left < RP_PIECE ? left : RP_PIECE;
      run_piece(r, first, n, offsets, to, slots);
      for (int j = 0; j < n_in; j++) offsets[j] += n * f->strides[j][last];
      first += n;
      left -= n;
      to += n * f->out_size;
    }
  }
}
