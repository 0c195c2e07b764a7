/* The sources of fused nodes through the real NVRTC, which needs no GPU:
   machine code for compute capabilities 8.0 and 9.0. Skipped where there is no
   libnvrtc. */
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <dlfcn.h>
#include <nvrtc.h>

#include "cases.h"
#include "compile.h"
#include "fused_text.h"

namespace {

enum { SKIPPED = 77 };

/* Beside the emulated device's functions of the same names. */
struct library {
  decltype(&::nvrtcCreateProgram) create;
  decltype(&::nvrtcCompileProgram) compile;
  decltype(&::nvrtcGetCUBINSize) cubin_size;
  decltype(&::nvrtcGetProgramLogSize) log_size;
  decltype(&::nvrtcGetProgramLog) log;
  decltype(&::nvrtcDestroyProgram) destroy;
};

template <typename F> bool find(void *from, const char *name, F *to) {
  *to = (F)dlsym(from, name);
  return *to != nullptr;
}

bool open_library(library *nvrtc) {
  void *from = nullptr;
  for (const char *name : {RP_NVRTC, "libnvrtc.so", "libnvrtc.so.13",
                           "libnvrtc.so.12"})
    if (from == nullptr) from = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  return from && find(from, "nvrtcCreateProgram", &nvrtc->create) &&
         find(from, "nvrtcCompileProgram", &nvrtc->compile) &&
         find(from, "nvrtcGetCUBINSize", &nvrtc->cubin_size) &&
         find(from, "nvrtcGetProgramLogSize", &nvrtc->log_size) &&
         find(from, "nvrtcGetProgramLog", &nvrtc->log) &&
         find(from, "nvrtcDestroyProgram", &nvrtc->destroy);
}

/* "" or the compiler's log. */
std::string compile(const library &nvrtc, const std::string &source,
                    int capability) {
  const char *texts[rp::COMPILE_HEADERS], *names[rp::COMPILE_HEADERS];
  for (int i = 0; i < rp::COMPILE_HEADERS; i++) {
    texts[i] = rp::compile_headers[i].text;
    names[i] = rp::compile_headers[i].name;
  }
  const std::vector<std::string> options = rp::compile_options(capability);
  std::vector<const char *> words;
  for (const std::string &option : options) words.push_back(option.c_str());
  nvrtcProgram program = nullptr;
  if (nvrtc.create(&program, source.c_str(), "fused.cu", rp::COMPILE_HEADERS,
                   texts, names) != NVRTC_SUCCESS)
    return "nvrtcCreateProgram fails";
  size_t size = 0;
  std::string wrong;
  if (nvrtc.compile(program, (int)words.size(), words.data()) !=
      NVRTC_SUCCESS) {
    nvrtc.log_size(program, &size);
    wrong.resize(size);
    nvrtc.log(program, &wrong[0]);
    wrong += " ";
  } else if (nvrtc.cubin_size(program, &size) != NVRTC_SUCCESS || size == 0) {
    wrong = "no machine code";
  }
  nvrtc.destroy(&program);
  return wrong;
}

std::string source_of(const cases::call &c) {
  std::vector<rp_array> in;
  for (const rp_tensor *t : c.in) in.push_back(cases::array_of(t, nullptr));
  const rp_array out = cases::array_like(&c.out[0], nullptr);
  rp_kernel_args args = {};
  args.in = in.data();
  args.n_in = (int32_t)in.size();
  args.out = &out;
  args.n_out = 1;
  args.fusion = c.fusion.get();
  return rp::fused_source(&args).source;
}

} // namespace

int main(int argc, char **argv) {
  library nvrtc;
  if (!open_library(&nvrtc)) {
    printf("skipped: no libnvrtc\n");
    return SKIPPED;
  }
  int n = 0, failures = 0;
  for (int dtype = 0; dtype < RP_DTYPES; dtype++) {
    cases::book book;
    for (const cases::call &c : book.of("fused", (rp_dtype)dtype)) {
      const std::string source = source_of(c);
      if (argc > 1) printf("%s\n", source.c_str());
      for (int capability : {80, 90}) {
        const std::string wrong = compile(nvrtc, source, capability);
        n++;
        if (wrong.empty()) continue;
        failures++;
        printf("not ok%s, sm_%d: %s\n%s\n", c.note.c_str(), capability,
               wrong.c_str(), source.c_str());
      }
    }
  }
  printf("%d compiled, %d failures\n", n, failures);
  return failures ? 1 : 0;
}
