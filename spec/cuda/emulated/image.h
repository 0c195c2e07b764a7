/* What the emulated NVRTC makes and the emulated driver loads: this header,
   then the bytes of a shared library that has IMAGE_BINDER + name for each
   kernel. It is all there is of it: the program may go, and a copy may be kept
   in a file. */
#ifndef RP_EMULATED_IMAGE_H
#define RP_EMULATED_IMAGE_H

#include <cstdint>

#define IMAGE_MAGIC "RPEMUL1"
#define IMAGE_BINDER "rp_emulated_bind_"

struct image_header {
  char magic[8];
  uint64_t bytes;
};

#endif
