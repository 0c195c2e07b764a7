/* Devices: where bytes lie and programs run. A context has the CPU in slot 0
   and others in the order they were first asked for (exec/device.c). Base
   knows of a device what memory needs; the rest is its backend's
   (exec/backend.h). */
#ifndef RP_BASE_DEVICE_H
#define RP_BASE_DEVICE_H

#include "base/type.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  RP_CPU = 0,
  RP_DEVICES = 9,
  RP_SLOTS = 64, /* results on their way to the host, a device, ... */
  RP_SLOT = 64,  /* ... of at most so many bytes */
  /* A number, or a view of one: goes wherever it is read. */
  RP_ANYWHERE = -1
};

typedef struct rp_account {
  int64_t bytes, peak;
} rp_account;

typedef struct rp_device {
  rp_context *ctx;
  const struct rp_backend *backend;
  const struct rp_device_memory *memory; /* the backend's */
  int32_t slot, unit;
  char name[16];      /* "cpu", "cuda:0" */
  void *state;        /* the backend's */
  rp_account storage; /* leaves, held values, the arena */
  struct {
    void *data;
    int64_t size;
  } arena;
  uint8_t *kernels;   /* by op index: bit = dtype */
  int64_t runs;       /* programs started so far */
  bool records;       /* programs are recorded and replayed */
  int64_t delivered[RP_SLOTS]; /* the run whose result is there; 0: none */
  rp_rates rates;     /* the unit's own; 0: its backend's */
} rp_device;

/* Sizes are in bytes and already multiples of `alignment`. What is written,
   zeroed or copied is there for everything that is run later; `from` of a
   write may be reused as soon as it returns; a read waits for what it reads. */
typedef struct rp_device_memory {
  int64_t alignment;
  bool is_host; /* a device pointer can be read as it is */
  void *(*alloc)(rp_device *device, int64_t size); /* NULL: refused */
  void (*release)(rp_device *device, void *p, int64_t size);
  /* The arena at another size: its address, or NULL, and then there is none.
     Its bytes mean nothing to anyone; old and new are never both held. */
  void *(*resize_arena)(rp_device *device, void *p, int64_t old_size,
                        int64_t size);
  rp_status (*zero)(rp_device *device, void *p, int64_t size);
  /* Nothing after run `after` touches what is overwritten: it may be written
     while later runs go on. device->runs + 1: whatever was handed over so far
     may touch it. */
  rp_status (*write)(rp_device *device, void *to, const void *from,
                     int64_t size, int64_t after);
  rp_status (*read)(rp_device *device, void *to, const void *from,
                    int64_t size);
  rp_status (*copy)(rp_device *device, void *to, const void *from,
                    int64_t size);
} rp_device_memory;

extern const rp_device_memory rp_host_memory;

/* Bytes that an allocation of `size` takes on the device. */
static inline int64_t rp_device_align(const rp_device *device, int64_t size) {
  const int64_t a = device->memory->alignment;
  return (size + a - 1) / a * a;
}

#ifdef __cplusplus
}
#endif

#endif
