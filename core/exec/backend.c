#include "exec/backend.h"

#include "base/context.h"
#include "graph/registry.h"

rp_rates rp_device_rates(const rp_device *device) {
  if (device->slot == RP_CPU && device->ctx->rates.flops_per_second > 0)
    return device->ctx->rates;
  return device->rates.flops_per_second > 0 ? device->rates
                                            : device->backend->rates;
}

const rp_kernel *rp_backend_find(const rp_backend *backend, const rp_op *op,
                                 rp_dtype dtype) {
  for (int32_t t = 0; t < backend->n_tables; t++) {
    const rp_kernel_table *table = backend->tables[t];
    for (int32_t i = 0; i < table->n; i++)
      if (table->rows[i].op == op && table->rows[i].dtype == dtype)
        return &table->rows[i];
  }
  return NULL;
}
