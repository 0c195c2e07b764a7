/* Kernels of core/ops/binary.c. */
#include "kernels/elementwise.h"

namespace rp {
namespace {

RP_FUNCTION(add);
RP_FUNCTION(sub);
RP_FUNCTION(mul);
RP_FUNCTION(div);
RP_FUNCTION(pow);
RP_FUNCTION(maximum);
RP_FUNCTION(minimum);
RP_FUNCTION(bce_with_logits);

} // namespace

RP_ROWS(binary,
        RP_FLOATS(binary, add), RP_INTEGERS(binary, add),
        RP_FLOATS(binary, sub), RP_INTEGERS(binary, sub),
        RP_FLOATS(binary, mul), RP_INTEGERS(binary, mul),
        RP_FLOATS(binary, div), RP_INTEGERS(binary, div),
        RP_FLOATS(binary, pow), RP_INTEGERS(binary, pow),
        RP_FLOATS(binary, maximum), RP_INTEGERS(binary, maximum),
        RP_FLOATS(binary, minimum), RP_INTEGERS(binary, minimum),
        RP_FLOATS(binary, bce_with_logits));

} // namespace rp
