/* The tensor cores' product of small bf16 matrices by one warp, and how its
   operands come from shared memory (PTX ISA, "mma.m16n8k16" and "ldmatrix").

   All of a warp's lanes call these together. With g = lane / 4 and
   t = lane % 4, a lane holds
     left   16 x 16  (g, 2t..), (g + 8, 2t..), (g, 2t + 8..), (g + 8, 2t + 8..)
     right  16 x 8   (2t.., g), (2t + 8.., g)
     sum    16 x 8   (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
   (row, column), two neighbours to a word. So two sums side by side are a left
   operand once they are rounded, and no value changes its lane. */
#ifndef RP_CUDA_MATRIX_H
#define RP_CUDA_MATRIX_H

#include "kernel.h"

namespace rp {

struct left_tile {
  uint32_t at[4];
};
struct right_tile {
  uint32_t at[2];
};
struct sum_tile {
  float at[4];
};

#ifdef RP_EMULATED

/* Word w: of the 8 x 8 matrix w, whose row r lane 8 w + r points at. */
inline void load_matrices(const bf16 *row, bool transposed,
                          uint32_t (&at)[4]) {
  const int lane = rp_emulated_lane(), g = lane / 4, t = lane % 4;
  rp_emulated_meeting *all = rp_emulated_meet(
      0xffffffffu, &row, sizeof row, nullptr, __FILE__, __LINE__);
  for (int w = 0; w < 4; w++) {
    at[w] = 0;
    for (int k = 0; k < 2; k++) {
      const bf16 *from;
      memcpy(&from, all->value[8 * w + (transposed ? 2 * t + k : g)],
             sizeof from);
      uint16_t bits;
      memcpy(&bits, &from[transposed ? g : 2 * t + k], sizeof bits);
      at[w] |= (uint32_t)bits << 16 * k;
    }
  }
  rp_emulated_leave(all);
}

/* Element k of row (or column) `of`, which four lanes hold; of a left operand
   rows 8.. are in every other word. */
template <int WORDS>
inline float element_of(const rp_emulated_meeting *all, int of, int k) {
  uint32_t at[WORDS];
  memcpy(at, all->value[of % 8 * 4 + k % 8 / 2], sizeof at);
  const uint32_t pair = at[WORDS / 2 * (k / 8) + of / 8];
  return rp_bf16_to_f32((uint16_t)(pair >> 16 * (k % 2)));
}

inline void multiply(sum_tile &sum, const left_tile &a, const right_tile &b) {
  const int lane = rp_emulated_lane(), g = lane / 4, t = lane % 4;
  float left[2][16];
  rp_emulated_meeting *all = rp_emulated_meet(
      0xffffffffu, &a, sizeof a, nullptr, __FILE__, __LINE__);
  for (int r = 0; r < 2; r++)
    for (int k = 0; k < 16; k++)
      left[r][k] = element_of<4>(all, g + 8 * r, k);
  rp_emulated_leave(all);
  all = rp_emulated_meet(0xffffffffu, &b, sizeof b, nullptr, __FILE__,
                         __LINE__);
  for (int r = 0; r < 2; r++)
    for (int c = 0; c < 2; c++)
      for (int k = 0; k < 16; k++)
        sum.at[2 * r + c] += left[r][k] * element_of<2>(all, 2 * t + c, k);
  rp_emulated_leave(all);
}

inline uint32_t pack(float low, float high) {
  return rp_f32_to_bf16(low) | (uint32_t)rp_f32_to_bf16(high) << 16;
}

inline float low_of(uint32_t pair) { return rp_bf16_to_f32((uint16_t)pair); }
inline float high_of(uint32_t pair) {
  return rp_bf16_to_f32((uint16_t)(pair >> 16));
}

inline float power_of_two(float x) { return exp2f(x); }

inline void copy_ahead(bf16 *to, const bf16 *from, bool there) {
  if (there) memcpy((void *)to, from, 16);
  else memset((void *)to, 0, 16);
}
inline void copy_ahead(float *to, const float *from, bool there) {
  *to = there ? *from : 0;
}
inline void copies_done() {}

#else

__device__ __forceinline__ uint32_t shared_address(const void *x) {
  return (uint32_t)__cvta_generic_to_shared(x);
}

__device__ __forceinline__ void load_matrices(const bf16 *row,
                                              bool transposed,
                                              uint32_t (&at)[4]) {
  if (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 "
                 "{%0, %1, %2, %3}, [%4];"
                 : "=r"(at[0]), "=r"(at[1]), "=r"(at[2]), "=r"(at[3])
                 : "r"(shared_address(row)) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 "
                 "{%0, %1, %2, %3}, [%4];"
                 : "=r"(at[0]), "=r"(at[1]), "=r"(at[2]), "=r"(at[3])
                 : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void multiply(sum_tile &sum, const left_tile &a,
                                         const right_tile &b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(sum.at[0]), "+f"(sum.at[1]), "+f"(sum.at[2]),
                 "+f"(sum.at[3])
               : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]),
                 "r"(b.at[0]), "r"(b.at[1]));
}

__device__ __forceinline__ uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t *>(&pair);
}

/* The numbers of a pair. */
__device__ __forceinline__ float low_of(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
__device__ __forceinline__ float high_of(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

/* 0 below 2^-126. */
__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* Eight numbers to shared memory, both sides aligned to 16 bytes; zeros where
   they are not there. They may be read after copies_done() and a barrier. */
__device__ __forceinline__ void copy_ahead(bf16 *to, const bf16 *from,
                                           bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :: "r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0)
               : "memory");
}
/* The same of one number. */
__device__ __forceinline__ void copy_ahead(float *to, const float *from,
                                           bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
               :: "r"(shared_address(to)), "l"(from), "r"(there ? 4 : 0)
               : "memory");
}
__device__ __forceinline__ void copies_done() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

#endif

/* Rows of matrices in shared memory are `pitch` apart, an odd multiple of 8:
   eight of them then lie in different banks. */

/* x[0..15][0..15] as the left operand. */
__device__ __forceinline__ left_tile left_of(const bf16 *x, int pitch) {
  const int lane = (int)threadIdx.x % WARP;
  left_tile y;
  load_matrices(x + lane % 16 * pitch + lane / 16 * 8, false, y.at);
  return y;
}

/* The transpose of x[0..15][0..15] (its rows become columns) as two right
   operands: columns 0..7 and 8..15. */
__device__ __forceinline__ void right_of_rows(const bf16 *x, int pitch,
                                              right_tile (&y)[2]) {
  const int lane = (int)threadIdx.x % WARP;
  uint32_t at[4];
  load_matrices(x + (lane / 16 * 8 + lane % 8) * pitch + lane / 8 % 2 * 8,
                false, at);
  y[0] = right_tile{{at[0], at[1]}};
  y[1] = right_tile{{at[2], at[3]}};
}

/* The same of x[0..15][0..15] itself. */
__device__ __forceinline__ void right_of(const bf16 *x, int pitch,
                                         right_tile (&y)[2]) {
  const int lane = (int)threadIdx.x % WARP;
  uint32_t at[4];
  load_matrices(x + (lane / 8 % 2 * 8 + lane % 8) * pitch + lane / 16 * 8,
                true, at);
  y[0] = right_tile{{at[0], at[1]}};
  y[1] = right_tile{{at[2], at[3]}};
}

/* Two sums side by side, rounded. */
__device__ __forceinline__ left_tile rounded(const sum_tile &a,
                                             const sum_tile &b) {
  return left_tile{{pack(a.at[0], a.at[1]), pack(a.at[2], a.at[3]),
                    pack(b.at[0], b.at[1]), pack(b.at[2], b.at[3])}};
}

} // namespace rp

#endif
