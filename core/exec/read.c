/* Values out of recipes, and into leaves. */
#include <string.h>

#include "base/context.h"
#include "exec/backend.h"
#include "exec/cache.h"
#include "graph/op.h"
#include "graph/record.h"
#include "graph/recorder.h"

/* Runs t's recipe: afterwards its root is held. */
static rp_status run_one(rp_tensor *t) {
  rp_context *ctx = t->node->ctx;
  const rp_request request = {.action = RP_RUN, .targets = &t,
                              .n_targets = 1};
  rp_plan *plan = rp_plan_prepare(ctx, &request);
  if (plan == NULL) return ctx->status;
  const rp_status status = rp_plan_run(plan, &request);
  rp_plan_release(plan);
  return status;
}

rp_status rp_leaf_make(rp_tensor *leaf) {
  rp_leaf_data *data = leaf->node->leaf;
  if (data->recipe == NULL || leaf->storage) return rp_leaf_materialize(leaf);
  /* A copy when the recipe is a view: the leaf owns all of its bytes and
     nothing else. */
  rp_tensor *value = data->recipe;
  rp_tensor_retain(value);
  rp_status status = RP_OK;
  if (value->root != value || rp_is_leaf(value)) {
    rp_recorder *recorder = leaf->node->ctx->recorder;
    const int8_t device = recorder->device;
    recorder->device = leaf->node->device;
    rp_tensor *copy = rp_record_with_stream(
        leaf->node->ctx, rp_op_find("contiguous"), &value, 1, NULL, 0, NULL, 0,
        NULL);
    recorder->device = device;
    rp_tensor_release(value);
    if (copy == NULL) return leaf->node->ctx->status;
    value = copy;
  }
  const bool was_held = value->storage != NULL;
  if (!was_held) status = run_one(value);
  /* What was held before stays so for whoever holds it; what was made for the
     leaf becomes the leaf's, and the recipe is a recipe as before. */
  if (status == RP_OK && !was_held) {
    leaf->storage = value->storage;
    value->storage = NULL;
  } else if (status == RP_OK) {
    status = rp_leaf_materialize(leaf);
    rp_device *device = value->storage->device;
    if (status == RP_OK)
      status = device->memory->copy(device, leaf->storage->data,
                                    value->storage->data,
                                    leaf->storage->size);
  }
  rp_tensor_release(value);
  if (status == RP_OK) {
    rp_tensor_release(data->recipe);
    data->recipe = NULL;
  }
  return status;
}

static rp_status make_available(rp_tensor *t) {
  rp_tensor *root = t->root;
  if (root->node->leaf) return rp_leaf_make(root);
  return root->storage ? RP_OK : run_one(t);
}

/* Element by element in row-major order; runs of the last dim at once where
   they are adjacent. */
static void copy_out(const rp_tensor *t, const char *data, char *out) {
  const rp_type *type = &t->type;
  const int64_t size = (int64_t)rp_dtype_size((rp_dtype)type->dtype);
  const int64_t count = rp_type_count(type);
  int64_t index[RP_RANK] = {0};
  for (int64_t i = 0; i < count; i++) {
    int64_t at = t->strides.offset;
    for (int d = 0; d < type->rank; d++) at += index[d] * t->strides.at[d];
    memcpy(out + i * size, data + at * size, (size_t)size);
    for (int d = type->rank - 1; d >= 0 && ++index[d] == type->dims[d]; d--)
      index[d] = 0;
  }
}

rp_status rp_tensor_read(rp_tensor *t, void *out, size_t size_bytes) {
  rp_context *ctx = t->node->ctx;
  if ((int64_t)size_bytes != rp_type_bytes(&t->type))
    return rp_fail(ctx, RP_SHAPE, "[read] room for %zu bytes, the value has "
                   "%lld", size_bytes, (long long)rp_type_bytes(&t->type));
  const rp_status status = make_available(t);
  if (status != RP_OK) return status;
  rp_device *device = rp_node_device(t->root->node);
  const rp_device_memory *memory = device->memory;
  const int64_t element = (int64_t)rp_dtype_size((rp_dtype)t->type.dtype);
  const char *data = rp_root_data(t->root);
  const rp_storage *storage = t->root->storage;
  /* A leaf's bytes may have been written since. */
  if (t == t->root && !rp_is_leaf(t) && storage && storage->slot >= 0 &&
      device->delivered[storage->slot] == storage->run)
    return device->backend->collect(device, storage->slot, out,
                                    (int64_t)size_bytes);
  if (rp_strides_are_contiguous(&t->type, &t->strides))
    return memory->read(device, out, data + t->strides.offset * element,
                        (int64_t)size_bytes);
  if (memory->is_host) {
    copy_out(t, data, out);
    return RP_OK;
  }
  const size_t root_bytes = (size_t)rp_type_bytes(&t->root->type);
  char *bytes = rp_alloc(ctx, root_bytes);
  if (bytes == NULL) return RP_NOMEM;
  const rp_status read = memory->read(device, bytes, data,
                                      (int64_t)root_bytes);
  if (read == RP_OK) copy_out(t, bytes, out);
  rp_free(ctx, bytes, root_bytes);
  return read;
}

rp_status rp_leaf_assign(rp_tensor *leaf, rp_tensor *src) {
  rp_context *ctx = leaf->node->ctx;
  if (!rp_is_leaf(leaf))
    return rp_fail(ctx, RP_STATE, "[assign] only a leaf can be assigned to; "
                   "this is a recipe (%s)", leaf->node->op->name);
  if (!rp_type_equal(&leaf->type, &src->type)) {
    char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
    return rp_fail(ctx, RP_SHAPE, "[assign] %s %s into a leaf of %s %s",
                   rp_dims_text(&src->type, a),
                   rp_dtype_name((rp_dtype)src->type.dtype),
                   rp_dims_text(&leaf->type, b),
                   rp_dtype_name((rp_dtype)leaf->type.dtype));
  }
  rp_status status = make_available(src);
  if (status != RP_OK) return status;
  /* Through a block of its own: src may be a view of the leaf. */
  const size_t size = (size_t)rp_type_bytes(&leaf->type);
  void *bytes = rp_alloc(ctx, size);
  if (bytes == NULL) return RP_NOMEM;
  status = rp_tensor_read(src, bytes, size);
  if (status == RP_OK) status = rp_leaf_write(leaf, bytes, size);
  rp_free(ctx, bytes, size);
  return status;
}
