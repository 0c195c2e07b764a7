/* The row of fused nodes: kernels made for them when they are prepared
   (fused_text.h), compiled once a process (compile.h). */
#include <new>

#include "base/status.h"
#include "compile.h"
#include "fused_text.h"

namespace rp {
namespace {

enum { BLOCK = 256 };

struct fused {
  fused_text text; /* its source is the cache's key, and let go */
  CUfunction each, packs;
  int n_in;
  char name[sizeof(rp_fusion::name)];
};

rp_status prepare_kernels(const rp_kernel_args *args, fused *f) {
  CUmodule module = nullptr;
  const rp_cuda_driver *driver = rp_cuda_driver_get(args->ctx);
  if (driver == nullptr) return RP_UNSUPPORTED;
  rp_status status = module_of(args->ctx, rp_cuda_of(args), f->name,
                               f->text.source, &module);
  f->text.source.clear();
  f->text.source.shrink_to_fit();
  if (status == RP_OK)
    status = rp_cuda_driver_ok(
        args->ctx, driver->cuModuleGetFunction(&f->each, module, "fused_each"),
        f->name);
  if (status == RP_OK && f->text.pack)
    status = rp_cuda_driver_ok(
        args->ctx,
        driver->cuModuleGetFunction(&f->packs, module, "fused_packs"),
        f->name);
  return status;
}

rp_status prepare(const rp_kernel_args *args, void **state,
                  int64_t *workspace_bytes) {
  *workspace_bytes = 0;
  if (args->n_in > FUSED_OPERANDS)
    return rp_fail(args->ctx, RP_INTERNAL, "[fused] %d operands", args->n_in);
  fused *f = new (std::nothrow) fused();
  if (f == nullptr)
    return rp_fail(args->ctx, RP_NOMEM, "[fused] no memory to prepare it");
  *state = f;
  f->n_in = args->n_in;
  memcpy(f->name, args->fusion->name, sizeof f->name);
  f->name[sizeof f->name - 1] = 0;
  f->text = fused_source(args);
  return f->text.count ? prepare_kernels(args, f) : RP_OK;
}

void destroy(void *state) { delete (fused *)state; }

bool is_aligned(const void *p, int to) { return (uintptr_t)p % (unsigned)to == 0; }

bool packs_fit(const fused *f, const rp_kernel_args *args) {
  bool fits = f->packs != nullptr &&
              is_aligned(args->out->data, f->text.out_aligned) &&
              (!f->text.random || args->first % 4 == 0);
  for (int j = 0; j < f->n_in; j++)
    fits = fits && is_aligned(args->in[j].data, f->text.aligned[j]);
  return fits;
}

rp_status run(const rp_kernel_args *args) {
  const fused *f = (const fused *)args->state;
  if (f->text.count == 0) return RP_OK;
  const void *in[FUSED_OPERANDS];
  void *parameters[FUSED_OPERANDS + 4];
  int n = 0;
  for (int j = 0; j < f->n_in; j++) {
    in[j] = args->in[j].data;
    parameters[n++] = &in[j];
  }
  void *out = args->out->data;
  const uint64_t *draw = args->draw;
  int64_t first = args->first, count = f->text.count;
  parameters[n++] = &out;
  parameters[n++] = &draw;
  parameters[n++] = &first;
  parameters[n++] = &count;
  const bool packs = packs_fit(f, args);
  const int64_t a_block = packs ? BLOCK * f->text.pack : BLOCK;
  const int64_t blocks = (count + a_block - 1) / a_block;
  const int64_t most = 65535 * 16;
  const CUresult result = rp_cuda_driver_get(args->ctx)->cuLaunchKernel(
      packs ? f->packs : f->each, (unsigned)(blocks < most ? blocks : most), 1,
      1, BLOCK, 1, 1, 0, rp_cuda_of(args)->stream, parameters, nullptr);
  const rp_status status = rp_cuda_driver_ok(args->ctx, result, f->name);
  return status == RP_OK ? rp_cuda_launched(args, f->name, cudaSuccess)
                         : status;
}

const rp_kernel rows[] = {
    {nullptr, RP_F32, run, prepare, destroy, "fused", nullptr, nullptr},
    {nullptr, RP_F64, run, prepare, destroy, "fused", nullptr, nullptr},
    {nullptr, RP_BF16, run, prepare, destroy, "fused", nullptr, nullptr},
    {nullptr, RP_I32, run, prepare, destroy, "fused", nullptr, nullptr},
    {nullptr, RP_I64, run, prepare, destroy, "fused", nullptr, nullptr},
    {nullptr, RP_BOOL, run, prepare, destroy, "fused", nullptr, nullptr},
};

} // namespace
} // namespace rp

extern "C" rp_kernel_table rp_cuda_fused;
rp_kernel_table rp_cuda_fused = {
    rp::rows, (int32_t)(sizeof rp::rows / sizeof *rp::rows)};
