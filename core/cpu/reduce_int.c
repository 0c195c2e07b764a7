/* Reductions of integers and bools, in i64: sums wrap around as two's
   complement does. The layout is that of cpu/reduce.h; nothing is cut, since
   any order gives the same bits. */
#include "cpu/lanes.h"
#include "cpu/parallel.h"
#include "cpu/reduce.h"
#include "graph/op.h"

enum { TILE = 256 };

RP_INLINE int64_t load(const void *x, int32_t dtype, int64_t i) {
  switch (dtype) {
    case RP_I32: return ((const int32_t *)x)[i];
    case RP_I64: return ((const int64_t *)x)[i];
    default: return ((const uint8_t *)x)[i];
  }
}

static void store(void *y, int32_t dtype, int64_t i, int64_t value) {
  if (dtype == RP_I32) ((int32_t *)y)[i] = (int32_t)value;
  else ((int64_t *)y)[i] = value;
}

RP_INLINE int64_t step(rp_fold fold, int64_t a, int64_t x) {
  switch (fold) {
    case RP_FOLD_SUM: return (int64_t)((uint64_t)a + (uint64_t)x);
    case RP_FOLD_TOP: return x > a ? x : a;
    default: return x < a ? x : a;
  }
}

static int64_t start(rp_fold fold) {
  return fold == RP_FOLD_TOP      ? INT64_MIN
         : fold == RP_FOLD_BOTTOM ? INT64_MAX
                                  : 0;
}

RP_INLINE void reduce_as(rp_fold fold, int32_t dtype,
                         const rp_kernel_args *args) {
  const void *x = args->in[0].data;
  void *y = args->out[0].data;
  const int32_t y_dtype = args->out[0].type.dtype;
  rp_layout l;
  rp_layout_of(&l, &args->in[0].type, rp_reduced_set(args, 1));
  const int64_t width = l.rows ? 1 : l.run, run = l.rows ? l.run : 1;
  const int64_t tiles = (width + TILE - 1) / TILE;
#pragma omp parallel for schedule(static) \
    if (rp_worth(rp_type_count(&args->in[0].type)))
  for (int64_t item = 0; item < l.kept.count * tiles; item++) {
    const int64_t k = item / tiles, at = item % tiles * TILE;
    const int64_t m = width - at < TILE ? width - at : TILE;
    const int64_t base = rp_groups_offset(&l.kept, k) + at;
    int64_t acc[TILE];
    for (int64_t j = 0; j < m; j++) acc[j] = start(fold);
    for (int64_t r = 0; r < l.reduced.count; r++) {
      const int64_t from = base + rp_groups_offset(&l.reduced, r);
      for (int64_t i = 0; i < run; i++)
        for (int64_t j = 0; j < m; j++)
          acc[j] = step(fold, acc[j], load(x, dtype, from + i + j));
    }
    for (int64_t j = 0; j < m; j++)
      store(y, y_dtype, k * width + at + j, acc[j]);
  }
}

static rp_status run_sum(const rp_kernel_args *args) {
  const int32_t dtype = args->in[0].type.dtype;
  if (dtype == RP_I32) reduce_as(RP_FOLD_SUM, RP_I32, args);
  else if (dtype == RP_I64) reduce_as(RP_FOLD_SUM, RP_I64, args);
  else reduce_as(RP_FOLD_SUM, RP_BOOL, args);
  return RP_OK;
}

static rp_status run_max(const rp_kernel_args *args) {
  if (args->in[0].type.dtype == RP_I32) reduce_as(RP_FOLD_TOP, RP_I32, args);
  else reduce_as(RP_FOLD_TOP, RP_I64, args);
  return RP_OK;
}

static rp_status run_min(const rp_kernel_args *args) {
  if (args->in[0].type.dtype == RP_I32) reduce_as(RP_FOLD_BOTTOM, RP_I32, args);
  else reduce_as(RP_FOLD_BOTTOM, RP_I64, args);
  return RP_OK;
}

extern const rp_op rp_op_sum, rp_op_max, rp_op_min;

static const rp_kernel rows[] = {
    {&rp_op_sum, RP_I32, run_sum, NULL, NULL},
    {&rp_op_sum, RP_I64, run_sum, NULL, NULL},
    {&rp_op_sum, RP_BOOL, run_sum, NULL, NULL},
    {&rp_op_max, RP_I32, run_max, NULL, NULL},
    {&rp_op_max, RP_I64, run_max, NULL, NULL},
    {&rp_op_min, RP_I32, run_min, NULL, NULL},
    {&rp_op_min, RP_I64, run_min, NULL, NULL},
};
const rp_kernel_table rp_cpu_reduce_int = {rows, sizeof rows / sizeof *rows};
