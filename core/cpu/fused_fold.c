/* Groups of elementwise ops that end in a reduction: the reduction's own
   kernel runs, over a source (cpu/pieces.h) in place of its input. So the
   order of its sums is its own. */
#include <string.h>

#include "base/memory.h"
#include "cpu/pieces.h"

extern const rp_backend rp_cpu;

typedef struct fold {
  rp_context *ctx;
  rp_pieces pieces;
  rp_array x; /* what is reduced: a type alone */
  const rp_kernel *kernel;
  void *state;
  int64_t own_bytes; /* of the workspace: the kernel's, then the threads' */
  int64_t thread_bytes;
} fold;

static rp_kernel_args args_of(const fold *f, const rp_kernel_args *args) {
  const rp_part *part = &f->pieces.fusion.fold;
  return (rp_kernel_args){
      .in = &f->x, .out = args->out, .n_in = 1, .n_out = 1,
      .ints = part->ints, .reals = part->reals, .n_ints = part->n_ints,
      .n_reals = part->n_reals, .node = args->node,
      .workspace = args->workspace, .state = f->state, .ctx = args->ctx};
}

static rp_status prepare_fold(const rp_kernel_args *args, void **state,
                              int64_t *workspace_bytes) {
  fold *f = rp_alloc(args->ctx, sizeof *f);
  if (f == NULL) return RP_NOMEM;
  *state = f;
  f->ctx = args->ctx;
  rp_status status = rp_pieces_prepare(&f->pieces, args);
  if (status != RP_OK) return status;
  const rp_fusion *fusion = &f->pieces.fusion;
  f->x.type = fusion->folded;
  rp_strides strides = {0};
  rp_strides_contiguous(&f->x.type, &strides);
  memcpy(f->x.strides, strides.at, sizeof f->x.strides);
  f->kernel = rp_backend_find(&rp_cpu, fusion->fold.op,
                              (rp_dtype)f->x.type.dtype);
  if (f->kernel == NULL || f->kernel->prepare == NULL)
    return rp_fail(args->ctx, RP_INTERNAL, "[%s] has no kernel for %s",
                   fusion->name, rp_dtype_name((rp_dtype)f->x.type.dtype));
  rp_source source = {0};
  rp_kernel_args own = args_of(f, args);
  own.source = &source;
  status = f->kernel->prepare(&own, &f->state, &f->own_bytes);
  f->own_bytes = rp_align(f->own_bytes);
  const int64_t count = f->pieces.count;
  const int64_t room = count < source.room ? count : source.room;
  f->thread_bytes = rp_pieces_slot_bytes(&f->pieces) +
                    rp_align(room * f->pieces.out_size);
  *workspace_bytes = f->own_bytes + f->pieces.threads * f->thread_bytes;
  return status;
}

static void destroy_fold(void *state) {
  fold *f = state;
  if (f->state) f->kernel->destroy(f->state);
  rp_free(f->ctx, f, sizeof *f);
}

static rp_status run_fold(const rp_kernel_args *args) {
  const fold *f = args->state;
  rp_source source = {.threads = f->pieces.threads,
                      .workspace = (char *)args->workspace + f->own_bytes,
                      .thread_bytes = f->thread_bytes};
  rp_pieces_start(&source.run, &f->pieces, args);
  rp_kernel_args own = args_of(f, args);
  own.source = &source;
  return f->kernel->run(&own);
}

static const rp_kernel rows[] = {
    {&rp_op_fused_fold, RP_F32, run_fold, prepare_fold, destroy_fold},
    {&rp_op_fused_fold, RP_F64, run_fold, prepare_fold, destroy_fold},
    {&rp_op_fused_fold, RP_BF16, run_fold, prepare_fold, destroy_fold},
    {&rp_op_fused_fold, RP_I32, run_fold, prepare_fold, destroy_fold},
    {&rp_op_fused_fold, RP_I64, run_fold, prepare_fold, destroy_fold},
    {&rp_op_fused_fold, RP_BOOL, run_fold, prepare_fold, destroy_fold},
};
const rp_kernel_table rp_cpu_fused_fold = {rows, sizeof rows / sizeof *rows};
