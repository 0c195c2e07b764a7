/* Kernels of core/ops/compare.c: relations, logic and selection. */
#include "kernels/elementwise.h"

namespace rp {
namespace {

RP_FUNCTION(eq);
RP_FUNCTION(ne);
RP_FUNCTION(lt);
RP_FUNCTION(le);
RP_FUNCTION(gt);
RP_FUNCTION(ge);
RP_FUNCTION(logical_and);
RP_FUNCTION(logical_or);
RP_FUNCTION(logical_not);
RP_FUNCTION(where);
RP_FUNCTION(masked_fill);

template <typename F, typename T>
rp_status relation(const rp_kernel_args *args) {
  const rp_array *const in[] = {&args->in[0], &args->in[1]};
  return map<uint8_t, T, T>(args, F::name, F(args), in);
}

template <typename T> rp_status choose(const rp_kernel_args *args) {
  const rp_array *const in[] = {&args->in[0], &args->in[1], &args->in[2]};
  return map<T, uint8_t, T, T>(args, where_function::name,
                               where_function(args), in);
}
/* Its row is known by the condition's dtype. f64 is moved as i64. */
rp_status where(const rp_kernel_args *args) {
  switch (args->out[0].type.dtype) {
    case RP_F64: case RP_I64: return choose<int64_t>(args);
    case RP_I32: return choose<int32_t>(args);
    case RP_BOOL: return choose<uint8_t>(args);
    default: return choose<either>(args);
  }
}

template <typename T> rp_status fill(const rp_kernel_args *args) {
  const rp_array *const in[] = {&args->in[0], &args->in[1], &args->in[2]};
  return map<T, T, uint8_t, T>(args, masked_fill_function::name,
                               masked_fill_function(args), in);
}

} // namespace

#define RP_RELATION(op)                                                      \
  RP_FLOATS(relation, op), RP_INTEGERS(relation, op),                        \
      row(#op, RP_BOOL, relation<op##_function, integer>)

RP_ROWS(compare,
        RP_RELATION(eq), RP_RELATION(ne), RP_RELATION(lt), RP_RELATION(le),
        RP_RELATION(gt), RP_RELATION(ge),
        row("logical_and", RP_BOOL, binary<logical_and_function, uint8_t>),
        row("logical_or", RP_BOOL, binary<logical_or_function, uint8_t>),
        row("logical_not", RP_BOOL, unary<logical_not_function, uint8_t>),
        row("where", RP_BOOL, where),
        row("masked_fill", RP_F32, fill<either>),
        row("masked_fill", RP_BF16, fill<either>),
        row("masked_fill", RP_F64, fill<int64_t>),
        row("masked_fill", RP_I32, fill<int32_t>),
        row("masked_fill", RP_I64, fill<int64_t>),
        row("masked_fill", RP_BOOL, fill<uint8_t>));

} // namespace rp
