/* For tests whose cases have names: the one at fault is in `name`. */
#ifndef RP_SPEC_CUDA_CHECK_H
#define RP_SPEC_CUDA_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                     \
  do {                                                                       \
    if (!(condition)) {                                                      \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, name,           \
              #condition);                                                   \
      exit(1);                                                               \
    }                                                                        \
  } while (0)

#endif
