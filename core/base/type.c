#include "base/type.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"

static const struct {
  const char *name;
  size_t size;
  bool is_float;
} dtypes[RP_DTYPES] = {
    [RP_F32] = {"f32", 4, true},   [RP_F64] = {"f64", 8, true},
    [RP_BF16] = {"bf16", 2, true}, [RP_I32] = {"i32", 4, false},
    [RP_I64] = {"i64", 8, false},  [RP_BOOL] = {"bool", 1, false},
};

size_t rp_dtype_size(rp_dtype dtype) { return dtypes[dtype].size; }
const char *rp_dtype_name(rp_dtype dtype) { return dtypes[dtype].name; }

void rp_store_number(void *at, rp_dtype dtype, double value) {
  switch (dtype) {
    case RP_F32: *(float *)at = (float)value; break;
    case RP_F64: *(double *)at = value; break;
    case RP_BF16: *(uint16_t *)at = rp_f32_to_bf16((float)value); break;
    case RP_I32: *(int32_t *)at = (int32_t)value; break;
    case RP_I64: *(int64_t *)at = (int64_t)value; break;
    default: *(uint8_t *)at = value != 0; break;
  }
}

bool rp_dtype_is_float(rp_dtype dtype) { return dtypes[dtype].is_float; }
bool rp_dtype_is_index(rp_dtype dtype) {
  return dtype == RP_I32 || dtype == RP_I64;
}

rp_type rp_type_scalar(rp_dtype dtype) {
  rp_type type = {.dtype = dtype};
  return type;
}

int64_t rp_type_count(const rp_type *type) {
  int64_t count = 1;
  for (int i = 0; i < type->rank; i++) count *= type->dims[i];
  return count;
}

int64_t rp_type_bytes(const rp_type *type) {
  return rp_type_count(type) * (int64_t)dtypes[type->dtype].size;
}

bool rp_dims_equal(const rp_type *a, const rp_type *b) {
  return a->rank == b->rank &&
         memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) == 0;
}

bool rp_type_equal(const rp_type *a, const rp_type *b) {
  return a->dtype == b->dtype && rp_dims_equal(a, b);
}

rp_status rp_type_check(rp_context *ctx, const char *op, const rp_type *type) {
  if (type->dtype < 0 || type->dtype >= RP_DTYPES)
    return rp_fail(ctx, RP_DTYPE, "[%s] dtype %d is none of the dtypes", op,
                   (int)type->dtype);
  if (type->rank < 0 || type->rank > RP_RANK)
    return rp_fail(ctx, RP_VALUE, "[%s] %d dims: from 0 to %d are possible",
                   op, (int)type->rank, RP_RANK);
  /* Zero dims do not hide an overflow: the non-zero ones are multiplied. */
  int64_t bytes = (int64_t)dtypes[type->dtype].size;
  for (int i = 0; i < type->rank; i++) {
    const int64_t dim = type->dims[i];
    if (dim < 0)
      return rp_fail(ctx, RP_VALUE, "[%s] dim %d is %lld: it must be >= 0",
                     op, i + 1, (long long)dim);
    if (dim > 0 && __builtin_mul_overflow(bytes, dim, &bytes)) {
      char text[RP_DIMS_TEXT];
      return rp_fail(ctx, RP_VALUE, "[%s] %s is too large: its size in bytes "
                     "does not fit in 63 bits", op, rp_dims_text(type, text));
    }
  }
  if (bytes > INT64_MAX - RP_ALIGN)
    return rp_fail(ctx, RP_VALUE, "[%s] the value is too large", op);
  return RP_OK;
}

const char *rp_dims_text(const rp_type *type, char buffer[RP_DIMS_TEXT]) {
  int at = snprintf(buffer, RP_DIMS_TEXT, "(");
  for (int i = 0; i < type->rank; i++)
    at += snprintf(buffer + at, (size_t)(RP_DIMS_TEXT - at), "%s%lld",
                   i ? "," : "", (long long)type->dims[i]);
  snprintf(buffer + at, (size_t)(RP_DIMS_TEXT - at), ")");
  return buffer;
}

void rp_strides_contiguous(const rp_type *type, rp_strides *out) {
  int64_t stride = 1;
  for (int i = type->rank - 1; i >= 0; i--) {
    out->at[i] = stride;
    stride *= type->dims[i];
  }
  out->offset = 0;
}

bool rp_strides_are_contiguous(const rp_type *type, const rp_strides *s) {
  int64_t stride = 1;
  for (int i = type->rank - 1; i >= 0; i--) {
    if (type->dims[i] != 1 && s->at[i] != stride) {
      /* An empty value has no element that could be out of place. */
      return rp_type_count(type) == 0;
    }
    stride *= type->dims[i];
  }
  return true;
}
