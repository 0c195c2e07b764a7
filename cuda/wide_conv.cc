/* What widens is kernels/widen.cu. */
#include "wide_conv.h"

#include <new>

#include "base/status.h"
#include "product.h"

namespace rp {

namespace {

/* The slices: all of `images`, but for the last, which has what is left. */
struct slices {
  int64_t n, images, last;
};

int64_t image_elements(int64_t channels, const int64_t *size) {
  return channels * size[0] * size[1];
}

slices slices_of(int64_t batch, int64_t image_bytes, int64_t slice_bytes) {
  slices s;
  s.images = slice_bytes / image_bytes;
  if (s.images < 1) s.images = 1;
  s.n = (batch + s.images - 1) / s.images;
  s.images = (batch + s.n - 1) / s.n;
  s.last = batch - (s.n - 1) * s.images;
  return s;
}

} // namespace

struct wide_conv {
  bool makes_weight;
  slices by;
  int64_t x_image, y_image, w_elements;
  conv *each, *last; /* last is NULL where it is like each */
  /* In the workspace: dy's slice, then x's slice or all of w, then cuDNN's. */
  int64_t other_at, scratch_at;
};

rp_status wide_conv_make(const rp_kernel_args *args, const conv_shape &shape,
                         int64_t slice_bytes, wide_conv **out,
                         int64_t *workspace_bytes) {
  *out = nullptr;
  *workspace_bytes = 0;
  wide_conv *c = new (std::nothrow) wide_conv();
  if (c == nullptr)
    return rp_fail(args->ctx, RP_NOMEM, "no memory for a convolution");
  const int64_t size = sizeof(float);
  c->makes_weight = shape.kind == CONV_GRAD_WEIGHT;
  c->x_image = image_elements(shape.groups * shape.in, shape.size);
  c->y_image = image_elements(shape.groups * shape.out, shape.count);
  c->w_elements = image_elements(shape.groups * shape.out * shape.in,
                                 shape.window.kernel);
  c->by = slices_of(shape.n, size * (c->x_image + c->y_image), slice_bytes);
  c->other_at = aligned(size * c->by.images * c->y_image);
  c->scratch_at = c->other_at +
                  aligned(size * (c->makes_weight ? c->by.images * c->x_image
                                                  : c->w_elements));
  conv_shape wide = shape;
  wide.dtype = RP_F32;
  wide.holds_bf16 = true;
  wide.n = c->by.images;
  int64_t scratch = 0, last_scratch = 0;
  rp_status status = conv_make(args, wide, &c->each, &scratch);
  if (status == RP_OK && c->by.last != c->by.images) {
    wide.n = c->by.last;
    status = conv_make(args, wide, &c->last, &last_scratch);
  }
  if (status != RP_OK) {
    wide_conv_free(c);
    return status;
  }
  *out = c;
  *workspace_bytes =
      c->scratch_at + (scratch > last_scratch ? scratch : last_scratch);
  return RP_OK;
}

void wide_conv_free(wide_conv *c) {
  if (c == nullptr) return;
  conv_free(c->each);
  conv_free(c->last);
  delete c;
}

rp_status wide_conv_run(const wide_conv *c, const rp_kernel_args *args,
                        const void *dy, const void *other, void *made,
                        void *workspace) {
  char *const base = static_cast<char *>(workspace);
  float *const wide_dy = reinterpret_cast<float *>(base);
  float *const wide_other = reinterpret_cast<float *>(base + c->other_at);
  void *const scratch = base + c->scratch_at;
  const auto *ys = static_cast<const uint16_t *>(dy);
  const auto *others = static_cast<const uint16_t *>(other);
  rp_status status = RP_OK;
  if (!c->makes_weight)
    status = widen(args, others, wide_other, c->w_elements);
  for (int64_t i = 0; i < c->by.n && status == RP_OK; i++) {
    const bool is_last = i == c->by.n - 1;
    const int64_t first = i * c->by.images;
    const int64_t images = is_last ? c->by.last : c->by.images;
    const conv *part = is_last && c->last ? c->last : c->each;
    status = widen(args, ys + first * c->y_image, wide_dy,
                       images * c->y_image);
    if (status == RP_OK && c->makes_weight)
      status = widen(args, others + first * c->x_image, wide_other,
                         images * c->x_image);
    if (status != RP_OK) break;
    status = c->makes_weight
                 ? conv_run(part, args, wide_other, made, wide_dy, scratch,
                            i > 0)
                 : conv_run(part, args,
                            static_cast<float *>(made) + first * c->x_image,
                            wide_other, wide_dy, scratch);
  }
  return status;
}

} // namespace rp
