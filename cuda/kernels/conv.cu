/* conv2d and its two adjoints over cuda/conv.h, those in f32 of bf16 over
   cuda/wide_conv.h. */
#include <new>

#include "kernel.h"
#include "product.h"
#include "wide_conv.h"

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

/* One of the two, or neither where there is nothing to do for them. */
struct made {
  conv *plain;
  wide_conv *wide; /* f32 of bf16 */
};

void destroy(void *state) {
  made *m = static_cast<made *>(state);
  if (m == nullptr) return;
  conv_free(m->plain);
  wide_conv_free(m->wide);
  delete m;
}

template <conv_kind kind>
rp_status prepare(const rp_kernel_args *args, void **state,
                  int64_t *workspace_bytes) {
  const conv_shape s = shape_of(args, kind);
  *state = nullptr;
  *workspace_bytes = 0;
  if (conv_is_empty(s)) return RP_OK;
  made *m = new (std::nothrow) made();
  if (m == nullptr)
    return rp_fail(args->ctx, RP_NOMEM, "no memory for a convolution");
  const rp_status status =
      args->out[0].type.dtype == s.dtype
          ? conv_make(args, s, &m->plain, workspace_bytes)
          : wide_conv_make(args, s, WIDE_CONV_BYTES, &m->wide,
                           workspace_bytes);
  if (status == RP_OK) *state = m;
  else destroy(m);
  return status;
}

/* bias:(O) beside y:(N, O, H, W). */
rp_array per_channel(const rp_array &bias) {
  return rp_array{bias.data, {bias.type.dtype, 3, {bias.type.dims[0], 1, 1}},
                  {bias.strides[0], 1, 1}};
}

template <conv_kind kind> rp_status run(const rp_kernel_args *args) {
  const made *m = static_cast<const made *>(args->state);
  const rp_array &out = args->out[0];
  void *first = args->in[0].data, *second = args->in[1].data;
  void *scratch = args->workspace;
  const rp_status status =
      m == nullptr ? fill_with_bias(args, nullptr, out)
      : m->wide
          ? wide_conv_run(m->wide, args, first, second, out.data, scratch)
      : kind == CONV_FORWARD
          ? conv_run(m->plain, args, first, second, out.data, scratch)
      : kind == CONV_GRAD_INPUT
          ? conv_run(m->plain, args, out.data, second, first, scratch)
          : conv_run(m->plain, args, second, out.data, first, scratch);
  if (status != RP_OK || kind != CONV_FORWARD || args->n_in < 3) return status;
  return add_bias(args, per_channel(args->in[2]), out);
}

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
