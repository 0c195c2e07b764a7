/* Leaves: bytes, versions, names; held values. */
#include <string.h>

#include "base/context.h"
#include "graph/op.h"
#include "graph/record.h"
#include "graph/recorder.h"

static rp_status leaf_type(const rp_node *node, rp_type *out) {
  (void)out;
  return rp_node_fail(node, RP_VALUE, "is recorded with rp_leaf");
}

const rp_op rp_op_leaf = {
    .name = "leaf",
    .outputs = 1,
    .flags = RP_LEAF | RP_NOT_DIFFERENTIABLE,
    .type = leaf_type,
};

rp_device *rp_node_device(const rp_node *node) {
  return node->ctx->devices[node->device < 0 ? RP_CPU : node->device];
}

rp_storage *rp_storage_new(rp_device *device, int64_t size) {
  rp_context *ctx = device->ctx;
  rp_storage *storage = rp_alloc(ctx, sizeof *storage);
  if (storage == NULL) return NULL;
  storage->data = rp_storage_alloc(device, size);
  if (storage->data == NULL) {
    rp_free(ctx, storage, sizeof *storage);
    return NULL;
  }
  storage->device = device;
  storage->slot = -1;
  /* Its bytes may have been another's, and what was done with those, and what
     zeroes these, may be yet to come. */
  storage->used = device->runs + 1;
  storage->size = size;
  storage->refs = 1;
  return storage;
}

void rp_storage_release(rp_storage *storage) {
  if (--storage->refs > 0) return;
  rp_device *device = storage->device;
  rp_storage_free(device, storage->data, storage->size);
  rp_free(device->ctx, storage, sizeof *storage);
}

rp_status rp_leaf_materialize(rp_tensor *leaf) {
  if (leaf->storage || leaf->node->leaf->role == RP_NUMBER) return RP_OK;
  const int64_t size = rp_type_bytes(&leaf->type);
  rp_device *device = rp_node_device(leaf->node);
  leaf->storage = rp_storage_new(device, size);
  if (leaf->storage == NULL) return RP_NOMEM;
  return device->memory->zero(device, leaf->storage->data,
                              rp_device_align(device, size));
}

/* ---- host copies of integers -------------------------------------------- */

/* Tokens and labels are looked at before the first instruction; on a device
   that would wait for all that runs there. */

void rp_leaf_drop_mirror(rp_node *node) {
  if (node->leaf->mirror)
    rp_free(node->ctx, node->leaf->mirror,
            (size_t)rp_type_bytes(&node->outputs[0].type));
  node->leaf->mirror = NULL;
  node->leaf->mirrored = 0;
}

/* Room for the copy; NULL with RP_NOMEM said. */
static void *mirror_of(rp_node *node) {
  if (node->leaf->mirror == NULL)
    node->leaf->mirror = rp_alloc(
        node->ctx, (size_t)rp_type_bytes(&node->outputs[0].type));
  return node->leaf->mirror;
}

const void *rp_leaf_host_bytes(rp_tensor *leaf) {
  rp_node *node = leaf->node;
  rp_device *device = rp_node_device(node);
  if (device->memory->is_host) return rp_root_data(leaf);
  if (node->leaf->mirrored == node->leaf->version) return node->leaf->mirror;
  void *mirror = mirror_of(node);
  if (mirror == NULL ||
      device->memory->read(device, mirror, leaf->storage->data,
                           rp_type_bytes(&leaf->type)) != RP_OK)
    return NULL;
  node->leaf->mirrored = node->leaf->version;
  return mirror;
}

void *rp_root_data(const rp_tensor *root) {
  if (root->node->leaf && root->node->leaf->role == RP_NUMBER)
    return root->node->leaf->number;
  return root->storage ? root->storage->data : NULL;
}

void rp_leaf_bump(rp_tensor *leaf, const char *writer) {
  leaf->node->leaf->version++;
  leaf->node->ctx->recorder->stale = true;
  leaf->node->leaf->writer = writer;
}

rp_tensor *rp_leaf_from(rp_role role, rp_tensor *recipe) {
  rp_tensor *leaf = rp_leaf(recipe->node->ctx, role, &recipe->type);
  if (leaf == NULL) return NULL;
  if (rp_root_node(recipe)->device != RP_ANYWHERE)
    leaf->node->device = rp_root_node(recipe)->device;
  rp_tensor_retain(recipe);
  leaf->node->leaf->recipe = recipe;
  return leaf;
}

rp_role rp_leaf_role(const rp_tensor *leaf) {
  return leaf->node->leaf ? leaf->node->leaf->role : RP_INPUT;
}

rp_status rp_leaf_set_name(rp_tensor *leaf, const char *name) {
  rp_leaf_data *data = leaf->node->leaf;
  rp_context *ctx = leaf->node->ctx;
  if (data == NULL)
    return rp_fail(ctx, RP_STATE, "[name] only a leaf has a name; this is a "
                   "recipe (%s)", leaf->node->op->name);
  const size_t size = strlen(name) + 1;
  char *copy = rp_alloc(ctx, size);
  if (copy == NULL) return RP_NOMEM;
  memcpy(copy, name, size);
  if (data->name) rp_free(ctx, data->name, strlen(data->name) + 1);
  data->name = copy;
  return RP_OK;
}

const char *rp_leaf_name(const rp_tensor *leaf) {
  return leaf->node->leaf && leaf->node->leaf->name ? leaf->node->leaf->name
                                                    : "";
}

rp_status rp_leaf_write(rp_tensor *leaf, const void *data, size_t size_bytes) {
  rp_context *ctx = leaf->node->ctx;
  if (leaf->node->leaf == NULL)
    return rp_fail(ctx, RP_STATE, "[write] only a leaf can be written; this "
                   "is a recipe (%s)", leaf->node->op->name);
  if ((int64_t)size_bytes != rp_type_bytes(&leaf->type))
    return rp_fail(ctx, RP_SHAPE, "[write] %zu bytes for a leaf of %lld",
                   size_bytes, (long long)rp_type_bytes(&leaf->type));
  const bool number = leaf->node->leaf->role == RP_NUMBER;
  const bool fresh = !number && leaf->storage == NULL;
  rp_status status = rp_leaf_materialize(leaf);
  rp_device *device = rp_node_device(leaf->node);
  if (status == RP_OK)
    status = device->memory->write(device, rp_root_data(leaf), data,
                                   (int64_t)size_bytes,
                                   number ? 0 : leaf->storage->used);
  if (status != RP_OK) return status;
  const bool is_integer = leaf->type.dtype == RP_I32 ||
                          leaf->type.dtype == RP_I64;
  if (!device->memory->is_host && is_integer && mirror_of(leaf->node)) {
    memcpy(leaf->node->leaf->mirror, data, size_bytes);
    /* Of the version that this write makes. */
    leaf->node->leaf->mirrored = leaf->node->leaf->version + 1;
  }
  if (leaf->node->leaf->recipe) {
    rp_tensor_release(leaf->node->leaf->recipe);
    leaf->node->leaf->recipe = NULL;
  } else if (fresh && leaf->node->refs == 1) {
    /* First bytes that nothing can have read: no next version. */
    if (leaf->node->leaf->mirrored)
      leaf->node->leaf->mirrored = leaf->node->leaf->version;
    return RP_OK;
  }
  rp_leaf_bump(leaf, "a write to it");
  return RP_OK;
}

void rp_leaf_clear(rp_tensor *leaf) {
  if (leaf->node->leaf == NULL || leaf->storage == NULL) return;
  rp_storage_release(leaf->storage);
  leaf->storage = NULL;
  rp_leaf_bump(leaf, "clearing it");
}

int64_t rp_leaf_version(const rp_tensor *leaf) {
  return leaf->node->leaf ? leaf->node->leaf->version : 0;
}

rp_tensor *rp_tensor_grad(const rp_tensor *t) {
  return t->grad && t->grad->storage ? t->grad : NULL;
}

void rp_tensor_clear_grad(rp_tensor *t) {
  rp_tensor *grad = t->grad;
  t->grad = NULL;
  t->node->ctx->recorder->stale = true; /* prepared requests may name it */
  rp_tensor_release(grad);
}

/* ---- devices ------------------------------------------------------------ */

int rp_tensor_device(const rp_tensor *t) {
  const int8_t device = rp_root_node(t)->device;
  return device == RP_ANYWHERE ? t->node->ctx->recorder->device : device;
}

/* size bytes from a storage to another, through the host between devices. */
static rp_status copy_storage(const rp_storage *to, const rp_storage *from,
                              int64_t size) {
  rp_device *source = from->device, *target = to->device;
  if (source == target)
    return source->memory->copy(source, to->data, from->data, size);
  if (target->memory->is_host)
    return source->memory->read(source, to->data, from->data, size);
  if (source->memory->is_host)
    return target->memory->write(target, to->data, from->data, size, to->used);
  rp_context *ctx = source->ctx;
  void *bytes = rp_alloc(ctx, (size_t)size);
  if (bytes == NULL) return RP_NOMEM;
  rp_status status = source->memory->read(source, bytes, from->data, size);
  if (status == RP_OK)
    status = target->memory->write(target, to->data, bytes, size, to->used);
  rp_free(ctx, bytes, (size_t)size);
  return status;
}

static rp_status move_leaf(rp_tensor *leaf, int slot) {
  rp_context *ctx = leaf->node->ctx;
  if (leaf->node->device == RP_ANYWHERE || leaf->node->device == slot)
    return RP_OK;
  rp_status status = leaf->node->leaf->recipe ? rp_leaf_make(leaf) : RP_OK;
  rp_storage *moved = NULL;
  if (status == RP_OK && leaf->storage) {
    moved = rp_storage_new(ctx->devices[slot], leaf->storage->size);
    status = moved ? copy_storage(moved, leaf->storage, moved->size)
                   : RP_NOMEM;
  }
  if (status != RP_OK) {
    if (moved) rp_storage_release(moved);
    return status;
  }
  if (leaf->storage) rp_storage_release(leaf->storage);
  leaf->storage = moved;
  leaf->node->device = (int8_t)slot;
  rp_leaf_drop_mirror(leaf->node);
  rp_leaf_bump(leaf, "moving it to another device");
  return RP_OK;
}

rp_status rp_leaf_to(rp_tensor *leaf, int slot) {
  rp_context *ctx = leaf->node->ctx;
  if (leaf->node->leaf == NULL)
    return rp_fail(ctx, RP_STATE, "[to] only a leaf can be moved in place; "
                   "this is a recipe (%s)", leaf->node->op->name);
  if (slot < 0 || slot >= RP_DEVICES || ctx->devices[slot] == NULL)
    return rp_fail(ctx, RP_VALUE, "[to] there is no device in slot %d", slot);
  rp_status status = leaf->grad ? move_leaf(leaf->grad, slot) : RP_OK;
  return status == RP_OK ? move_leaf(leaf, slot) : status;
}

rp_tensor *rp_tensor_to(rp_tensor *t, int slot) {
  rp_context *ctx = t->node->ctx;
  if (slot < 0 || slot >= RP_DEVICES || ctx->devices[slot] == NULL) {
    rp_fail(ctx, RP_VALUE, "[to] there is no device in slot %d", slot);
    return NULL;
  }
  rp_tensor *leaf = rp_leaf_from(RP_INPUT, t);
  if (leaf == NULL) return NULL;
  if (rp_leaf_to(leaf, slot) == RP_OK && rp_leaf_make(leaf) == RP_OK)
    return leaf;
  rp_tensor_release(leaf);
  return NULL;
}

/* ---- what a handle tells ------------------------------------------------ */

rp_tensor *rp_tensor_output(rp_tensor *t, int index) {
  if (index < 0 || index >= t->node->n_outputs) {
    rp_fail(t->node->ctx, RP_VALUE, "[%s] has %d outputs, not %d",
            t->node->op->name, (int)t->node->n_outputs, index + 1);
    return NULL;
  }
  rp_tensor_retain(t);
  return &t->node->outputs[index];
}

const rp_type *rp_tensor_type(const rp_tensor *t) { return &t->type; }
const rp_op *rp_tensor_op(const rp_tensor *t) { return t->node->op; }
rp_context *rp_tensor_context(const rp_tensor *t) { return t->node->ctx; }
const char *rp_tensor_scope(const rp_tensor *t) {
  return rp_scope_text(t->node->ctx, t->node->place.scope);
}
bool rp_tensor_is_leaf(const rp_tensor *t) { return rp_is_leaf(t); }
bool rp_tensor_is_held(const rp_tensor *t) {
  return rp_root_data(t->root) != NULL;
}
bool rp_tensor_is_contiguous(const rp_tensor *t) {
  return rp_strides_are_contiguous(&t->type, &t->strides);
}
bool rp_tensor_requires_grad(const rp_tensor *t) { return t->requires_grad; }

rp_status rp_tensor_set_requires_grad(rp_tensor *t, bool on) {
  if (!rp_is_leaf(t))
    return rp_fail(t->node->ctx, RP_STATE,
                   "[requires_grad] this is a recipe (%s), not a leaf: "
                   "t:detach():run() or nn.Parameter(t) makes one",
                   t->node->op->name);
  if (on && !rp_dtype_is_float(t->type.dtype))
    return rp_fail(t->node->ctx, RP_DTYPE,
                   "[requires_grad] %s has no gradient; only f32, f64 and "
                   "bf16 have", rp_dtype_name(t->type.dtype));
  t->requires_grad = on;
  return RP_OK;
}

/* Keeping or delivering a view means keeping or delivering what it shows. */
void rp_tensor_keep(rp_tensor *t) { t->root->keep = true; }
void rp_tensor_tap(rp_tensor *t) { t->root->tap = true; }
