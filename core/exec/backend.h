/* What a device can run: a table of kernel rows. A kernel sees arrays,
   attributes, its workspace and the run's bindings, never the graph. It does
   not allocate, and its result depends on its arguments alone: not on the
   number of threads, not on where the arrays lie. */
#ifndef RP_EXEC_BACKEND_H
#define RP_EXEC_BACKEND_H

#include "base/type.h"

/* Element (i0, i1, ...) is at data + (sum i_k * strides[k]) * size; offsets
   of views are already in data. */
typedef struct rp_array {
  void *data;
  rp_type type;
  int64_t strides[RP_RANK];
} rp_array;

typedef struct rp_kernel_args {
  const rp_array *in;
  const rp_array *out;
  int32_t n_in, n_out;
  const int64_t *ints;
  const double *reals;
  int32_t n_ints, n_reals;
  const struct rp_fusion *fusion; /* of a fused node, in prepare */
  int64_t first;        /* random ops: index of the arrays' first element */
  void *workspace;      /* RP_ALIGN-aligned, of the size prepare asked for */
  void *state;          /* what prepare made */
  uint64_t seed;        /* random ops: rp_manual_seed's, when recorded ... */
  uint64_t stream;      /* ... and which draw since */
  rp_context *ctx;      /* for rp_fail alone */
  /* Elementwise ops: not NULL: nothing runs, and what would comes here
     (cpu/elementwise.h); data pointers are NULL. */
  struct rp_row_kernel *row_kernel;
} rp_kernel_args;

typedef struct rp_kernel {
  const rp_op *op;
  rp_dtype dtype; /* of input 0, or of output 0 where there is no input */
  /* RP_OK, or RP_VALUE for an index out of range found while running, or
     RP_INTERNAL. */
  rp_status (*run)(const rp_kernel_args *args);
  /* At plan time, with data pointers NULL: makes what the kernel needs to run
     for these types, strides and attributes, and sets the workspace size.
     NULL: neither. */
  rp_status (*prepare)(const rp_kernel_args *args, void **state,
                       int64_t *workspace_bytes);
  void (*destroy)(void *state);
} rp_kernel;

/* The rows of one file of kernels. */
typedef struct rp_kernel_table {
  const rp_kernel *rows;
  int32_t n;
} rp_kernel_table;

typedef struct rp_backend {
  const char *name;
  const rp_kernel_table *const *tables;
  int32_t n_tables;
  /* Makes libraries allocate what they will own (thread buffers) now. */
  void (*warm_up)(rp_context *ctx);
  /* Rates for the analytic cost model: FLOP/s of costly ops, bytes/s. */
  double flops_per_second, bytes_per_second;
} rp_backend;

extern const rp_backend rp_cpu;

const rp_kernel *rp_backend_find(const rp_backend *backend, const rp_op *op,
                                 rp_dtype dtype);

#endif
