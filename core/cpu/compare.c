/* Kernels of core/ops/compare.c: relations, logic and selection. */
#include "cpu/elementwise.h"

/* ---- comparisons --------------------------------------------------------- */

typedef enum relation { EQ, NE, LT, LE, GT, GE } relation;

static inline uint8_t holds(relation r, bool less, bool equal, bool greater) {
  switch (r) {
    case EQ: return equal;
    case NE: return !equal;
    case LT: return less;
    case LE: return less | equal;
    case GT: return greater;
    default: return greater | equal;
  }
}

RP_INLINE void loop_f32(const rp_row *row, int64_t sa, int64_t sb,
                        relation r) {
  const float *a = row->in[0], *b = row->in[1];
  uint8_t *y = row->out;
  const int64_t n = row->n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++)
    y[i] = holds(r, a[i * sa] < b[i * sb], a[i * sa] == b[i * sb],
                 a[i * sa] > b[i * sb]);
}
RP_INLINE void compare_f32(const rp_row *row, relation r) {
  switch (rp_row_pair(row)) {
    case RP_BOTH: loop_f32(row, 1, 1, r); break;
    case RP_FIRST_FIXED: loop_f32(row, 0, 1, r); break;
    case RP_SECOND_FIXED: loop_f32(row, 1, 0, r); break;
    default: loop_f32(row, row->strides[0], row->strides[1], r);
  }
}

RP_INLINE void loop_f64(const rp_row *row, int64_t sa, int64_t sb,
                        relation r) {
  const double *a = row->in[0], *b = row->in[1];
  uint8_t *y = row->out;
  const int64_t n = row->n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++)
    y[i] = holds(r, a[i * sa] < b[i * sb], a[i * sa] == b[i * sb],
                 a[i * sa] > b[i * sb]);
}
RP_INLINE void compare_f64(const rp_row *row, relation r) {
  switch (rp_row_pair(row)) {
    case RP_BOTH: loop_f64(row, 1, 1, r); break;
    case RP_FIRST_FIXED: loop_f64(row, 0, 1, r); break;
    case RP_SECOND_FIXED: loop_f64(row, 1, 0, r); break;
    default: loop_f64(row, row->strides[0], row->strides[1], r);
  }
}

RP_INLINE void loop_i32(const rp_row *row, int64_t sa, int64_t sb,
                        relation r) {
  const int32_t *a = row->in[0], *b = row->in[1];
  uint8_t *y = row->out;
  const int64_t n = row->n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++)
    y[i] = holds(r, a[i * sa] < b[i * sb], a[i * sa] == b[i * sb],
                 a[i * sa] > b[i * sb]);
}
RP_INLINE void compare_i32(const rp_row *row, relation r) {
  switch (rp_row_pair(row)) {
    case RP_BOTH: loop_i32(row, 1, 1, r); break;
    case RP_FIRST_FIXED: loop_i32(row, 0, 1, r); break;
    case RP_SECOND_FIXED: loop_i32(row, 1, 0, r); break;
    default: loop_i32(row, row->strides[0], row->strides[1], r);
  }
}

RP_INLINE void loop_i64(const rp_row *row, int64_t sa, int64_t sb,
                        relation r) {
  const int64_t *a = row->in[0], *b = row->in[1];
  uint8_t *y = row->out;
  const int64_t n = row->n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++)
    y[i] = holds(r, a[i * sa] < b[i * sb], a[i * sa] == b[i * sb],
                 a[i * sa] > b[i * sb]);
}
RP_INLINE void compare_i64(const rp_row *row, relation r) {
  switch (rp_row_pair(row)) {
    case RP_BOTH: loop_i64(row, 1, 1, r); break;
    case RP_FIRST_FIXED: loop_i64(row, 0, 1, r); break;
    case RP_SECOND_FIXED: loop_i64(row, 1, 0, r); break;
    default: loop_i64(row, row->strides[0], row->strides[1], r);
  }
}

RP_INLINE void loop_bool(const rp_row *row, int64_t sa, int64_t sb,
                         relation r) {
  const uint8_t *a = row->in[0], *b = row->in[1];
  uint8_t *y = row->out;
  const int64_t n = row->n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++)
    y[i] = holds(r, a[i * sa] < b[i * sb], a[i * sa] == b[i * sb],
                 a[i * sa] > b[i * sb]);
}
RP_INLINE void compare_bool(const rp_row *row, relation r) {
  switch (rp_row_pair(row)) {
    case RP_BOTH: loop_bool(row, 1, 1, r); break;
    case RP_FIRST_FIXED: loop_bool(row, 0, 1, r); break;
    case RP_SECOND_FIXED: loop_bool(row, 1, 0, r); break;
    default: loop_bool(row, row->strides[0], row->strides[1], r);
  }
}

static void eq_f32(const rp_row *row) { compare_f32(row, EQ); }
static void eq_f64(const rp_row *row) { compare_f64(row, EQ); }
static void eq_i32(const rp_row *row) { compare_i32(row, EQ); }
static void eq_i64(const rp_row *row) { compare_i64(row, EQ); }
static void eq_bool(const rp_row *row) { compare_bool(row, EQ); }
static rp_status run_eq(const rp_kernel_args *args) {
  static const rp_rows rows = {eq_f32, eq_f64, eq_i32, eq_i64, eq_bool};
  return rp_rows_run_typed(args, &rows);
}

static void ne_f32(const rp_row *row) { compare_f32(row, NE); }
static void ne_f64(const rp_row *row) { compare_f64(row, NE); }
static void ne_i32(const rp_row *row) { compare_i32(row, NE); }
static void ne_i64(const rp_row *row) { compare_i64(row, NE); }
static void ne_bool(const rp_row *row) { compare_bool(row, NE); }
static rp_status run_ne(const rp_kernel_args *args) {
  static const rp_rows rows = {ne_f32, ne_f64, ne_i32, ne_i64, ne_bool};
  return rp_rows_run_typed(args, &rows);
}

static void lt_f32(const rp_row *row) { compare_f32(row, LT); }
static void lt_f64(const rp_row *row) { compare_f64(row, LT); }
static void lt_i32(const rp_row *row) { compare_i32(row, LT); }
static void lt_i64(const rp_row *row) { compare_i64(row, LT); }
static void lt_bool(const rp_row *row) { compare_bool(row, LT); }
static rp_status run_lt(const rp_kernel_args *args) {
  static const rp_rows rows = {lt_f32, lt_f64, lt_i32, lt_i64, lt_bool};
  return rp_rows_run_typed(args, &rows);
}

static void le_f32(const rp_row *row) { compare_f32(row, LE); }
static void le_f64(const rp_row *row) { compare_f64(row, LE); }
static void le_i32(const rp_row *row) { compare_i32(row, LE); }
static void le_i64(const rp_row *row) { compare_i64(row, LE); }
static void le_bool(const rp_row *row) { compare_bool(row, LE); }
static rp_status run_le(const rp_kernel_args *args) {
  static const rp_rows rows = {le_f32, le_f64, le_i32, le_i64, le_bool};
  return rp_rows_run_typed(args, &rows);
}

static void gt_f32(const rp_row *row) { compare_f32(row, GT); }
static void gt_f64(const rp_row *row) { compare_f64(row, GT); }
static void gt_i32(const rp_row *row) { compare_i32(row, GT); }
static void gt_i64(const rp_row *row) { compare_i64(row, GT); }
static void gt_bool(const rp_row *row) { compare_bool(row, GT); }
static rp_status run_gt(const rp_kernel_args *args) {
  static const rp_rows rows = {gt_f32, gt_f64, gt_i32, gt_i64, gt_bool};
  return rp_rows_run_typed(args, &rows);
}

static void ge_f32(const rp_row *row) { compare_f32(row, GE); }
static void ge_f64(const rp_row *row) { compare_f64(row, GE); }
static void ge_i32(const rp_row *row) { compare_i32(row, GE); }
static void ge_i64(const rp_row *row) { compare_i64(row, GE); }
static void ge_bool(const rp_row *row) { compare_bool(row, GE); }
static rp_status run_ge(const rp_kernel_args *args) {
  static const rp_rows rows = {ge_f32, ge_f64, ge_i32, ge_i64, ge_bool};
  return rp_rows_run_typed(args, &rows);
}

/* ---- logic --------------------------------------------------------------- */

/* A bool is 0 or 1. */
RP_INLINE void logic(const rp_row *row, uint8_t (*f)(uint8_t, uint8_t)) {
  const uint8_t *a = row->in[0], *b = row->in[1];
  uint8_t *y = row->out;
  const int64_t n = row->n, sa = row->strides[0], sb = row->strides[1];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) y[i] = f(a[i * sa], b[i * sb]);
}
static inline uint8_t both(uint8_t a, uint8_t b) { return a & b; }
static inline uint8_t either(uint8_t a, uint8_t b) { return a | b; }
static inline uint8_t opposite(uint8_t a, uint8_t b) { return (void)b, !a; }

static void and_bool(const rp_row *row) { logic(row, both); }
static rp_status run_logical_and(const rp_kernel_args *args) {
  return rp_rows_run(args, and_bool);
}
static void or_bool(const rp_row *row) { logic(row, either); }
static rp_status run_logical_or(const rp_kernel_args *args) {
  return rp_rows_run(args, or_bool);
}
static void not_bool(const rp_row *row) {
  const uint8_t *x = row->in[0];
  uint8_t *y = row->out;
  const int64_t n = row->n, s = row->strides[0];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) y[i] = x[i * s] == 0;
}
static rp_status run_logical_not(const rp_kernel_args *args) {
  return rp_rows_run(args, not_bool);
}

/* ---- where, masked_fill -------------------------------------------------- */

/* Selection moves bits: one loop for each element size. The strides are
   constants in the loops that matter. */
RP_INLINE void select_8(const rp_row *row, int64_t sc, int64_t sa,
                        int64_t sb) {
  const uint8_t *c = row->in[0];
  const uint8_t *a = row->in[1], *b = row->in[2];
  uint8_t *y = row->out;
  const int64_t n = row->n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    const uint8_t mask = (uint8_t)-(uint8_t)c[i * sc];
    y[i] = (a[i * sa] & mask) | (b[i * sb] & (uint8_t)~mask);
  }
}
static void where_8(const rp_row *row) {
  const int64_t sc = row->strides[0], sa = row->strides[1];
  const int64_t sb = row->strides[2];
  if (sc == 1 && sa == 1 && sb == 1) select_8(row, 1, 1, 1);
  else if (sc == 1 && sa == 1 && sb == 0) select_8(row, 1, 1, 0);
  else if (sc == 1 && sa == 0 && sb == 1) select_8(row, 1, 0, 1);
  else if (sc == 0 && sa == 1 && sb == 1) select_8(row, 0, 1, 1);
  else select_8(row, sc, sa, sb);
}
RP_INLINE void select_16(const rp_row *row, int64_t sc, int64_t sa,
                         int64_t sb) {
  const uint8_t *c = row->in[0];
  const uint16_t *a = row->in[1], *b = row->in[2];
  uint16_t *y = row->out;
  const int64_t n = row->n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    const uint16_t mask = (uint16_t)-(uint16_t)c[i * sc];
    y[i] = (a[i * sa] & mask) | (b[i * sb] & (uint16_t)~mask);
  }
}
static void where_16(const rp_row *row) {
  const int64_t sc = row->strides[0], sa = row->strides[1];
  const int64_t sb = row->strides[2];
  if (sc == 1 && sa == 1 && sb == 1) select_16(row, 1, 1, 1);
  else if (sc == 1 && sa == 1 && sb == 0) select_16(row, 1, 1, 0);
  else if (sc == 1 && sa == 0 && sb == 1) select_16(row, 1, 0, 1);
  else if (sc == 0 && sa == 1 && sb == 1) select_16(row, 0, 1, 1);
  else select_16(row, sc, sa, sb);
}
RP_INLINE void select_32(const rp_row *row, int64_t sc, int64_t sa,
                         int64_t sb) {
  const uint8_t *c = row->in[0];
  const uint32_t *a = row->in[1], *b = row->in[2];
  uint32_t *y = row->out;
  const int64_t n = row->n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    const uint32_t mask = (uint32_t)-(uint32_t)c[i * sc];
    y[i] = (a[i * sa] & mask) | (b[i * sb] & (uint32_t)~mask);
  }
}
static void where_32(const rp_row *row) {
  const int64_t sc = row->strides[0], sa = row->strides[1];
  const int64_t sb = row->strides[2];
  if (sc == 1 && sa == 1 && sb == 1) select_32(row, 1, 1, 1);
  else if (sc == 1 && sa == 1 && sb == 0) select_32(row, 1, 1, 0);
  else if (sc == 1 && sa == 0 && sb == 1) select_32(row, 1, 0, 1);
  else if (sc == 0 && sa == 1 && sb == 1) select_32(row, 0, 1, 1);
  else select_32(row, sc, sa, sb);
}
RP_INLINE void select_64(const rp_row *row, int64_t sc, int64_t sa,
                         int64_t sb) {
  const uint8_t *c = row->in[0];
  const uint64_t *a = row->in[1], *b = row->in[2];
  uint64_t *y = row->out;
  const int64_t n = row->n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    const uint64_t mask = (uint64_t)-(uint64_t)c[i * sc];
    y[i] = (a[i * sa] & mask) | (b[i * sb] & (uint64_t)~mask);
  }
}
static void where_64(const rp_row *row) {
  const int64_t sc = row->strides[0], sa = row->strides[1];
  const int64_t sb = row->strides[2];
  if (sc == 1 && sa == 1 && sb == 1) select_64(row, 1, 1, 1);
  else if (sc == 1 && sa == 1 && sb == 0) select_64(row, 1, 1, 0);
  else if (sc == 1 && sa == 0 && sb == 1) select_64(row, 1, 0, 1);
  else if (sc == 0 && sa == 1 && sb == 1) select_64(row, 0, 1, 1);
  else select_64(row, sc, sa, sb);
}

/* masked_fill(x, mask, value) is where(mask, value, x). */
RP_INLINE void turned(const rp_row *row, rp_row_function *where) {
  rp_row own = *row;
  for (int i = 0; i < 3; i++) {
    own.in[i] = row->in[(i + 1) % 3];
    own.strides[i] = row->strides[(i + 1) % 3];
  }
  where(&own);
}
static void fill_8(const rp_row *row) { turned(row, where_8); }
static void fill_16(const rp_row *row) { turned(row, where_16); }
static void fill_32(const rp_row *row) { turned(row, where_32); }
static void fill_64(const rp_row *row) { turned(row, where_64); }

typedef rp_row_function *sized[4]; /* for 1, 2, 4 and 8 bytes */

/* Selects from inputs a and b. Of bf16 and f32, f32 comes out. */
static rp_status select(const rp_kernel_args *args, int a, int b,
                        const sized functions) {
  const size_t size = rp_dtype_size((rp_dtype)args->out->type.dtype);
  rp_row_function *function =
      functions[size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3];
  return args->in[a].type.dtype == args->in[b].type.dtype
             ? rp_rows_run(args, function)
             : rp_rows_run_narrow(args, function);
}
static rp_status run_where(const rp_kernel_args *args) {
  static const sized functions = {where_8, where_16, where_32, where_64};
  return select(args, 1, 2, functions);
}
static rp_status run_masked_fill(const rp_kernel_args *args) {
  static const sized functions = {fill_8, fill_16, fill_32, fill_64};
  return select(args, 2, 0, functions);
}

/* ---- rows ---------------------------------------------------------------- */

extern const rp_op rp_op_eq, rp_op_ne, rp_op_lt, rp_op_le, rp_op_gt, rp_op_ge,
    rp_op_logical_and, rp_op_logical_or, rp_op_logical_not, rp_op_where,
    rp_op_masked_fill;

static const rp_kernel rows[] = {
    {&rp_op_eq, RP_F32, run_eq, NULL, NULL},
    {&rp_op_eq, RP_F64, run_eq, NULL, NULL},
    {&rp_op_eq, RP_BF16, run_eq, NULL, NULL},
    {&rp_op_eq, RP_I32, run_eq, NULL, NULL},
    {&rp_op_eq, RP_I64, run_eq, NULL, NULL},
    {&rp_op_eq, RP_BOOL, run_eq, NULL, NULL},
    {&rp_op_ne, RP_F32, run_ne, NULL, NULL},
    {&rp_op_ne, RP_F64, run_ne, NULL, NULL},
    {&rp_op_ne, RP_BF16, run_ne, NULL, NULL},
    {&rp_op_ne, RP_I32, run_ne, NULL, NULL},
    {&rp_op_ne, RP_I64, run_ne, NULL, NULL},
    {&rp_op_ne, RP_BOOL, run_ne, NULL, NULL},
    {&rp_op_lt, RP_F32, run_lt, NULL, NULL},
    {&rp_op_lt, RP_F64, run_lt, NULL, NULL},
    {&rp_op_lt, RP_BF16, run_lt, NULL, NULL},
    {&rp_op_lt, RP_I32, run_lt, NULL, NULL},
    {&rp_op_lt, RP_I64, run_lt, NULL, NULL},
    {&rp_op_lt, RP_BOOL, run_lt, NULL, NULL},
    {&rp_op_le, RP_F32, run_le, NULL, NULL},
    {&rp_op_le, RP_F64, run_le, NULL, NULL},
    {&rp_op_le, RP_BF16, run_le, NULL, NULL},
    {&rp_op_le, RP_I32, run_le, NULL, NULL},
    {&rp_op_le, RP_I64, run_le, NULL, NULL},
    {&rp_op_le, RP_BOOL, run_le, NULL, NULL},
    {&rp_op_gt, RP_F32, run_gt, NULL, NULL},
    {&rp_op_gt, RP_F64, run_gt, NULL, NULL},
    {&rp_op_gt, RP_BF16, run_gt, NULL, NULL},
    {&rp_op_gt, RP_I32, run_gt, NULL, NULL},
    {&rp_op_gt, RP_I64, run_gt, NULL, NULL},
    {&rp_op_gt, RP_BOOL, run_gt, NULL, NULL},
    {&rp_op_ge, RP_F32, run_ge, NULL, NULL},
    {&rp_op_ge, RP_F64, run_ge, NULL, NULL},
    {&rp_op_ge, RP_BF16, run_ge, NULL, NULL},
    {&rp_op_ge, RP_I32, run_ge, NULL, NULL},
    {&rp_op_ge, RP_I64, run_ge, NULL, NULL},
    {&rp_op_ge, RP_BOOL, run_ge, NULL, NULL},
    {&rp_op_logical_and, RP_BOOL, run_logical_and, NULL, NULL},
    {&rp_op_logical_or, RP_BOOL, run_logical_or, NULL, NULL},
    {&rp_op_logical_not, RP_BOOL, run_logical_not, NULL, NULL},
    {&rp_op_where, RP_BOOL, run_where, NULL, NULL},
    {&rp_op_masked_fill, RP_F32, run_masked_fill, NULL, NULL},
    {&rp_op_masked_fill, RP_F64, run_masked_fill, NULL, NULL},
    {&rp_op_masked_fill, RP_I32, run_masked_fill, NULL, NULL},
    {&rp_op_masked_fill, RP_I64, run_masked_fill, NULL, NULL},
    {&rp_op_masked_fill, RP_BOOL, run_masked_fill, NULL, NULL},
    {&rp_op_masked_fill, RP_BF16, run_masked_fill, NULL, NULL},
};
const rp_kernel_table rp_cpu_compare = {rows, sizeof rows / sizeof *rows};
