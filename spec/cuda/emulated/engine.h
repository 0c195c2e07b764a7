/* The emulated device's insides: what its files share. A process has one
   device; it is used from one thread at a time. */
#ifndef RP_EMULATED_ENGINE_H
#define RP_EMULATED_ENGINE_H

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "emulated.h"
#include "hooks.h"

namespace emulated {

/* ---- errors ------------------------------------------------------------- */

/* Notes the error for cudaGetLastError and returns it. */
cudaError_t fail(cudaError_t error);
/* A fault of the device: every later call returns it. `text` says more. */
cudaError_t lose(cudaError_t error, const std::string &text);
/* cudaSuccess, or what the device was lost to. */
cudaError_t lost();
#define RP_EMULATED_ALIVE()                                                  \
  do {                                                                       \
    if (emulated::lost() != cudaSuccess)                                     \
      return emulated::fail(emulated::lost());                               \
  } while (0)
CUresult driver_result(cudaError_t error);

/* ---- memory ------------------------------------------------------------- */

enum whose { PAGEABLE, PINNED, DEVICE };
/* Of the byte at p. */
whose owner(const void *p);
/* Whether all of it is device memory that is mapped and accessible. */
bool is_on_device(const void *p, size_t bytes);
/* Takes from the limit on device memory; false where there is not so much. */
bool take_bytes(size_t bytes);
void give_bytes(size_t bytes);
/* What CUDA takes for itself, bytes: a context and a library's handle when they
   are made, a kernel's code when it is launched first, a module when it is
   loaded, a graph by its nodes when it is uploaded. */
enum : size_t {
  CONTEXT_BYTES = (size_t)9 << 20,
  BLAS_BYTES = (size_t)2 << 20,
  DNN_BYTES = (size_t)5 << 20,
  CODE_BYTES = (size_t)64 << 10,
  MODULE_BYTES = (size_t)128 << 10,
  NODE_BYTES = (size_t)1 << 10
};
/* Loads a kernel's code where it is not there yet. */
cudaError_t load_code(const std::string &name);
/* Addresses that fault, a multiple of pages; NULL where there are none. */
char *reserve_addresses(size_t bytes, size_t alignment);
void release_addresses(char *start, size_t bytes);
/* Puts bytes at reserved addresses: the file's, or fresh ones for fd -1. */
bool map_bytes(char *start, size_t bytes, int fd, bool accessible);
void unmap_bytes(char *start);
/* Of the mapping that starts there; 0 where none does. */
size_t mapped_bytes(char *start);
void make_accessible(char *start, bool accessible);
/* While one lives, the host sees the device's memory. */
struct opened {
  opened();
  ~opened();
};

/* ---- fibers ------------------------------------------------------------- */

/* Runs every block; waits for nothing. */
cudaError_t run_grid(const std::string &name, dim3 grid, dim3 block,
                     size_t shared_bytes, const std::function<void()> &thread);
/* Runs f, a library's own loops over device memory; a bad address in it is
   reported like a kernel's. */
cudaError_t run_guarded(const std::string &name,
                        const std::function<void()> &f);

/* Which of n things that may go next goes next, by the chosen order. */
size_t pick(size_t n);

/* ---- queues ------------------------------------------------------------- */

typedef std::function<cudaError_t()> operation;
/* Puts an operation at the end of the stream, or into the graph that it
   captures. `counts`: rp_emulated_fail_launch may fail it. */
cudaError_t enqueue(cudaStream_t stream, const std::string &name, bool counts,
                    operation run);
/* Library calls: enqueue a guarded f. */
cudaError_t enqueue_library(cudaStream_t stream, const std::string &name,
                            std::function<void()> f);
/* Runs all that is queued. */
cudaError_t drain(cudaStream_t stream);
/* The stream itself: 0 and the legacy handle are one. */
cudaStream_t resolve(cudaStream_t stream);
cudaError_t drain_all();
/* The error of a call that may not happen while anything is captured in a mode
   that forbids it, which also ends the capture; cudaSuccess. */
cudaError_t refuse_in_capture();
bool is_capturing(cudaStream_t stream);
/* The limit on dynamic shared memory that cudaFuncSetAttribute set. */
size_t shared_limit(const void *function);

} // namespace emulated

#endif
