/* One matrix product over cuBLASLt, chosen when it is made and kept.

     y = alpha a b (+ bias)      or, adding,      y = y + alpha a b

   a:(..., M, K), b:(..., K, N), bias:(N), y:(..., M, N) as in
   exec/product.h. y goes on row after row. a and b may lie anyhow: what no
   leading dimension can say is copied into the workspace first.

     a, b   y            bias         sums in
     f32    f32          f32          f32; with RP_CUDA_TF32=1 factors of 10
                                      bits
     f64    f64          f64          f64
     bf16   bf16, f32    bf16, f32    f32, and rounded once; a bias of another
                                      dtype than y's is cast to that first

   The algorithm follows from shapes, strides and dtypes alone. It is the
   library's first choice of those that sum in one order: split sums are added
   up in f32 (f64) in a step of their own or not at all, never where they
   meet in y. */
#ifndef RP_CUDA_PRODUCT_H
#define RP_CUDA_PRODUCT_H

#include "device.h"

#include "exec/product.h"

namespace rp {

struct product;

/* With data pointers NULL; *out is NULL after a failure: RP_NOMEM,
   RP_UNSUPPORTED (no algorithm), RP_INTERNAL. */
rp_status product_make(const rp_kernel_args *args, const rp_array &a,
                       const rp_array &b, const rp_array *bias,
                       const rp_array &y, product **out,
                       int64_t *workspace_bytes, double alpha = 1);
/* The arrays that it was made for, with data. Only a product without bias
   adds. */
rp_status product_run(const product *p, const rp_kernel_args *args,
                      const rp_array &a, const rp_array &b,
                      const rp_array *bias, const rp_array &y,
                      void *workspace, bool adds = false);
void product_free(product *p);

/* What the library may do to the sums on their way out; s is a b (+ bias):
     GELU       y = gelu_tanh(s), and aux = s where there is one
     GELU_GRAD  y = gelu_tanh_grad(s, aux); no bias
   aux lies like y. s is not rounded to y's dtype in between. */
enum class ending { NONE, GELU, GELU_GRAD };

/* As product_make, with *out NULL where the library has no algorithm that does
   it: for other dtypes than bf16, batches, an aux whose rows are no multiple of
   8 elements, whatever else it refuses. */
rp_status product_make_ended(const rp_kernel_args *args, const rp_array &a,
                             const rp_array &b, const rp_array *bias,
                             const rp_array &y, ending end,
                             const rp_array *aux, product **out,
                             int64_t *workspace_bytes);
/* Whether product_run_ended takes what lies there: aligned to 16 bytes. */
bool product_takes(const product *p, const rp_array &a, const rp_array &b,
                   const rp_array *bias, const rp_array &y,
                   const rp_array *aux);
rp_status product_run_ended(const product *p, const rp_kernel_args *args,
                            const rp_array &a, const rp_array &b,
                            const rp_array *bias, const rp_array &y,
                            const rp_array *aux, void *workspace);

/* RP_CUDA_TF32=1: f32 products and convolutions may round their factors to
   10 bits, which tensor cores take. */
bool tf32_is_allowed();

/* Bytes rounded up to what every piece of a workspace is aligned to. */
static inline int64_t aligned(int64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

/* ---- kernels/matmul.cu -------------------------------------------------- */

/* from, of any strides, into contiguous memory. */
rp_status pack(const rp_kernel_args *args, const rp_array &from, void *to);
/* y = bias, 0 where that is NULL. */
rp_status fill_with_bias(const rp_kernel_args *args, const rp_array *bias,
                         const rp_array &y);
/* y += bias */
rp_status add_bias(const rp_kernel_args *args, const rp_array &bias,
                   const rp_array &y);

/* ---- kernels/activation.cu ---------------------------------------------- */

/* The ops' rows of bf16. */
rp_status gelu_tanh(const rp_kernel_args *args);
rp_status gelu_tanh_grad(const rp_kernel_args *args);

} // namespace rp

#endif
