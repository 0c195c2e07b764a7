/* Devices of a context, opened when first asked for. A backend other than the
   CPU is a library of its own next to this one, loaded then: one installation
   serves machines with and without the device. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "exec/backend.h"
#include "exec/device.h"
#include "graph/recorder.h"
#include "graph/registry.h"

/* ---- libraries ---------------------------------------------------------- */

/* One a process, as their libraries are; found again, never unloaded. */
typedef struct loaded {
  const char *name, *file, *variable;
  bool is_loaded;
  rp_backend backend;
  rp_kernel_table table;
  const rp_kernel_table *tables[1];
} loaded;
static loaded libraries[] = {
    {.name = "cuda", .file = "libreprise_cuda.so",
     .variable = "RP_CUDA_LIBRARY"},
};
enum { LIBRARIES = sizeof libraries / sizeof *libraries, PATH = 4096 };

/* op or one of those that do its work with others', which are in no registry,
   where it has that name. */
static const rp_op *find_in(const rp_op *op, const char *name) {
  if (op == NULL || strcmp(op->name, name) == 0) return op;
  const rp_op *found = find_in(op->beside.whole, name);
  for (int k = 0; k < 2 && found == NULL; k++)
    found = find_in(op->parts[k], name);
  for (int k = 0; k < RP_ENDINGS && found == NULL; k++)
    found = find_in(op->ends[k].whole, name);
  return found;
}

/* The record of that name. */
static const rp_op *op_of(const char *name) {
  const rp_op *op = rp_op_find(name);
  if (op == NULL) op = find_in(&rp_op_fused, name);
  for (int i = 0; i < rp_op_count() && op == NULL; i++)
    op = find_in(rp_op_at(i), name);
  return op;
}

/* The library's rows with their ops found, as one table for the life of the
   process. */
static rp_status name_ops(rp_context *ctx, loaded *library,
                          const rp_backend *backend) {
  int32_t n = 0;
  for (int32_t t = 0; t < backend->n_tables; t++) n += backend->tables[t]->n;
  rp_kernel *rows = calloc((size_t)n + 1, sizeof *rows);
  if (rows == NULL)
    return rp_fail(ctx, RP_NOMEM, "[device] no memory for the kernels of %s",
                   backend->name);
  n = 0;
  for (int32_t t = 0; t < backend->n_tables; t++)
    for (int32_t i = 0; i < backend->tables[t]->n; i++, n++) {
      rows[n] = backend->tables[t]->rows[i];
      rows[n].op = op_of(rows[n].name);
      if (rows[n].op) continue;
      const rp_status status =
          rp_fail(ctx, RP_INTERNAL, "[device] the %s backend has a kernel for "
                  "'%s', which is no op", backend->name, rows[n].name);
      free(rows);
      return status;
    }
  library->table = (rp_kernel_table){rows, n};
  library->tables[0] = &library->table;
  library->backend = *backend;
  library->backend.tables = library->tables;
  library->backend.n_tables = 1;
  library->is_loaded = true;
  return RP_OK;
}

/* Beside this library, wherever that lies. */
static void beside(const char *file, char path[PATH]) {
  Dl_info info;
  const char *own = dladdr((void *)beside, &info) ? info.dli_fname : "";
  const char *end = strrchr(own, '/');
  snprintf(path, PATH, "%.*s%s", end ? (int)(end - own + 1) : 0, own, file);
}

static const rp_backend *load(rp_context *ctx, loaded *library) {
  if (library->is_loaded) return &library->backend;
  char path[PATH];
  const char *given = getenv(library->variable);
  if (given && *given) snprintf(path, sizeof path, "%s", given);
  else beside(library->file, path);
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (handle == NULL) {
    const char *reason = dlerror();
    rp_fail(ctx, RP_UNSUPPORTED, "[device] %s: its library cannot be loaded "
            "(%s); \"make %s\" builds it where its toolkit is installed",
            library->name, reason ? reason : path, library->name);
    return NULL;
  }
  rp_backend_load_function *function =
      (rp_backend_load_function *)dlsym(handle, "rp_backend_load");
  const rp_loaded_backend *found = function ? function() : NULL;
  if (found == NULL || found->abi != RP_BACKEND_ABI) {
    rp_fail(ctx, RP_UNSUPPORTED, "[device] %s: %s was built for another "
            "version of this library; build both again", library->name, path);
    dlclose(handle);
    return NULL;
  }
  return name_ops(ctx, library, found->backend) == RP_OK ? &library->backend
                                                         : NULL;
}

static const rp_backend *find_backend(rp_context *ctx, const char *name,
                                      size_t length) {
  if (length == 3 && memcmp(name, "cpu", 3) == 0) return &rp_cpu;
  for (int i = 0; i < LIBRARIES; i++)
    if (strlen(libraries[i].name) == length &&
        memcmp(libraries[i].name, name, length) == 0)
      return load(ctx, &libraries[i]);
  rp_fail(ctx, RP_VALUE, "[device] no device '%s'; there are cpu, cuda and "
          "cuda:1 and so on", name);
  return NULL;
}

/* ---- one device --------------------------------------------------------- */

static rp_status open_device(rp_device *device) {
  rp_context *ctx = device->ctx;
  const rp_backend *backend = device->backend;
  device->kernels = rp_alloc(ctx, (size_t)rp_op_count());
  if (device->kernels == NULL) return RP_NOMEM;
  for (int32_t t = 0; t < backend->n_tables; t++)
    for (int32_t i = 0; i < backend->tables[t]->n; i++) {
      const rp_kernel *row = &backend->tables[t]->rows[i];
      const int at = rp_op_index(row->op);
      if (at < 0) continue;
      device->kernels[at] |= (uint8_t)(1u << row->dtype);
      if (device->slot == RP_CPU) rp_op_add_kernel(row->op, row->dtype);
    }
  return backend->open(device);
}

static void free_device(rp_device *device) {
  rp_context *ctx = device->ctx;
  rp_free(ctx, device->kernels, (size_t)rp_op_count());
  rp_free(ctx, device, sizeof *device);
}

static int add_device(rp_context *ctx, const rp_backend *backend,
                      int32_t unit) {
  int slot = 0;
  for (; slot < RP_DEVICES && ctx->devices[slot]; slot++) {
    const rp_device *device = ctx->devices[slot];
    if (device->backend == backend && device->unit == unit) return slot;
  }
  if (slot == RP_DEVICES) {
    rp_fail(ctx, RP_VALUE, "[device] %d devices are open; there is room for "
            "no more", RP_DEVICES);
    return -1;
  }
  rp_device *device = rp_alloc(ctx, sizeof *device);
  if (device == NULL) return -1;
  device->ctx = ctx;
  device->backend = backend;
  device->memory = backend->memory;
  device->slot = slot;
  device->unit = unit;
  if (slot == RP_CPU) snprintf(device->name, sizeof device->name, "cpu");
  else if (unit == 0)
    snprintf(device->name, sizeof device->name, "%s", backend->name);
  else
    snprintf(device->name, sizeof device->name, "%s:%d", backend->name, unit);
  if (open_device(device) != RP_OK) {
    free_device(device);
    return -1;
  }
  ctx->devices[slot] = device;
  return slot;
}

int rp_device_open(rp_context *ctx, const char *name) {
  const char *colon = strchr(name, ':');
  const size_t length = colon ? (size_t)(colon - name) : strlen(name);
  const rp_backend *backend = find_backend(ctx, name, length);
  if (backend == NULL) return -1;
  char *end = NULL;
  const long unit = colon ? strtol(colon + 1, &end, 10) : 0;
  const int32_t units = backend->count ? backend->count() : 1;
  const bool is_number = !colon || (end > colon + 1 && *end == 0 && unit >= 0);
  /* Where there is none at all, the backend knows why. */
  if (!is_number || (units > 0 && unit >= units)) {
    rp_fail(ctx, RP_VALUE, "[device] no device '%s'; there %s %d of %s%s", name,
            units == 1 ? "is" : "are", (int)units, backend->name,
            units > 0 ? ", counted from 0" : "");
    return -1;
  }
  return add_device(ctx, backend, (int32_t)unit);
}

int rp_device_count(rp_context *ctx, const char *backend_name) {
  const rp_backend *backend =
      find_backend(ctx, backend_name, strlen(backend_name));
  if (backend == NULL) return -1;
  return backend->count ? backend->count() : 1;
}

void rp_devices_close(rp_context *ctx) {
  for (int i = RP_DEVICES - 1; i >= 0; i--) {
    rp_device *device = ctx->devices[i];
    if (device == NULL) continue;
    (void)rp_arena_resize(device, 0);
    if (device->backend->close) device->backend->close(device);
    free_device(device);
    ctx->devices[i] = NULL;
  }
}

rp_device *rp_device_at(const rp_context *ctx, int slot) {
  return slot >= 0 && slot < RP_DEVICES && ctx->devices[slot]
             ? ctx->devices[slot] : ctx->devices[ctx->recorder->device];
}

const char *rp_device_name(const rp_context *ctx, int slot) {
  return rp_device_at(ctx, slot)->name;
}

rp_status rp_device_describe(rp_context *ctx, int slot, rp_device_info *out) {
  rp_device *device = rp_device_at(ctx, slot);
  *out = (rp_device_info){.name = device->name, .text = ""};
  if (device->backend->describe)
    out->text = device->backend->describe(device, &out->total_bytes,
                                          &out->free_bytes);
  return RP_OK;
}

void rp_device_usage_of(rp_context *ctx, int slot, rp_device_usage *out) {
  rp_device *device = rp_device_at(ctx, slot);
  *out = (rp_device_usage){0};
  if (device->backend->usage) device->backend->usage(device, out);
}

int rp_device_default(rp_context *ctx, int slot) {
  const int before = ctx->recorder->device;
  if (slot >= 0 && slot < RP_DEVICES && ctx->devices[slot])
    ctx->recorder->device = (int8_t)slot;
  return before;
}

bool rp_device_record(rp_context *ctx, int slot, bool on) {
  rp_device *device = rp_device_at(ctx, slot);
  const bool before = device->records;
  device->records = on && device->backend->record != NULL;
  return before;
}

rp_status rp_synchronize(rp_context *ctx, int slot) {
  rp_device *device = rp_device_at(ctx, slot);
  return device->backend->synchronize ? device->backend->synchronize(device)
                                      : RP_OK;
}

void rp_arena_release(rp_context *ctx) {
  for (int i = 0; i < RP_DEVICES && ctx->devices[i]; i++)
    (void)rp_arena_resize(ctx->devices[i], 0);
}
