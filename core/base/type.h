/* dtypes, types (dtype + dims) and strides.
   Invariant of every rp_type that left rp_type_check: rank 0..RP_RANK, dims
   >= 0, and count and bytes fit in an int64_t. */
#ifndef RP_BASE_TYPE_H
#define RP_BASE_TYPE_H

#include "reprise.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RP_RANK = 8, RP_ALIGN = 64 };

/* Where the elements of a value lie: element (i0, i1, ...) is at
   offset + sum i_k * at[k], in elements from the root's first. */
typedef struct rp_strides {
  int64_t at[RP_RANK];
  int64_t offset;
} rp_strides;

size_t rp_dtype_size(rp_dtype dtype);
const char *rp_dtype_name(rp_dtype dtype);
/* One element; integers of what fits. */
void rp_store_number(void *at, rp_dtype dtype, double value);
bool rp_dtype_is_float(rp_dtype dtype);
/* What indices and labels may be: i32 or i64. */
bool rp_dtype_is_index(rp_dtype dtype);

rp_type rp_type_scalar(rp_dtype dtype);
/* Elements; 1 for rank 0, 0 when a dim is 0. */
int64_t rp_type_count(const rp_type *type);
int64_t rp_type_bytes(const rp_type *type);
bool rp_type_equal(const rp_type *a, const rp_type *b);
bool rp_dims_equal(const rp_type *a, const rp_type *b);
/* RP_VALUE for a bad rank, a negative dim or a size that overflows. */
rp_status rp_type_check(rp_context *ctx, const char *op, const rp_type *type);
/* Writes "(2,3,4)" and returns buffer. */
enum { RP_DIMS_TEXT = 192 };
const char *rp_dims_text(const rp_type *type, char buffer[RP_DIMS_TEXT]);

void rp_strides_contiguous(const rp_type *type, rp_strides *out);
bool rp_strides_are_contiguous(const rp_type *type, const rp_strides *s);

/* Bytes rounded up to the alignment: what storage and arena really take. */
static inline int64_t rp_align(int64_t bytes) {
  return (bytes + RP_ALIGN - 1) / RP_ALIGN * RP_ALIGN;
}

static inline float rp_bf16_to_f32(uint16_t bits) {
  union { uint32_t u; float f; } v = {.u = (uint32_t)bits << 16};
  return v.f;
}

/* Rounds to nearest even; NaN stays NaN. */
static inline uint16_t rp_f32_to_bf16(float x) {
  union { float f; uint32_t u; } v = {.f = x};
  if ((v.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((v.u >> 16) | 0x40u);
  return (uint16_t)((v.u + 0x7fffu + ((v.u >> 16) & 1u)) >> 16);
}

#ifdef __cplusplus
}
#endif

#endif
