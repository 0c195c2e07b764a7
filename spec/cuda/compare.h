/* One case on the CPU's row and on CUDA's. */
#ifndef RP_SPEC_CUDA_COMPARE_H
#define RP_SPEC_CUDA_COMPARE_H

#include "cases.h"
#include "device.h"

namespace cases {

const rp_kernel *cuda_row(const std::string &op, int32_t dtype);

/* How a CUDA row is run. */
struct manner {
  int over = -1;           /* the input that output 0 lies over */
  unsigned char rubbish = 0xff; /* what outputs and workspace held before */
  const char *order = "forward"; /* of the emulated device's threads */
  bool recorded = false;   /* captured and replayed */
  bool moved = false;      /* inputs lie an element behind an aligned place */
  bool faulty = false;     /* the fault is set before */
  int break_index = -1;    /* this range's first index is past its limit */
};

/* Outputs, then the inputs that the op writes, and after them, for what none
   may touch, "" or what was wrong with it. */
struct result {
  rp_status status;
  std::vector<bytes> values;
  rp_cuda_fault fault;
  std::string wrong;
};

result run_cuda(book &b, rp_cuda_device *device, const call &c,
                const rp_kernel *row, const manner &how);

/* "" or what is wrong with CUDA's row in this case. `again`: in which other
   ways it runs, bit 0 for a replay and bit 1 for inputs that moved. */
std::string compare(book &b, rp_cuda_device *device, const call &c,
                    unsigned again = 3);

/* "" or what is wrong with the row of these cases, one or more, when it runs
   all of them at once, several times over (rp_kernel.run_many, where it has
   that): with the bits of each alone. */
std::string compare_many(book &b, rp_cuda_device *device,
                         std::vector<call> all);

} // namespace cases

#endif
