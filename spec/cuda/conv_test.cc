/* cuda/wide_conv.h against sums in f64, in slices of the batch that the ops'
   own cases are too small for. */
#include <cmath>
#include <vector>

#include "check.h"
#include "opened.h"
#include "totals.h"
#include "wide_conv.h"

namespace {

/* bf16 values of the device, `shift` elements behind an aligned address. */
struct values {
  std::vector<uint16_t> host;
  uint16_t *root = nullptr;
  int shift;
  values(int64_t n, int shift, uint64_t seed) : host(n + shift), shift(shift) {
    for (uint16_t &each : host) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      each = rp_f32_to_bf16((float)(int64_t)(seed >> 40) * 0x1p-23f - 1);
    }
    must(cudaMalloc((void **)&root, host.size() * sizeof *root), "cudaMalloc");
    must(cudaMemcpy(root, host.data(), host.size() * sizeof *root,
                    cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  ~values() { cudaFree(root); }
  values(const values &) = delete;
  const void *data() const { return root + shift; }
  double at(int64_t i) const { return rp_bf16_to_f32(host[i + shift]); }
};

struct problem {
  const char *name;
  rp::conv_shape shape;
  int shift;
};

/* term(x, w, y) for the indices of every product of the convolution. */
template <typename F> void each_term(const rp::conv_shape &s, F term) {
  const rp_window &v = s.window;
  for (int64_t n = 0; n < s.n; n++)
    for (int64_t o = 0; o < s.groups * s.out; o++)
      for (int64_t c = 0; c < s.in; c++)
        for (int64_t i = 0; i < s.count[0]; i++)
          for (int64_t j = 0; j < s.count[1]; j++)
            for (int64_t a = 0; a < v.kernel[0]; a++)
              for (int64_t b = 0; b < v.kernel[1]; b++) {
                const int64_t row = i * v.stride[0] - v.pad[0] +
                                    a * v.dilation[0];
                const int64_t column = j * v.stride[1] - v.pad[1] +
                                       b * v.dilation[1];
                if (row < 0 || row >= s.size[0] || column < 0 ||
                    column >= s.size[1])
                  continue;
                const int64_t channel = o / s.out * s.in + c;
                term(((n * s.groups * s.in + channel) * s.size[0] + row) *
                             s.size[1] + column,
                     ((o * s.in + c) * v.kernel[0] + a) * v.kernel[1] + b,
                     ((n * s.groups * s.out + o) * s.count[0] + i) *
                             s.count[1] + j);
              }
}

enum { GUARD = 64 };

/* What f32 sums of the bf16 factors may be off by: a rounding of 2^-24 of the
   sum of their sizes for each. Returns the workspace's size. */
int64_t check(const problem &p, int64_t slice_bytes) {
  const char *name = p.name;
  const rp::conv_shape &s = p.shape;
  const bool makes_weight = s.kind == rp::CONV_GRAD_WEIGHT;
  const int64_t x_count = s.n * s.groups * s.in * s.size[0] * s.size[1];
  const int64_t w_count = s.groups * s.out * s.in * s.window.kernel[0] *
                          s.window.kernel[1];
  const int64_t y_count = s.n * s.groups * s.out * s.count[0] * s.count[1];
  const int64_t made_count = makes_weight ? w_count : x_count;
  const values dy(y_count, p.shift, 1),
      other(makes_weight ? x_count : w_count, p.shift, 2);
  rp_kernel_args args = {};
  args.device = open_device();
  rp::wide_conv *conv = nullptr;
  int64_t bytes = 0;
  CHECK(rp::wide_conv_make(&args, s, slice_bytes, &conv, &bytes) == RP_OK);
  std::vector<float> got(made_count + GUARD, -7);
  char *workspace = nullptr;
  float *made = nullptr;
  must(cudaMalloc((void **)&made, got.size() * sizeof *made), "cudaMalloc");
  must(cudaMemcpy(made, got.data(), got.size() * sizeof *made,
                  cudaMemcpyHostToDevice), "cudaMemcpy");
  must(cudaMalloc((void **)&workspace, (size_t)bytes + GUARD), "cudaMalloc");
  must(cudaMemset(workspace, 0xa5, (size_t)bytes + GUARD), "cudaMemset");
  must(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  CHECK(rp::wide_conv_run(conv, &args, dy.data(), other.data(), made,
                          workspace) == RP_OK);
  must(cudaStreamSynchronize(rp_cuda_of(&args)->stream), name);
  must(cudaMemcpy(got.data(), made, got.size() * sizeof *made,
                  cudaMemcpyDeviceToHost), "cudaMemcpy");
  unsigned char behind[GUARD];
  must(cudaMemcpy(behind, workspace + bytes, GUARD, cudaMemcpyDeviceToHost),
       "cudaMemcpy");
  rp::wide_conv_free(conv);
  cudaFree(made);
  cudaFree(workspace);

  std::vector<double> sums(made_count), sizes(made_count);
  std::vector<int64_t> terms(made_count);
  each_term(s, [&](int64_t x, int64_t w, int64_t y) {
    const double term = dy.at(y) * other.at(makes_weight ? x : w);
    const int64_t at = makes_weight ? w : x;
    sums[at] += term;
    sizes[at] += fabs(term);
    terms[at]++;
  });
  for (int64_t i = 0; i < made_count; i++)
    CHECK(fabs(got[i] - sums[i]) <=
          (double)(terms[i] + 2) * 0x1p-24 * sizes[i]);
  for (int i = 0; i < GUARD; i++)
    CHECK(got[made_count + i] == -7 && behind[i] == 0xa5);
  return bytes;
}

rp::conv_shape shape_of(rp::conv_kind kind, int64_t n, int64_t groups,
                        int64_t in, int64_t out, const int64_t (&size)[2],
                        const rp_window &window) {
  rp::conv_shape s = {};
  s.kind = kind;
  s.window = window;
  s.n = n;
  s.groups = groups;
  s.in = in;
  s.out = out;
  s.dtype = RP_BF16;
  for (int d = 0; d < 2; d++) {
    s.size[d] = size[d];
    s.count[d] = rp_window_count(&window, d, size[d], false);
  }
  return s;
}

} // namespace

int main() {
  if (!has_device()) {
    printf("skipped: no CUDA device\n");
    return 77;
  }
  /* kernel, stride, pad, dilation */
  const rp_window same = {{3, 3}, {1, 1}, {1, 1}, {1, 1}};
  const rp_window odd = {{3, 2}, {2, 1}, {0, 1}, {1, 2}};
  int passed = 0;
  for (rp::conv_kind kind : {rp::CONV_GRAD_INPUT, rp::CONV_GRAD_WEIGHT}) {
    const problem problems[] = {
        {"seven images", shape_of(kind, 7, 1, 3, 4, {6, 5}, same), 0},
        {"seven images from odd places, in groups",
         shape_of(kind, 7, 2, 3, 5, {9, 7}, odd), 1}};
    for (const problem &p : problems) {
      /* One at a time, by twos and threes with some left, all at once. */
      const rp::conv_shape &s = p.shape;
      const int64_t x = s.groups * s.in * s.size[0] * s.size[1];
      const int64_t y = s.groups * s.out * s.count[0] * s.count[1];
      int64_t bytes = check(p, 1);
      for (int64_t images : {1, 2, 3, 4, 6, 7, 100}) {
        const char *name = p.name;
        const int64_t more = check(p, images * (x + y) * 4);
        CHECK(more >= bytes);
        bytes = more;
        passed++;
      }
    }
  }
  say_totals(passed, 0);
  return 0;
}
