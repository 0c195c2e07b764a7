/* Source text made at run time to kernels: NVRTC, and a cache for the
   process. */
#ifndef RP_CUDA_COMPILE_H
#define RP_CUDA_COMPILE_H

#include <string>
#include <vector>

#include "driver.h"

namespace rp {

/* What such a source may include: scalar.h, and what that includes. */
struct header {
  const char *name, *text;
};
extern const header compile_headers[];
enum { COMPILE_HEADERS = 2 };

/* For devices of this compute capability. */
std::vector<std::string> compile_options(int capability);

/* The module of this source on this device, compiled when it is first asked
   for; `what` names it in messages. Lives as long as the process. */
rp_status module_of(rp_context *ctx, const rp_cuda_device *device,
                    const char *what, const std::string &source,
                    CUmodule *module);

} // namespace rp

#endif
