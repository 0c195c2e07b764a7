/* matmul and linear over cuda/product.h, and what their products need beside
   the library: copies of operands that no leading dimension describes, and a
   bias. */
#include "kernel.h"
#include "product.h"

namespace rp {

namespace {

/* ---- copies ------------------------------------------------------------- */

template <typename T>
__global__ void __launch_bounds__(BLOCK)
pack_kernel(walk<1> w, const T *from, T *to) {
  RP_EACH(i, w.count) {
    int64_t at[1];
    w.at(i, at);
    to[i] = from[at[0]];
  }
}

template <typename T>
rp_status pack_as(const rp_kernel_args *args, const rp_array &from, void *to) {
  const rp_array *const arrays[1] = {&from};
  const walk<1> w = walk_over(&from.type, arrays);
  if (w.count == 0) return RP_OK;
  return launch(args, "pack", pack_kernel<T>, grid_for(w.count), BLOCK, 0, w,
                static_cast<const T *>(from.data), static_cast<T *>(to));
}

/* ---- bias --------------------------------------------------------------- */

/* y = bias or y += bias; without one y = 0. */
template <typename T, typename B>
__global__ void __launch_bounds__(BLOCK)
bias_kernel(walk<2> w, const B *bias, T *y, bool adds) {
  RP_EACH(i, w.count) {
    int64_t at[2];
    w.at(i, at);
    wide<T> x = bias ? widen<B>(bias[at[1]]) : wide<T>(0);
    if (adds) x = widen<T>(y[at[0]]) + x;
    y[at[0]] = narrow<T>(x);
  }
}

template <typename T, typename B>
rp_status bias_as(const rp_kernel_args *args, const rp_array *bias,
                  const rp_array &y, bool adds) {
  const rp_array *const arrays[2] = {&y, bias ? bias : &y};
  const walk<2> w = walk_over(&y.type, arrays);
  if (w.count == 0) return RP_OK;
  return launch(args, "bias", bias_kernel<T, B>, grid_for(w.count), BLOCK, 0,
                w, static_cast<const B *>(bias ? bias->data : nullptr),
                static_cast<T *>(y.data), adds);
}

rp_status bias_of_any(const rp_kernel_args *args, const rp_array *bias,
                      const rp_array &y, bool adds) {
  const int32_t from = bias ? bias->type.dtype : y.type.dtype;
  if (y.type.dtype == RP_F64)
    return bias_as<double, double>(args, bias, y, adds);
  if (y.type.dtype == RP_F32)
    return from == RP_BF16 ? bias_as<float, bf16>(args, bias, y, adds)
                           : bias_as<float, float>(args, bias, y, adds);
  return from == RP_F32 ? bias_as<bf16, float>(args, bias, y, adds)
                        : bias_as<bf16, bf16>(args, bias, y, adds);
}

} // namespace

rp_status pack(const rp_kernel_args *args, const rp_array &from, void *to) {
  switch (rp_dtype_size((rp_dtype)from.type.dtype)) {
    case 2: return pack_as<uint16_t>(args, from, to);
    case 4: return pack_as<uint32_t>(args, from, to);
    default: return pack_as<uint64_t>(args, from, to);
  }
}

rp_status fill_with_bias(const rp_kernel_args *args, const rp_array *bias,
                         const rp_array &y) {
  return bias_of_any(args, bias, y, false);
}

rp_status add_bias(const rp_kernel_args *args, const rp_array &bias,
                   const rp_array &y) {
  return bias_of_any(args, &bias, y, true);
}

namespace {

/* ---- rows --------------------------------------------------------------- */

struct operands {
  rp_array a, b, y;
  const rp_array *bias;
};

operands of_matmul(const rp_kernel_args *args) {
  return {args->in[0], args->in[1], args->out[0], nullptr};
}

operands of_linear(const rp_kernel_args *args) {
  return {rp_at_least_a_row(args->in[0]), rp_matrix_transposed(args->in[1]),
          rp_at_least_a_row(args->out[0]),
          args->n_in > 2 ? &args->in[2] : nullptr};
}

typedef operands operands_function(const rp_kernel_args *args);

template <operands_function *of>
rp_status prepare(const rp_kernel_args *args, void **state,
                  int64_t *workspace_bytes) {
  const operands o = of(args);
  product *p = nullptr;
  const rp_status status = product_make(args, o.a, o.b, o.bias, o.y, &p,
                                        workspace_bytes);
  *state = p;
  return status;
}

template <operands_function *of>
rp_status run(const rp_kernel_args *args) {
  const operands o = of(args);
  return product_run(static_cast<const product *>(args->state), args, o.a, o.b,
                     o.bias, o.y, args->workspace);
}

void destroy(void *state) { product_free(static_cast<product *>(state)); }

template <operands_function *of>
rp_kernel row_of(const char *name, rp_dtype dtype) {
  return row(name, dtype, run<of>, prepare<of>, destroy);
}

} // namespace

RP_ROWS(matmul,
        row_of<of_matmul>("matmul", RP_F32),
        row_of<of_matmul>("matmul", RP_F64),
        row_of<of_matmul>("matmul", RP_BF16),
        row_of<of_linear>("linear", RP_F32),
        row_of<of_linear>("linear", RP_F64),
        row_of<of_linear>("linear", RP_BF16));

} // namespace rp
