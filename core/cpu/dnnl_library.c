#include "cpu/dnnl_library.h"

#include "cpu/dnnl.h"

#include <oneapi/dnnl/dnnl_debug.h>
#include <pthread.h>
#include <stdatomic.h>

struct rp_dnnl_library rp_dnnl;

/* oneDNN keeps compiled kernels for primitives like earlier ones: about
   45 KiB each, 1024 of them unless told otherwise. Plans hold theirs anyway;
   what this saves is compiling a layer's again for the next layer. */
enum { KEPT_PRIMITIVES = 128 };

static void library_open(void) {
  rp_dnnl.status = dnnl_engine_create(&rp_dnnl.engine, dnnl_cpu, 0);
  if (rp_dnnl.status != dnnl_success) return;
  rp_dnnl.status = dnnl_set_primitive_cache_capacity(KEPT_PRIMITIVES);
  if (rp_dnnl.status != dnnl_success) return;
  rp_dnnl.status = dnnl_stream_create(&rp_dnnl.stream, rp_dnnl.engine,
                                      dnnl_stream_default_flags);
}

rp_status rp_dnnl_open(rp_context *ctx) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, library_open);
  return rp_dnnl_check(ctx, rp_dnnl.status, "start");
}

rp_status rp_dnnl_check(rp_context *ctx, dnnl_status_t status,
                        const char *what) {
  if (status == dnnl_success) return RP_OK;
  if (status == dnnl_out_of_memory)
    return rp_fail(ctx, RP_NOMEM, "out of memory: oneDNN could not %s", what);
  return rp_fail(ctx, RP_INTERNAL, "oneDNN could not %s: %s", what,
                 dnnl_status2str(status));
}

bool rp_dnnl_has_bf16(void) {
  const dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
  return (isa & dnnl_cpu_isa_avx512_core_bf16) ==
         dnnl_cpu_isa_avx512_core_bf16;
}

void rp_dnnl_notice_bf16(rp_context *ctx) {
  static atomic_flag said = ATOMIC_FLAG_INIT;
  if (rp_dnnl_has_bf16() || atomic_flag_test_and_set(&said)) return;
  rp_notice(ctx, "this processor has no bf16 instructions (AVX512_BF16 or "
            "AMX): products are computed in f32. bf16 still halves what is "
            "kept, but a step is no faster than in f32.");
}

dnnl_data_type_t rp_dnnl_type(const rp_type *type) {
  return type->dtype == RP_BF16 ? dnnl_bf16 : dnnl_f32;
}

dnnl_status_t rp_dnnl_memory(const dnnl_memory_desc_t *descriptor,
                             dnnl_memory_t *out) {
  return dnnl_memory_create(out, descriptor, rp_dnnl.engine, DNNL_MEMORY_NONE);
}
