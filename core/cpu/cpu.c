/* The CPU backend: the list of its row tables. */
#include "cpu/dnnl.h"
#include "exec/backend.h"

#define RP_TABLE(name) extern const rp_kernel_table rp_cpu_##name;
#include "cpu/tables.def"
#undef RP_TABLE

static const rp_kernel_table *const tables[] = {
#define RP_TABLE(name) &rp_cpu_##name,
#include "cpu/tables.def"
#undef RP_TABLE
};

/* The rates are a two-core AVX-512 machine's order of magnitude; rp_rates_set
   replaces them by the machine's own, a profile by the model's. */
const rp_backend rp_cpu = {
  .name = "cpu",
  .tables = tables,
  .n_tables = sizeof tables / sizeof *tables,
  .memory = &rp_host_memory,
  .open = rp_dnnl_warm_up,
  .rates = {.flops_per_second = 150e9, .bytes_per_second = 20e9},
};
