/* Attention written out in cuDNN's operations: the pattern that its fused
   engines know again (cuDNN developer guide, "Fused Flash Attention fprop" and
   "bprop"), so which operations there are, and in what order, is part of the
   interface. */
#ifndef RP_EMULATED

#include "cudnn_attention.h"

#include <cmath>

namespace rp {
namespace {

typedef cudnn_graph::descriptor descriptor;

/* (B, H, rows, columns) of an array that lies so. */
cudnn_shape rows(const cudnn_attention_problem &p, cudnn_strides s, int64_t t) {
  return {{p.batch, p.heads, t, p.depth}, {s.b, s.h, s.t, 1}};
}
cudnn_shape across(cudnn_shape s) {
  return {{s.dims[0], s.dims[1], s.dims[3], s.dims[2]},
          {s.strides[0], s.strides[1], s.strides[3], s.strides[2]}};
}
cudnn_shape contiguous(int64_t b, int64_t h, int64_t t, int64_t d) {
  return {{b, h, t, d}, {h * t * d, t * d, d, 1}};
}
cudnn_shape scores_of(const cudnn_attention_problem &p) {
  return contiguous(p.batch, p.heads, p.queries, p.keys);
}
cudnn_shape column_of(const cudnn_attention_problem &p) {
  return {{p.batch, p.heads, p.queries, 1},
          {p.heads * p.queries, p.queries, 1, 1}};
}

descriptor argument(cudnn_graph *g, int which, cudnnDataType_t dtype,
                    cudnn_shape shape) {
  return g->argument(which + 1, dtype, shape);
}

/* -inf above the diagonal. */
descriptor causal(cudnn_graph *g, cudnn_shape shape, descriptor s) {
  descriptor row = g->index(shape, s, 2);
  descriptor column = g->index(shape, s, 3);
  descriptor seen =
      g->pointwise(CUDNN_POINTWISE_CMP_GE, shape, row, column, nullptr,
                   CUDNN_DATA_BOOLEAN);
  return g->pointwise(CUDNN_POINTWISE_BINARY_SELECT, shape, s,
                      g->number(-INFINITY), seen);
}

} // namespace

void cudnn_attention_forward(cudnn_graph *g,
                             const cudnn_attention_problem &p) {
  const cudnn_shape full = scores_of(p), column = column_of(p);
  const cudnnDataType_t narrow = CUDNN_DATA_BFLOAT16, wide = CUDNN_DATA_FLOAT;
  descriptor q = argument(g, CUDNN_Q, narrow, rows(p, p.q, p.queries));
  descriptor k = argument(g, CUDNN_K, narrow, across(rows(p, p.k, p.keys)));
  descriptor v = argument(g, CUDNN_V, narrow, rows(p, p.v, p.keys));
  descriptor out = argument(g, CUDNN_OUT, narrow, rows(p, p.out, p.queries));
  descriptor lse = argument(g, CUDNN_LSE, wide, column);

  descriptor s = g->matmul(full, q, k);
  s = g->pointwise(CUDNN_POINTWISE_MUL, full, s, g->number((float)p.scale));
  if (p.causal) s = causal(g, full, s);
  descriptor top = g->reduce(CUDNN_REDUCE_TENSOR_MAX, column, s);
  s = g->pointwise(CUDNN_POINTWISE_SUB, full, s, top);
  s = g->pointwise(CUDNN_POINTWISE_EXP, full, s);
  descriptor sum = g->reduce(CUDNN_REDUCE_TENSOR_ADD, column, s);
  descriptor log = g->pointwise(CUDNN_POINTWISE_LOG, column, sum);
  g->pointwise(CUDNN_POINTWISE_ADD, column, top, log, nullptr, wide, lse);
  descriptor w = g->pointwise(CUDNN_POINTWISE_DIV, full, s, sum, nullptr,
                              narrow);
  g->matmul(full, w, v, out);
}

void cudnn_attention_backward(cudnn_graph *g,
                              const cudnn_attention_problem &p) {
  const cudnn_shape full = scores_of(p), column = column_of(p);
  const cudnn_shape turned = across(full);
  const cudnn_shape q_shape = rows(p, p.q, p.queries);
  const cudnn_shape k_shape = rows(p, p.k, p.keys);
  const cudnn_shape dout_shape = rows(p, p.dout, p.queries);
  const cudnnDataType_t narrow = CUDNN_DATA_BFLOAT16, wide = CUDNN_DATA_FLOAT;
  descriptor q = argument(g, CUDNN_Q, narrow, q_shape);
  descriptor k = argument(g, CUDNN_K, narrow, across(k_shape));
  descriptor v = argument(g, CUDNN_V, narrow, across(rows(p, p.v, p.keys)));
  descriptor out = argument(g, CUDNN_OUT, narrow, rows(p, p.out, p.queries));
  descriptor lse = argument(g, CUDNN_LSE, wide, column);
  descriptor dout = argument(g, CUDNN_DOUT, narrow, dout_shape);
  descriptor delta = argument(g, CUDNN_DELTA, wide, column);
  descriptor dq = argument(g, CUDNN_DQ, narrow, rows(p, p.dq, p.queries));
  descriptor dk = argument(g, CUDNN_DK, narrow, rows(p, p.dk, p.keys));
  descriptor dv = argument(g, CUDNN_DV, narrow, rows(p, p.dv, p.keys));
  const cudnn_shape sums = contiguous(p.batch, p.heads, p.queries, p.depth);

  descriptor along = g->pointwise(CUDNN_POINTWISE_MUL, sums, dout, out);
  along = g->reduce(CUDNN_REDUCE_TENSOR_ADD, column, along);
  g->pointwise(CUDNN_POINTWISE_MUL, column, along, g->number(1), nullptr, wide,
               delta);

  descriptor s = g->matmul(full, q, k);
  s = g->pointwise(CUDNN_POINTWISE_MUL, full, s, g->number((float)p.scale));
  if (p.causal) s = causal(g, full, s);
  s = g->pointwise(CUDNN_POINTWISE_SUB, full, s, lse);
  descriptor w = g->pointwise(CUDNN_POINTWISE_EXP, full, s);
  g->matmul(full, g->reshape(turned, w, narrow), dout, dv);

  descriptor da = g->matmul(full, dout, v);
  da = g->pointwise(CUDNN_POINTWISE_SUB, full, da, delta);
  descriptor ds = g->pointwise(CUDNN_POINTWISE_MUL, full, da, w);
  ds = g->pointwise(CUDNN_POINTWISE_MUL, full, ds, g->number((float)p.scale),
                    nullptr, narrow);
  g->matmul(full, g->reshape(turned, ds, narrow), q, dk);
  g->matmul(full, ds, g->reshape(k_shape, k, narrow), dq);
}

} // namespace rp

#endif
