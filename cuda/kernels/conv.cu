/* conv2d and its two adjoints over cuda/conv.h. */
#include "conv.h"
#include "kernel.h"
#include "product.h"

namespace rp {

namespace {

conv_shape shape_of(const rp_kernel_args *args, conv_kind kind) {
  const rp_type *first = &args->in[0].type, *second = &args->in[1].type,
                *made = &args->out[0].type;
  const rp_type *x = kind == CONV_FORWARD      ? first
                     : kind == CONV_GRAD_INPUT ? made
                                               : second;
  const rp_type *w = kind == CONV_GRAD_WEIGHT ? made : second;
  const rp_type *y = kind == CONV_FORWARD ? made : first;
  static const int64_t plain[7] = {1, 1, 0, 0, 1, 1, 1};
  const int64_t *ints = args->n_ints >= 7 ? args->ints : plain;
  conv_shape s = {};
  s.kind = kind;
  s.n = x->dims[0];
  s.groups = ints[6];
  s.in = w->dims[1];
  s.out = w->dims[0] / s.groups;
  s.dtype = (rp_dtype)first->dtype;
  for (int d = 0; d < 2; d++) {
    s.window.kernel[d] = w->dims[2 + d];
    s.window.stride[d] = ints[d];
    s.window.pad[d] = ints[2 + d];
    s.window.dilation[d] = ints[4 + d];
    s.size[d] = x->dims[2 + d];
    s.count[d] = y->dims[2 + d];
  }
  return s;
}

/* What is made in bf16 first lies in front of cuDNN's scratch. */
bool is_widened(const rp_kernel_args *args) {
  return args->out[0].type.dtype != args->in[0].type.dtype;
}

rp_array narrow_of(const rp_kernel_args *args) {
  rp_array y = args->out[0];
  y.type.dtype = args->in[0].type.dtype;
  y.data = args->workspace;
  return y;
}

template <conv_kind kind>
rp_status prepare(const rp_kernel_args *args, void **state,
                  int64_t *workspace_bytes) {
  const conv_shape s = shape_of(args, kind);
  *state = nullptr;
  *workspace_bytes = 0;
  if (conv_is_empty(s)) return RP_OK;
  conv *c = nullptr;
  const rp_status status = conv_make(args, s, &c, workspace_bytes);
  *state = c;
  if (status == RP_OK && is_widened(args)) {
    const rp_array narrow = narrow_of(args);
    *workspace_bytes += aligned(rp_type_bytes(&narrow.type));
  }
  return status;
}

/* bias:(O) beside y:(N, O, H, W). */
rp_array per_channel(const rp_array &bias) {
  return rp_array{bias.data, {bias.type.dtype, 3, {bias.type.dims[0], 1, 1}},
                  {bias.strides[0], 1, 1}};
}

template <conv_kind kind> rp_status run(const rp_kernel_args *args) {
  const conv *c = static_cast<const conv *>(args->state);
  const rp_array &out = args->out[0];
  rp_array made = out;
  char *scratch = static_cast<char *>(args->workspace);
  rp_status status;
  if (c == nullptr) {
    status = fill_with_bias(args, nullptr, out);
  } else {
    if (is_widened(args)) {
      made = narrow_of(args);
      scratch += aligned(rp_type_bytes(&made.type));
    }
    void *first = args->in[0].data, *second = args->in[1].data;
    status = kind == CONV_FORWARD
                 ? conv_run(c, args, first, second, made.data, scratch)
             : kind == CONV_GRAD_INPUT
                 ? conv_run(c, args, made.data, second, first, scratch)
                 : conv_run(c, args, second, made.data, first, scratch);
    if (status == RP_OK && is_widened(args))
      status = fill_with_bias(args, &made, out);
  }
  if (status != RP_OK || kind != CONV_FORWARD || args->n_in < 3) return status;
  return add_bias(args, per_channel(args->in[2]), out);
}

void destroy(void *state) { conv_free(static_cast<conv *>(state)); }

template <conv_kind kind> rp_kernel row_of(const char *name, rp_dtype dtype) {
  return row(name, dtype, run<kind>, prepare<kind>, destroy);
}

} // namespace

RP_ROWS(conv,
        row_of<CONV_FORWARD>("conv2d", RP_F32),
        row_of<CONV_FORWARD>("conv2d", RP_F64),
        row_of<CONV_FORWARD>("conv2d", RP_BF16),
        row_of<CONV_GRAD_INPUT>("conv2d_grad_input", RP_F32),
        row_of<CONV_GRAD_INPUT>("conv2d_grad_input", RP_F64),
        row_of<CONV_GRAD_INPUT>("conv2d_grad_input", RP_BF16),
        row_of<CONV_GRAD_WEIGHT>("conv2d_grad_weight", RP_F32),
        row_of<CONV_GRAD_WEIGHT>("conv2d_grad_weight", RP_F64),
        row_of<CONV_GRAD_WEIGHT>("conv2d_grad_weight", RP_BF16));

} // namespace rp
