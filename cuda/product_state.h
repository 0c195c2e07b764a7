/* What a product keeps, for product.cc, which describes and runs it, and
   product_choice.cc, which asks cuBLASLt how.

   cuBLASLt counts by columns: our rows are its columns, so y^T = b^T a^T is
   what it is asked for, and b is its A. */
#ifndef RP_CUDA_PRODUCT_STATE_H
#define RP_CUDA_PRODUCT_STATE_H

#include "product.h"

namespace rp {

/* Matrices in one call. Of larger counts some kernels make a grid that no
   device takes (65535); this is a multiple of many alignments. */
constexpr int64_t MOST_MATRICES = 63 * 1024;
/* Bytes that pointers are multiples of. */
constexpr uint32_t WIDE_ALIGNMENT = 16;

enum { A, B, Y, SIDES };
enum { ALIGNED, ANYHOW, ALGORITHMS };

struct product {
  rp_product shape;
  rp_array sides[SIDES]; /* as multiplied, without data */
  rp_dtype bias_dtype;   /* as added */
  bool has_bias, in_epilogue, is_f64;
  ending end;
  bool has_aux;
  double alpha;
  int loops;             /* batch dims that are looped over */
  rp_product_dim batch;  /* the library's */
  int64_t copy_at[2], bias_at, scratch_at; /* in the workspace; -1: none */
  cublasLtMatmulDesc_t operation;
  cublasLtMatrixLayout_t layouts[SIDES];
  bool has[ALGORITHMS];
  cublasLtMatmulAlgo_t algorithms[ALGORITHMS];
  size_t scratch_bytes[ALGORITHMS];
};

/* Makes the library's operation and layouts and chooses the algorithms, of
   which there may be none. A bias that the library does not add for this
   product is left to be added after it (in_epilogue). */
cublasStatus_t product_choose(product *p, cublasLtHandle_t handle);
/* The same for a product with an ending: one algorithm, for what is aligned. */
cublasStatus_t product_choose_ended(product *p, cublasLtHandle_t handle);

} // namespace rp

#endif
