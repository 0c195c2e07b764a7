/* What the files that talk to oneDNN (its 2.x C API) share: these, dnnl*.c,
   are all that version 3 would change. There memory descriptors are objects
   and primitives have no operation descriptor. */
#ifndef RP_CPU_DNNL_LIBRARY_H
#define RP_CPU_DNNL_LIBRARY_H

#include <oneapi/dnnl/dnnl.h>

#include "base/status.h"
#include "base/type.h"

/* One engine and one stream a process. */
struct rp_dnnl_library {
  dnnl_status_t status;
  dnnl_engine_t engine;
  dnnl_stream_t stream;
};
extern struct rp_dnnl_library rp_dnnl;

/* To be called before anything is made. RP_NOMEM, RP_INTERNAL. */
rp_status rp_dnnl_open(rp_context *ctx);
/* "oneDNN could not <what>" unless status is success. */
rp_status rp_dnnl_check(rp_context *ctx, dnnl_status_t status,
                        const char *what);
/* oneDNN's name of bf16 or f32. */
dnnl_data_type_t rp_dnnl_type(const rp_type *type);
/* A memory object without bytes. */
dnnl_status_t rp_dnnl_memory(const dnnl_memory_desc_t *descriptor,
                             dnnl_memory_t *out);

#endif
