/* Recording: one node at a time, checked by its op's rules. */
#include "graph/record.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "graph/autocast.h"
#include "graph/op.h"
#include "graph/recorder.h"
#include "graph/registry.h"

enum { OUTPUTS_MAX = 16, ATTRS_MAX = 64 };

rp_status rp_node_fail(const rp_node *node, rp_status status,
                       const char *format, ...) {
  char text[RP_MESSAGE_SIZE];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  const char *scope = /* rules are asked without a context, too */
      node->ctx ? rp_scope_text(node->ctx, node->place.scope) : "";
  return *scope ? rp_fail(node->ctx, status, "[%s] in %s: %s", node->op->name,
                          scope, text)
                : rp_fail(node->ctx, status, "[%s] %s", node->op->name, text);
}

rp_status rp_node_fail_dtypes(const rp_node *node, rp_dtype a, rp_dtype b) {
  const rp_dtype wanted = rp_dtype_is_float(b) && !rp_dtype_is_float(a) ? b : a;
  return rp_node_fail(node, RP_DTYPE, "%s and %s differ; cast one with :to'%s'",
                      rp_dtype_name(a), rp_dtype_name(b),
                      rp_dtype_name(wanted));
}

/* ---- leaves without bytes ------------------------------------------------ */

rp_tensor *rp_leaf(rp_context *ctx, rp_role role, const rp_type *type) {
  if (rp_type_check(ctx, "leaf", type) != RP_OK) return NULL;
  rp_node *node = rp_node_new(ctx, &rp_op_leaf, 0, 1, 0, 0);
  if (node == NULL) return NULL;
  node->device = role == RP_NUMBER ? RP_ANYWHERE : ctx->recorder->device;
  node->leaf = rp_alloc(ctx, sizeof *node->leaf);
  if (node->leaf == NULL) {
    rp_free(ctx, node, node->size_bytes);
    return NULL;
  }
  node->leaf->role = role;
  node->leaf->version = 1;
  node->leaf->writer = "its creation";
  node->place = ctx->recorder->place;
  rp_tensor *t = &node->outputs[0];
  t->type = *type;
  rp_strides_contiguous(type, &t->strides);
  t->requires_grad = role == RP_PARAMETER && rp_dtype_is_float(type->dtype);
  rp_node_link(node);
  return t;
}

rp_tensor *rp_number(rp_context *ctx, double value, rp_dtype dtype) {
  if ((dtype == RP_I32 && !(value >= INT32_MIN && value <= INT32_MAX)) ||
      (dtype == RP_I64 && !(value >= -0x1p63 && value < 0x1p63))) {
    rp_fail(ctx, RP_VALUE, "[number] %g does not fit in %s", value,
            rp_dtype_name(dtype));
    return NULL;
  }
  const rp_type type = rp_type_scalar(dtype);
  rp_tensor *t = rp_leaf(ctx, RP_NUMBER, &type);
  if (t) rp_store_number(t->node->leaf->number, dtype, value);
  return t;
}

/* ---- recording ---------------------------------------------------------- */

/* Whether input i must be copied to lie as the kernel wants it. */
static bool wants_copy(const rp_node *node, int i) {
  const uint32_t flags = node->op->flags;
  if (flags & RP_VIEW) return false;
  if ((flags & RP_STRIDED) && node->op->accepts == NULL) return false;
  const rp_tensor *t = node->inputs[i];
  if (rp_strides_are_contiguous(&t->type, &t->strides)) return false;
  if (flags & RP_STRIDED) return !node->op->accepts(node, i);
  return true;
}

/* Replaces input i (a counted reference) by its contiguous copy. */
static rp_status copy_input(rp_node *node, int i) {
  static const rp_op *contiguous;
  if (contiguous == NULL) contiguous = rp_op_find("contiguous");
  /* Of a number, too, it lies where the node runs. */
  int8_t *device = &node->ctx->recorder->device;
  const int8_t before = *device;
  *device = node->device;
  rp_tensor *copy = rp_record_with_stream(node->ctx, contiguous,
                                          &node->inputs[i], 1, NULL, 0, NULL,
                                          0, NULL);
  *device = before;
  if (copy == NULL) return node->ctx->status;
  rp_tensor_release(node->inputs[i]);
  node->inputs[i] = copy;
  return RP_OK;
}

/* The device of the inputs, which all lie on one. */
static rp_status find_device(rp_node *node) {
  rp_context *ctx = node->ctx;
  node->device = RP_ANYWHERE;
  for (int i = 0; i < node->n_inputs; i++) {
    const int8_t device = rp_root_node(node->inputs[i])->device;
    if (device == RP_ANYWHERE || device == node->device) continue;
    if (node->device != RP_ANYWHERE)
      return rp_node_fail(node, RP_VALUE, "its inputs lie on %s and on %s: "
                          "move one with x:to'%s'",
                          ctx->devices[node->device]->name,
                          ctx->devices[device]->name,
                          ctx->devices[device == RP_CPU ? node->device : device]
                              ->name);
    node->device = device;
  }
  if (node->device == RP_ANYWHERE && !(node->op->flags & RP_VIEW))
    node->device = ctx->recorder->device;
  return RP_OK;
}

/* Whether the device has a kernel for that dtype. */
static bool has_kernel(const rp_node *node, rp_dtype dtype) {
  const uint8_t *kernels = node->ctx->devices[node->device]->kernels;
  const int at = rp_op_index(node->op);
  return at >= 0 && (kernels[at] >> dtype) & 1u;
}

static rp_status lacks_kernel(const rp_node *node, rp_dtype dtype) {
  if (node->device != RP_CPU && rp_op_has_kernel(node->op, dtype))
    return rp_node_fail(node, RP_DTYPE, "does not take %s on %s",
                        rp_dtype_name(dtype),
                        node->ctx->devices[node->device]->name);
  return rp_node_fail(node, RP_DTYPE, "does not take %s%s",
                      rp_dtype_name(dtype),
                      rp_dtype_is_float(dtype) && dtype != RP_BF16
                          ? "" : "; cast with :to'f32'");
}

static void read_versions(rp_node *node) {
  for (int i = 0; i < node->n_inputs; i++) {
    const rp_node *root = rp_root_node(node->inputs[i]);
    const bool binds = !(node->op->effect_inputs >> (i & 31) & 1u);
    node->versions[i] = root->leaf && binds ? root->leaf->version : 0;
  }
}

static rp_status resolve_view(rp_node *node) {
  for (int k = 0; k < node->n_outputs; k++) {
    rp_tensor *out = &node->outputs[k];
    rp_status status = node->op->view(node, k, &out->strides);
    if (status == RP_UNSUPPORTED) {
      status = copy_input(node, k);
      if (status == RP_OK) status = node->op->view(node, k, &out->strides);
    }
    if (status != RP_OK) return status;
    out->root = node->inputs[k]->root;
  }
  return RP_OK;
}

static void pending_notice(rp_recorder *r, const rp_node *node) {
  if (r->nodes < r->pending_notice) return;
  const char *scope = rp_scope_text(node->ctx, node->place.scope);
  rp_notice(node->ctx,
            "%lld recipes are waiting and none of them has run (the last is "
            "%s%s%s): is something like `total = total + loss` only "
            "recording? Use loss:item() there.",
            (long long)r->nodes, node->op->name, *scope ? " in " : "", scope);
  r->pending_notice = 2 * r->nodes;
}

rp_tensor *rp_record_with_stream(rp_context *ctx, const rp_op *op,
                                 rp_tensor *const *inputs, int n_inputs,
                                 const int64_t *ints, int n_ints,
                                 const double *reals, int n_reals,
                                 const rp_stream *stream) {
  rp_recorder *r = ctx->recorder;
  const int most = op->inputs + (op->flags & RP_GUARDABLE ? 1 : 0) +
                   (op->flags & RP_SCALABLE ? 1 : 0);
  if (n_inputs < op->inputs ||
      (n_inputs > most && !(op->flags & RP_VARIADIC)) ||
      (op->outputs < 0 && (n_ints < 1 || ints[0] < 1 ||
                           ints[0] > OUTPUTS_MAX)) ||
      n_inputs > RP_INPUTS_MAX || n_ints > ATTRS_MAX || n_reals > ATTRS_MAX ||
      n_ints < 0 || n_reals < 0) {
    rp_fail(ctx, RP_VALUE,
            "[%s] takes %s%d tensors and at most %d attributes, not %d and %d",
            op->name, op->flags & RP_VARIADIC ? "at least " : "", op->inputs,
            ATTRS_MAX, n_inputs, n_ints + n_reals);
    return NULL;
  }
  for (int i = 0; i < n_inputs; i++) {
    if (inputs[i] == NULL) {
      rp_fail(ctx, RP_VALUE, "[%s] input %d is nil", op->name, i + 1);
      return NULL;
    }
    if (inputs[i]->node->ctx != ctx) {
      rp_fail(ctx, RP_VALUE, "[%s] input %d belongs to another context",
              op->name, i + 1);
      return NULL;
    }
    if (rp_check_fresh(inputs[i], op->name) != RP_OK) return NULL;
  }
  const int n_outputs = op->outputs < 0 ? (int)ints[0] : op->outputs;
  rp_node *node = rp_node_new(ctx, op, n_inputs, n_outputs, n_ints, n_reals);
  if (node == NULL) return NULL;
  node->n_inputs = (uint16_t)n_inputs;
  for (int i = 0; i < n_inputs; i++) {
    node->inputs[i] = inputs[i];
    rp_tensor_retain(inputs[i]);
  }
  if (n_ints) memcpy(node->ints, ints, (size_t)n_ints * sizeof *ints);
  if (n_reals) memcpy(node->reals, reals, (size_t)n_reals * sizeof *reals);
  node->place = r->place;
  if (r->emitting) node->flags |= RP_NODE_BACKWARD;
  if (!r->grad_enabled) node->flags |= RP_NODE_NO_GRAD;
  node->origin = r->origin;

  rp_type types[OUTPUTS_MAX] = {0};
  if (find_device(node) != RP_OK) goto fail;
  if (op->type(node, types) != RP_OK) goto fail;
  bool grad = r->grad_enabled && !(op->flags & RP_NOT_DIFFERENTIABLE);
  bool wanted = false;
  for (int i = 0; grad && i < n_inputs; i++)
    wanted |= inputs[i]->requires_grad;
  for (int k = 0; k < node->n_outputs; k++) {
    rp_tensor *out = &node->outputs[k];
    if (rp_type_check(ctx, op->name, &types[k]) != RP_OK) goto fail;
    out->type = types[k];
    out->requires_grad = wanted && rp_dtype_is_float(types[k].dtype);
    rp_strides_contiguous(&out->type, &out->strides);
  }
  if (op->flags & RP_VIEW) {
    if (resolve_view(node) != RP_OK) goto fail;
  } else {
    const rp_dtype dtype =
        (rp_dtype)(n_inputs ? inputs[0]->type.dtype : types[0].dtype);
    if (!has_kernel(node, dtype)) {
      (void)lacks_kernel(node, dtype);
      goto fail;
    }
    for (int i = 0; i < n_inputs; i++)
      if (wants_copy(node, i) && copy_input(node, i) != RP_OK) goto fail;
  }
  read_versions(node);
  if (op->flags & RP_RANDOM)
    node->stream = stream ? *stream
                          : (rp_stream){.id = ++r->streams, .seed = ctx->seed,
                                        .draw = ++r->draws};
  rp_node_link(node);
  pending_notice(r, node);
  return &node->outputs[0];

fail:
  rp_node_discard(node);
  return NULL;
}

rp_tensor *rp_record(rp_context *ctx, const rp_op *op,
                     rp_tensor *const *inputs, int n_inputs,
                     const int64_t *ints, int n_ints,
                     const double *reals, int n_reals) {
  if (op->flags & (RP_EFFECT | RP_LEAF)) {
    rp_fail(ctx, RP_VALUE, "[%s] is no op to record by hand", op->name);
    return NULL;
  }
  if (ctx->recorder->autocast)
    return rp_autocast_record(ctx, op, inputs, n_inputs, ints, n_ints, reals,
                              n_reals);
  return rp_record_with_stream(ctx, op, inputs, n_inputs, ints, n_ints, reals,
                               n_reals, NULL);
}

rp_tensor *rp_record_number(rp_context *ctx, const rp_op *op, rp_tensor *x,
                            double number, bool swapped) {
  const rp_dtype dtype = (rp_dtype)x->type.dtype;
  rp_tensor *n = rp_number(ctx, number, dtype == RP_BF16 ? RP_F32 : dtype);
  if (n == NULL) return NULL;
  rp_tensor *pair[2] = {swapped ? n : x, swapped ? x : n};
  rp_tensor *y = rp_record_with_stream(ctx, op, pair, 2, NULL, 0, NULL, 0,
                                       NULL);
  rp_tensor_release(n);
  return y;
}

bool rp_grad_enable(rp_context *ctx, bool on) {
  const bool before = ctx->recorder->grad_enabled;
  ctx->recorder->grad_enabled = on;
  return before;
}
