/* Attention by cuDNN's fused kernels: bf16, no dropout, no mask but causal
   with as many keys as queries. Asked for by RP_CUDA_CUDNN_ATTENTION=1.

   out and lse mean what ours do, so a gradient by one reads what the other
   left. */
#ifndef RP_CUDA_CUDNN_ATTENTION_H
#define RP_CUDA_CUDNN_ATTENTION_H

#include "cudnn_graph.h"

namespace rp {

/* Strides of (b, h, t), in elements; the last dim's is 1. */
struct cudnn_strides {
  int64_t b, h, t;
};

struct cudnn_attention_problem {
  int64_t batch, heads, queries, keys, depth;
  bool causal;
  double scale;
  cudnn_strides q, k, v, out, dout, dq, dk, dv;
};

/* In the order of a run's pointers; forward is the first five alone. delta is
   scratch: (B, H, Tq) in f32. */
enum {
  CUDNN_Q, CUDNN_K, CUDNN_V, CUDNN_OUT, CUDNN_LSE, CUDNN_FORWARD_ARGUMENTS,
  CUDNN_DOUT = CUDNN_FORWARD_ARGUMENTS, CUDNN_DELTA, CUDNN_DQ, CUDNN_DK,
  CUDNN_DV, CUDNN_ARGUMENTS
};

/* Fills an empty graph; it is then planned and run. */
void cudnn_attention_forward(cudnn_graph *graph,
                             const cudnn_attention_problem &p);
void cudnn_attention_backward(cudnn_graph *graph,
                              const cudnn_attention_problem &p);

} // namespace rp

#endif
