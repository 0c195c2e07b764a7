#include "exec/backend.h"

#include "graph/registry.h"

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
