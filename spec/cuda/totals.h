/* How a test that is no cmocka test ends: in its words, which spec/run counts. */
#ifndef RP_SPEC_CUDA_TOTALS_H
#define RP_SPEC_CUDA_TOTALS_H

#include <stdio.h>

static inline void say_totals(int passed, int failed) {
  printf("[  PASSED  ] %d test(s).\n", passed);
  if (failed) printf("[  FAILED  ] %d test(s).\n", failed);
}

#endif
