/* all_finite by the bits: an exponent of all ones is a NaN's or an infinity's.
   Which thread finds one makes no difference. */
#include "cpu/parallel.h"
#include "exec/backend.h"
#include "graph/op.h"

static rp_status answer(const rp_kernel_args *args, int bad) {
  *(uint8_t *)args->out[0].data = !bad;
  return RP_OK;
}

static rp_status all_finite_f32(const rp_kernel_args *args) {
  const uint32_t *restrict x = args->in[0].data;
  const int64_t n = rp_type_count(&args->in[0].type);
  int bad = 0;
#pragma omp parallel for simd schedule(static) reduction(| : bad) \
    if (rp_worth(n))
  for (int64_t i = 0; i < n; i++)
    bad |= (x[i] & 0x7f800000u) == 0x7f800000u;
  return answer(args, bad);
}

static rp_status all_finite_f64(const rp_kernel_args *args) {
  const uint64_t *restrict x = args->in[0].data;
  const uint64_t exponent = 0x7ff0000000000000u;
  const int64_t n = rp_type_count(&args->in[0].type);
  int bad = 0;
#pragma omp parallel for simd schedule(static) reduction(| : bad) \
    if (rp_worth(n))
  for (int64_t i = 0; i < n; i++) bad |= (x[i] & exponent) == exponent;
  return answer(args, bad);
}

static rp_status all_finite_bf16(const rp_kernel_args *args) {
  const uint16_t *restrict x = args->in[0].data;
  const int64_t n = rp_type_count(&args->in[0].type);
  int bad = 0;
#pragma omp parallel for simd schedule(static) reduction(| : bad) \
    if (rp_worth(n))
  for (int64_t i = 0; i < n; i++) bad |= (x[i] & 0x7f80u) == 0x7f80u;
  return answer(args, bad);
}

extern const rp_op rp_op_all_finite;

static const rp_kernel rows[] = {
    {&rp_op_all_finite, RP_F32, all_finite_f32, NULL, NULL},
    {&rp_op_all_finite, RP_F64, all_finite_f64, NULL, NULL},
    {&rp_op_all_finite, RP_BF16, all_finite_bf16, NULL, NULL},
};

const rp_kernel_table rp_cpu_finite = {rows, sizeof rows / sizeof *rows};
