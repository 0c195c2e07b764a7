/* The device's memory: addresses of one reserved range, which the host may
   touch only while work of the device runs. An allocation ends at (or less
   than 256 bytes before) a page that nobody may touch, and its addresses are
   used again as late as can be. */
#include <map>
#include <set>

#include <sys/mman.h>
#include <unistd.h>

#include "engine.h"

namespace {

const size_t PAGE = 4096, FILL_MOST = (size_t)64 << 20;

struct mapping {
  size_t bytes;
  bool accessible;
};
struct allocation {
  char *start;
  size_t address_bytes, charged;
};

char *range = nullptr;
size_t range_bytes = 0, range_next = 0;
std::map<char *, size_t> reserved;
std::map<char *, mapping> mappings;
std::map<char *, allocation> allocations; /* by what cudaMalloc gave */
std::map<char *, size_t> pinned;
unsigned long long limit = 0, used = 0, peak = 0;
int depth = 0;

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

unsigned long long total() {
  if (!limit) {
    const char *text = getenv("RP_EMULATED_BYTES");
    limit = text ? strtoull(text, nullptr, 10) : 0;
    if (!limit) limit = 16ull << 30;
  }
  return limit;
}

void protect(int protection) {
  for (auto &each : mappings)
    if (each.second.accessible)
      mprotect(each.first, each.second.bytes, protection);
}

bool make_range() {
  if (range) return true;
  for (range_bytes = (size_t)1 << 42; range_bytes >= (size_t)1 << 34;
       range_bytes >>= 1) {
    void *p = mmap(nullptr, range_bytes, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) continue;
    range = static_cast<char *>(p);
    return true;
  }
  return false;
}

/* As the driver: large blocks in units of 2 MiB, small ones share them. */
size_t charge(size_t bytes) {
  return bytes >= (size_t)1 << 20 ? round_up(bytes, (size_t)2 << 20)
                                  : round_up(bytes, 512);
}

cudaError_t allocate_host(void **p, size_t bytes) {
  *p = nullptr;
  if (bytes == 0) return cudaSuccess;
  const size_t room = round_up(bytes, PAGE);
  void *made = mmap(nullptr, room, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (made == MAP_FAILED) return cudaErrorMemoryAllocation;
  pinned[static_cast<char *>(made)] = room;
  *p = made;
  return cudaSuccess;
}

} // namespace

namespace emulated {

bool take_bytes(size_t bytes) {
  if (bytes > total() || used > total() - bytes) return false;
  used += bytes;
  if (used > peak) peak = used;
  return true;
}
void give_bytes(size_t bytes) { used -= bytes; }

cudaError_t load_code(const std::string &name) {
  static std::set<std::string> loaded;
  if (loaded.count(name)) return cudaSuccess;
  if (!take_bytes(CODE_BYTES)) return fail(cudaErrorMemoryAllocation);
  loaded.insert(name);
  return cudaSuccess;
}

char *reserve_addresses(size_t bytes, size_t alignment) {
  if (!make_range() || bytes == 0 || bytes > range_bytes) return nullptr;
  if (alignment < PAGE) alignment = PAGE;
  for (int pass = 0; pass < 2; pass++, range_next = 0) {
    char *at = range + range_next;
    for (;;) {
      at = (char *)round_up((uintptr_t)at, alignment);
      if (at + bytes > range + range_bytes) break;
      auto after = reserved.upper_bound(at);
      if (after != reserved.begin()) {
        auto before = std::prev(after);
        if (before->first + before->second > at) {
          at = before->first + before->second;
          continue;
        }
      }
      if (after != reserved.end() && at + bytes > after->first) {
        at = after->first + after->second;
        continue;
      }
      reserved[at] = bytes;
      range_next = at + bytes - range;
      return at;
    }
  }
  return nullptr;
}
void release_addresses(char *start, size_t bytes) {
  (void)bytes;
  reserved.erase(start);
}

bool map_bytes(char *start, size_t bytes, int fd, bool accessible) {
  const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
                           : MAP_SHARED | MAP_NORESERVE;
  void *p = mmap(start, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd,
                 0);
  if (p == MAP_FAILED) return false;
  /* What nobody wrote is NaN in every dtype, and -1. */
  if (fd < 0) memset(p, 0xff, bytes < FILL_MOST ? bytes : FILL_MOST);
  if (!depth || !accessible) mprotect(p, bytes, PROT_NONE);
  mappings[start] = mapping{bytes, accessible};
  return true;
}
void unmap_bytes(char *start) {
  auto found = mappings.find(start);
  if (found == mappings.end()) return;
  mmap(start, found->second.bytes, PROT_NONE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  mappings.erase(found);
}
size_t mapped_bytes(char *start) {
  auto found = mappings.find(start);
  return found == mappings.end() ? 0 : found->second.bytes;
}
void make_accessible(char *start, bool accessible) {
  auto found = mappings.find(start);
  if (found == mappings.end()) return;
  found->second.accessible = accessible;
  mprotect(start, found->second.bytes,
           depth && accessible ? PROT_READ | PROT_WRITE : PROT_NONE);
}

whose owner(const void *pointer) {
  char *p = static_cast<char *>(const_cast<void *>(pointer));
  if (range && p >= range && p < range + range_bytes) return DEVICE;
  auto after = pinned.upper_bound(p);
  if (after == pinned.begin()) return PAGEABLE;
  auto at = std::prev(after);
  return p < at->first + at->second ? PINNED : PAGEABLE;
}

bool is_on_device(const void *pointer, size_t bytes) {
  char *p = static_cast<char *>(const_cast<void *>(pointer));
  char *end = p + bytes;
  do {
    auto after = mappings.upper_bound(p);
    if (after == mappings.begin()) return false;
    auto at = std::prev(after);
    if (p >= at->first + at->second.bytes || !at->second.accessible)
      return false;
    p = at->first + at->second.bytes;
  } while (p < end);
  return true;
}

opened::opened() {
  if (depth++ == 0) protect(PROT_READ | PROT_WRITE);
}
opened::~opened() {
  if (--depth == 0) protect(PROT_NONE);
}

} // namespace emulated

using namespace emulated;

extern "C" {

cudaError_t cudaMalloc(void **p, size_t bytes) {
  RP_EMULATED_ALIVE();
  if (!p) return fail(cudaErrorInvalidValue);
  const cudaError_t refused = refuse_in_capture();
  if (refused != cudaSuccess) return fail(refused);
  *p = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (bytes > ((size_t)1 << 46)) return fail(cudaErrorMemoryAllocation);
  const size_t charged = charge(bytes);
  if (!take_bytes(charged)) return fail(cudaErrorMemoryAllocation);
  const size_t padded = round_up(bytes, 256), room = round_up(padded, PAGE);
  char *start = reserve_addresses(room + PAGE, PAGE);
  if (!start || !map_bytes(start, room, -1, true)) {
    if (start) release_addresses(start, room + PAGE);
    give_bytes(charged);
    return fail(cudaErrorMemoryAllocation);
  }
  char *given = start + room - padded;
  allocations[given] = allocation{start, room + PAGE, charged};
  *p = given;
  return cudaSuccess;
}

cudaError_t cudaFree(void *p) {
  RP_EMULATED_ALIVE();
  if (!p) return cudaSuccess;
  const cudaError_t refused = refuse_in_capture();
  if (refused != cudaSuccess) return fail(refused);
  auto found = allocations.find(static_cast<char *>(p));
  if (found == allocations.end()) return fail(cudaErrorInvalidValue);
  const cudaError_t error = drain_all();
  if (error != cudaSuccess) return fail(error);
  const allocation a = found->second;
  allocations.erase(found);
  unmap_bytes(a.start);
  release_addresses(a.start, a.address_bytes);
  give_bytes(a.charged);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
  RP_EMULATED_ALIVE();
  if (free_bytes) *free_bytes = total() > used ? total() - used : 0;
  if (total_bytes) *total_bytes = total();
  return cudaSuccess;
}

/* NVML's, which needs no context. RP_EMULATED_NVML=0: it is not there. */
struct nvmlMemory_st {
  unsigned long long total, free, used;
};
int nvmlInit_v2(void) {
  const char *text = getenv("RP_EMULATED_NVML");
  return text && !strcmp(text, "0") ? 12 : 0; /* NVML_ERROR_LIBRARY_NOT_FOUND */
}
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **device) {
  *device = nullptr;
  return strncmp(bus_id, "0000:", 5) ? 6 : 0; /* NVML_ERROR_NOT_FOUND */
}
int nvmlDeviceGetMemoryInfo(void *, nvmlMemory_st *memory) {
  memory->total = total();
  memory->used = used;
  memory->free = total() > used ? total() - used : 0;
  return 0;
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned) {
  RP_EMULATED_ALIVE();
  const cudaError_t refused = refuse_in_capture();
  if (refused != cudaSuccess) return fail(refused);
  const cudaError_t error = allocate_host(p, bytes);
  return error == cudaSuccess ? error : fail(error);
}
cudaError_t cudaMallocHost(void **p, size_t bytes) {
  return cudaHostAlloc(p, bytes, cudaHostAllocDefault);
}
cudaError_t cudaFreeHost(void *p) {
  RP_EMULATED_ALIVE();
  if (!p) return cudaSuccess;
  auto found = pinned.find(static_cast<char *>(p));
  if (found == pinned.end()) return fail(cudaErrorInvalidValue);
  const cudaError_t error = drain_all();
  munmap(p, found->second);
  pinned.erase(found);
  return error == cudaSuccess ? error : fail(error);
}
cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned) {
  RP_EMULATED_ALIVE();
  *device = nullptr;
  if (owner(host) != PINNED) return fail(cudaErrorInvalidValue);
  *device = host;
  return cudaSuccess;
}
cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned) {
  RP_EMULATED_ALIVE();
  if (!p || !bytes) return fail(cudaErrorInvalidValue);
  if (owner(p) != PAGEABLE) return fail(cudaErrorHostMemoryAlreadyRegistered);
  pinned[static_cast<char *>(p)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void *p) {
  RP_EMULATED_ALIVE();
  if (!pinned.erase(static_cast<char *>(p)))
    return fail(cudaErrorHostMemoryNotRegistered);
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes,
                                     const void *p) {
  RP_EMULATED_ALIVE();
  memset(attributes, 0, sizeof *attributes);
  const whose is = owner(p);
  attributes->type = is == DEVICE   ? cudaMemoryTypeDevice
                     : is == PINNED ? cudaMemoryTypeHost
                                    : cudaMemoryTypeUnregistered;
  attributes->device = is == PAGEABLE ? -2 : 0;
  attributes->devicePointer = is == PAGEABLE ? nullptr : const_cast<void *>(p);
  attributes->hostPointer = is == PINNED ? const_cast<void *>(p) : nullptr;
  return cudaSuccess;
}

void rp_emulated_limit(unsigned long long bytes) { limit = bytes; }
unsigned long long rp_emulated_used(void) { return used; }
unsigned long long rp_emulated_peak(void) { return peak; }

} // extern "C"
