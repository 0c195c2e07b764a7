/* all_finite by the bits: an exponent of all ones is a NaN's or an infinity's.
   Which thread finds one makes no difference. */
#include "cpu/parallel.h"
#include "exec/backend.h"
#include "graph/op.h"

static int found_f32(const uint32_t *restrict x, int64_t n) {
  int bad = 0;
#pragma omp parallel for simd schedule(static) reduction(| : bad) \
    if (rp_worth(n))
  for (int64_t i = 0; i < n; i++)
    bad |= (x[i] & 0x7f800000u) == 0x7f800000u;
  return bad;
}

static int found_f64(const uint64_t *restrict x, int64_t n) {
  const uint64_t exponent = 0x7ff0000000000000u;
  int bad = 0;
#pragma omp parallel for simd schedule(static) reduction(| : bad) \
    if (rp_worth(n))
  for (int64_t i = 0; i < n; i++) bad |= (x[i] & exponent) == exponent;
  return bad;
}

static int found_bf16(const uint16_t *restrict x, int64_t n) {
  int bad = 0;
#pragma omp parallel for simd schedule(static) reduction(| : bad) \
    if (rp_worth(n))
  for (int64_t i = 0; i < n; i++) bad |= (x[i] & 0x7f80u) == 0x7f80u;
  return bad;
}

static rp_status all_finite(const rp_kernel_args *args) {
  int bad = 0;
  for (int32_t k = 0; k < args->n_in && !bad; k++) {
    const void *x = args->in[k].data;
    const int64_t n = rp_type_count(&args->in[k].type);
    const int32_t dtype = args->in[k].type.dtype;
    bad = dtype == RP_F32   ? found_f32(x, n)
          : dtype == RP_F64 ? found_f64(x, n)
                            : found_bf16(x, n);
  }
  *(uint8_t *)args->out[0].data = !bad;
  return RP_OK;
}

extern const rp_op rp_op_all_finite;

static const rp_kernel rows[] = {
    {&rp_op_all_finite, RP_F32, all_finite, NULL, NULL},
    {&rp_op_all_finite, RP_F64, all_finite, NULL, NULL},
    {&rp_op_all_finite, RP_BF16, all_finite, NULL, NULL},
};

const rp_kernel_table rp_cpu_finite = {rows, sizeof rows / sizeof *rows};
