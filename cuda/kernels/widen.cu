/* bf16 as f32, for cuda/wide_conv.h. */
#include "kernels/pack.h"
#include "wide_conv.h"

namespace rp {

namespace {

/* Neighbours a thread widens: 16 bytes on their way out. */
enum { V = 4 };

__global__ void __launch_bounds__(BLOCK)
widen_kernel(const bf16 *from, float *to, int64_t count, bool aligned) {
  RP_EACH(i, (count + V - 1) / V) {
    const int64_t at = i * V;
    if (at + V <= count) {
      const pack<bf16, V> p = read_pack<bf16, V>(from + at, aligned);
      pack<float, V> q;
      for (int k = 0; k < V; k++) q.at[k] = widen<bf16>(p.at[k]);
      write_pack(to + at, q, true);
    } else {
      for (int64_t k = at; k < count; k++) to[k] = widen<bf16>(from[k]);
    }
  }
}

} // namespace

rp_status widen(const rp_kernel_args *args, const void *from, float *to,
                int64_t count) {
  return launch(args, "widen", widen_kernel, grid_for((count + V - 1) / V),
                BLOCK, 0, static_cast<const bf16 *>(from), to, count,
                is_aligned(from, V * sizeof(bf16)));
}

} // namespace rp
