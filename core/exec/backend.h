/* What a device can run: a table of kernel rows. A kernel sees arrays,
   attributes, its workspace and the run's bindings, never the graph. It does
   not allocate, and its result depends on its arguments alone: not on the
   number of threads, not on where the arrays lie. */
#ifndef RP_EXEC_BACKEND_H
#define RP_EXEC_BACKEND_H

#include "base/device.h"

#ifdef __cplusplus
extern "C" {
#endif

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
  int32_t node;         /* its number in the plan's graph, for faults */
  int64_t first;        /* random ops: index of the arrays' first element */
  void *workspace;      /* RP_ALIGN-aligned, of the size prepare asked for */
  void *state;          /* what prepare made */
  uint64_t seed;        /* random ops: rp_manual_seed's, when recorded ... */
  uint64_t stream;      /* ... and which draw since */
  /* The same two in the device's memory, rewritten before each run: what a
     kernel that is launched from a recording reads. The CPU's has none. */
  const uint64_t *draw;
  void *device;         /* the backend's own state: queue, libraries' handles */
  rp_context *ctx;      /* for rp_fail alone */
  /* Elementwise ops: not NULL: nothing runs, and what would comes here
     (cpu/elementwise.h); data pointers are NULL. */
  struct rp_row_kernel *row_kernel;
  /* RP_FOLDS ops: not NULL: input 0 is not there (its data is NULL) and is
     made from this, piece by piece (cpu/pieces.h). */
  struct rp_source *source;
} rp_kernel_args;

typedef struct rp_kernel {
  const rp_op *op; /* NULL in a backend that is loaded at run time: ... */
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
  const char *name; /* ... its rows say the op's name */
  /* After prepare, with its state: what the kernel does one after the other
     for the planner's clock, FLOPs and bytes moved, and true; false, and NULL:
     the op's own cost. */
  bool (*cost)(const rp_kernel_args *args, double *flops, double *bytes);
  /* Effects that ask for no workspace: runs n of them at once, of which none
     touches a leaf that another writes; each as run would, bit for bit. Where
     a row has this, plans let such effects wait for each other as far as that
     costs no memory. NULL: each runs as soon as it can. */
  rp_status (*run_many)(const rp_kernel_args *args, int32_t n);
} rp_kernel;

/* The rows of one file of kernels. */
typedef struct rp_kernel_table {
  const rp_kernel *rows;
  int32_t n;
} rp_kernel_table;

/* An index out of its range that a kernel met while running. */
typedef struct rp_fault {
  int32_t node; /* rp_kernel_args.node */
  int64_t found, limit;
} rp_fault;

typedef struct rp_backend {
  const char *name; /* "cpu", "cuda" */
  const rp_kernel_table *const *tables;
  int32_t n_tables;
  const rp_device_memory *memory;
  int32_t (*count)(void); /* units; NULL: one */
  /* Takes the unit into use (device->unit), makes device->state, and makes
     libraries allocate what they will own (thread buffers, contexts) now.
     RP_UNSUPPORTED names the part that is missing. */
  rp_status (*open)(rp_device *device);
  void (*close)(rp_device *device);
  /* For the analytic cost model: rp_device.rates where open sets none. */
  rp_rates rates;
  /* Makes the unit the calling thread's: before rows are prepared or run. The
     other functions do that themselves. NULL: there is nothing to do. */
  void (*enter)(rp_device *device);

  /* Devices that run behind the host; NULL for those that do not.
     ran: all of run device->runs has been handed over.
     Between record and end_record kernels are noted, not run; the recording
     can then be replayed with the same addresses. end_record with a NULL
     pointer throws away what was noted. */
  void (*ran)(rp_device *device);
  rp_status (*record)(rp_device *device);
  rp_status (*end_record)(rp_device *device, void **recording);
  rp_status (*replay)(rp_device *device, void *recording);
  void (*forget)(rp_device *device, void *recording);
  /* A result of at most RP_SLOT bytes on its way to the host while its program
     still runs. deliver notes a copy into the slot behind what was run so far
     (it is recorded as kernels are); collect waits for the copy of the last
     run that was handed over, and for no more. take_slot: -1 where none is
     free. */
  int32_t (*take_slot)(rp_device *device);
  void (*give_slot)(rp_device *device, int32_t slot);
  rp_status (*deliver)(rp_device *device, int32_t slot, const void *from,
                       int64_t size);
  rp_status (*collect)(rp_device *device, int32_t slot, void *to,
                       int64_t size);
  /* Waits until everything has run: RP_OK, or what went wrong since. */
  rp_status (*synchronize)(rp_device *device);
  /* The first fault since it was last asked; call after synchronize. */
  bool (*take_fault)(rp_device *device, rp_fault *out);
  /* One line about the unit ("NVIDIA H100 80GB HBM3, 132 multiprocessors"),
     and its memory in bytes. */
  const char *(*describe)(rp_device *device, int64_t *total, int64_t *free);

  /* A plan's kernels are prepared, or its program runs for the first time: what
     libraries load between begin and end is no plan's, and is noted. NULL, as
     the next: nothing is. */
  void (*loading)(rp_device *device, bool begins);
  void (*usage)(rp_device *device, rp_device_usage *out);

  /* Times on a device that runs behind the host: begin and end go behind what
     was handed over so far; the timer is made where *timer is NULL. seconds
     waits for the last end: how long it came after its begin; below 0: that is
     not known. NULL: the host's clock serves. */
  void (*time)(rp_device *device, void **timer, bool begins);
  double (*seconds)(rp_device *device, void *timer);
  void (*free_timer)(rp_device *device, void *timer);
} rp_backend;

extern const rp_backend rp_cpu;

/* The CPU's may be set (rp_rates_set), others' are what they found out. */
rp_rates rp_device_rates(const rp_device *device);

const rp_kernel *rp_backend_find(const rp_backend *backend, const rp_op *op,
                                 rp_dtype dtype);

/* What a backend that is loaded at run time exports, as rp_backend_load: the
   tables' rows say names, the core fills in their ops. `abi` is
   RP_BACKEND_ABI of the headers it was compiled with. */
enum { RP_BACKEND_ABI = 6 };
typedef struct rp_loaded_backend {
  int32_t abi;
  const rp_backend *backend;
} rp_loaded_backend;
typedef const rp_loaded_backend *rp_backend_load_function(void);

#ifdef __cplusplus
}
#endif

#endif
