/* An attention problem as its loops see it: four-dimensional operands of any
   strides, whether they came packed or apart.

   Operands in bf16 become f32 as they are read and are rounded once as they
   are written; all between is f32's.

   The loops exist once (attention_forward.h, attention_backward.h) and are
   compiled for each number type (attention_f32.c, attention_f64.c). An item
   is what one thread does alone: forward a block of queries of one head,
   backward a head. Items write apart and sum in a fixed order. */
#ifndef RP_CPU_ATTENTION_H
#define RP_CPU_ATTENTION_H

#include "exec/backend.h"

/* Element (b, h, t, d); lse and delta have no d, a mask has (b, h, i, j).
   Strides in elements. */
typedef struct rp_attention_array {
  void *data;
  int64_t b, h, t, d;
} rp_attention_array;

typedef struct rp_attention {
  rp_dtype dtype; /* of all but lse and mask; lse is bf16's in f32 */
  int64_t batch, heads, queries, keys, depth, value_depth;
  bool causal;
  double scale, p;
  uint64_t seed, stream;
  rp_attention_array q, k, v, mask, out, lse;
  rp_attention_array dout, dq, dk, dv;
} rp_attention;

typedef struct rp_attention_loops {
  int64_t (*forward_items)(const rp_attention *a);
  int64_t (*forward_bytes)(const rp_attention *a);
  void (*forward)(const rp_attention *a, int64_t item, void *scratch);
  int64_t (*backward_bytes)(const rp_attention *a);
  void (*backward)(const rp_attention *a, int64_t item, void *scratch);
} rp_attention_loops;

extern const rp_attention_loops rp_attention_f32, rp_attention_f64;

#endif
