/* Rows of bf16 as rows of f32 and back: what a kernel that computes in f32
   does at its edges. Widening is exact; rounding is to nearest even. */
#ifndef RP_CPU_BF16_H
#define RP_CPU_BF16_H

#include "base/type.h"

/* y[i] = x[i * step] for i < n; x is bf16. */
static inline void rp_bf16_widen(float *restrict y, const void *x,
                                 int64_t step, int64_t n) {
  const uint16_t *bits = x;
  if (step == 1)
    for (int64_t i = 0; i < n; i++) y[i] = rp_bf16_to_f32(bits[i]);
  else
    for (int64_t i = 0; i < n; i++) y[i] = rp_bf16_to_f32(bits[i * step]);
}

static inline void rp_bf16_round(uint16_t *restrict y, const float *x,
                                 int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = rp_f32_to_bf16(x[i]);
}

#endif
