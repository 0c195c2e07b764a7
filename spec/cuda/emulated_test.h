/* What the emulated device's tests share. */
#ifndef RP_EMULATED_TEST_H
#define RP_EMULATED_TEST_H

#include <vector>

#include "emulated.h"
#include "hooks.h"

#define CHECK(condition)                                                     \
  do {                                                                       \
    if (!(condition)) {                                                      \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);        \
      exit(1);                                                               \
    }                                                                        \
  } while (0)
#define OK(call) CHECK((call) == cudaSuccess)

template <typename... P, typename... A>
cudaError_t launch(const char *name, void (*kernel)(P...), dim3 grid,
                   dim3 block, size_t shared, cudaStream_t stream,
                   A... values) {
  return rp_emulated_launch(name, grid, block, shared, stream,
                            [=] { kernel(static_cast<P>(values)...); },
                            (const void *)kernel);
}

template <typename T> struct on_device {
  T *data;
  size_t count;
  explicit on_device(const std::vector<T> &values)
      : data(nullptr), count(values.size()) {
    OK(cudaMalloc((void **)&data, count * sizeof(T)));
    OK(cudaMemcpy(data, values.data(), count * sizeof(T),
                  cudaMemcpyHostToDevice));
  }
  ~on_device() { cudaFree(data); }
  std::vector<T> host() const {
    std::vector<T> values(count);
    OK(cudaDeviceSynchronize());
    OK(cudaMemcpy(values.data(), data, count * sizeof(T),
                  cudaMemcpyDeviceToHost));
    return values;
  }
};

/* Runs f under every order. */
template <typename F> inline void in_every_order(F f) {
  for (const char *order : {"forward", "reverse", "1", "2", "3"}) {
    rp_emulated_order(order);
    f();
  }
  rp_emulated_order("forward");
}

#endif
