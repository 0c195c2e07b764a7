/* Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
   3", 2011): a counter in, four words out, no state. A random node's element
   e is word e % 4 of counter (e / 4, stream) under key = seed, so any part of
   a value can be made again at any time. */
#ifndef RP_BASE_RANDOM_H
#define RP_BASE_RANDOM_H

#include <stdint.h>

static inline void rp_philox(const uint32_t counter[4], const uint32_t key[2],
                             uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = (uint64_t)0xD2511F53u * c0;
    const uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* The four words for elements 4*block .. 4*block+3 of a stream. */
static inline void rp_philox_block(uint64_t seed, uint64_t stream,
                                   uint64_t block, uint32_t out[4]) {
  const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32),
                               (uint32_t)stream, (uint32_t)(stream >> 32)};
  const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  rp_philox(counter, key, out);
}

/* Uniform in [0, 1) with 24 bits; exactly representable in f32. */
static inline float rp_uniform_f32(uint32_t word) {
  return (float)(word >> 8) * 0x1p-24f;
}

#endif
