#include "compile.h"

#include <map>
#include <mutex>
#include <utility>

#include <nvrtc.h>

#include "base/status.h"

/* kernels/scalar.h, made by CMake. */
extern "C" const char rp_cuda_scalar_text[];

namespace rp {

/* scalar.h takes two functions and a type of cuda_bf16.h, which is a file of
   the toolkit's: these are the same instructions. */
const header compile_headers[COMPILE_HEADERS] = {
    {"scalar.h", rp_cuda_scalar_text},
    {"cuda_bf16.h",
     "#ifdef RP_EMULATED\n"
     "#include_next <cuda_bf16.h>\n"
     "#endif\n"
     "#ifndef __CUDA_BF16_H__\n"
     "#define __CUDA_BF16_H__\n"
     "struct __nv_bfloat16 {\n"
     "  unsigned short bits;\n"
     "};\n"
     "static __device__ __forceinline__ float\n"
     "__bfloat162float(__nv_bfloat16 x) {\n"
     "  return __uint_as_float((unsigned)x.bits << 16);\n"
     "}\n"
     "static __device__ __forceinline__ __nv_bfloat16\n"
     "__float2bfloat16_rn(float x) {\n"
     "  __nv_bfloat16 y;\n"
     "  asm(\"cvt.rn.bf16.f32 %0, %1;\" : \"=h\"(y.bits) : \"f\"(x));\n"
     "  return y;\n"
     "}\n"
     "#endif\n"}};

std::vector<std::string> compile_options(int capability) {
  return {"--gpu-architecture=sm_" + std::to_string(capability),
          "--std=c++17", "--fmad=false"};
}

namespace {

std::string first_line(const std::string &log) {
  const size_t from = log.find_first_not_of("\r\n \t");
  if (from == std::string::npos) return "it says nothing";
  return log.substr(from, log.find_first_of("\r\n", from) - from);
}

rp_status nvrtc_failed(rp_context *ctx, const char *what, nvrtcResult result) {
  return rp_fail(ctx, result == NVRTC_ERROR_OUT_OF_MEMORY ? RP_NOMEM
                                                          : RP_INTERNAL,
                 "[fused] %s: NVRTC: %s", what, nvrtcGetErrorString(result));
}

/* The newest compute capability up to this one that NVRTC compiles for; this
   one where it has none or does not say. */
int newest(int capability) {
  int n = 0, best = 0;
  if (nvrtcGetNumSupportedArchs(&n) != NVRTC_SUCCESS || n < 1)
    return capability;
  std::vector<int> all((size_t)n);
  if (nvrtcGetSupportedArchs(all.data()) != NVRTC_SUCCESS) return capability;
  for (const int each : all)
    if (each <= capability && each > best) best = each;
  return best > 0 ? best : capability;
}

rp_status compile_in(rp_context *ctx, const char *what, nvrtcProgram program,
                     int capability, std::string &image) {
  /* A device that NVRTC does not know takes PTX, which the driver compiles. */
  const int most = newest(capability);
  const bool ptx = most != capability;
  std::vector<std::string> options = compile_options(most);
  if (ptx)
    options[0] = "--gpu-architecture=compute_" + std::to_string(most);
  std::vector<const char *> words;
  for (const std::string &option : options) words.push_back(option.c_str());
  nvrtcResult result =
      nvrtcCompileProgram(program, (int)words.size(), words.data());
  size_t size = 0;
  if (result == NVRTC_ERROR_COMPILATION) {
    std::string log;
    if (nvrtcGetProgramLogSize(program, &size) == NVRTC_SUCCESS) {
      log.resize(size);
      nvrtcGetProgramLog(program, &log[0]);
    }
    return rp_fail(ctx, RP_INTERNAL, "[fused] %s: NVRTC: %s", what,
                   first_line(log.c_str()).c_str());
  }
  if (result == NVRTC_SUCCESS)
    result = ptx ? nvrtcGetPTXSize(program, &size)
                 : nvrtcGetCUBINSize(program, &size);
  if (result == NVRTC_SUCCESS) {
    image.resize(size);
    result = ptx ? nvrtcGetPTX(program, &image[0])
                 : nvrtcGetCUBIN(program, &image[0]);
  }
  return result == NVRTC_SUCCESS ? RP_OK : nvrtc_failed(ctx, what, result);
}

rp_status compile(rp_context *ctx, const char *what, int capability,
                  const std::string &source, std::string &image) {
  const char *texts[COMPILE_HEADERS], *names[COMPILE_HEADERS];
  for (int i = 0; i < COMPILE_HEADERS; i++) {
    texts[i] = compile_headers[i].text;
    names[i] = compile_headers[i].name;
  }
  nvrtcProgram program = nullptr;
  const nvrtcResult result = nvrtcCreateProgram(
      &program, source.c_str(), "fused.cu", COMPILE_HEADERS, texts, names);
  if (result != NVRTC_SUCCESS) return nvrtc_failed(ctx, what, result);
  const rp_status status = compile_in(ctx, what, program, capability, image);
  nvrtcDestroyProgram(&program);
  return status;
}

/* Modules belong to a device. */
typedef std::pair<int, std::string> key;

} // namespace

rp_status module_of(rp_context *ctx, const rp_cuda_device *device,
                    const char *what, const std::string &source,
                    CUmodule *module) {
  static std::map<key, CUmodule> known;
  static std::mutex lock;
  const std::lock_guard<std::mutex> hold(lock);
  const key at(device->unit, source);
  const auto found = known.find(at);
  if (found != known.end()) {
    *module = found->second;
    return RP_OK;
  }
  const rp_cuda_driver *driver = rp_cuda_driver_get(ctx);
  if (driver == nullptr) return RP_UNSUPPORTED;
  std::string image;
  rp_status status = compile(ctx, what, device->capability, source, image);
  if (status == RP_OK)
    status = rp_cuda_ok(ctx, cudaSetDevice(device->unit), "cudaSetDevice");
  if (status == RP_OK)
    status = rp_cuda_driver_ok(
        ctx, driver->cuModuleLoadData(module, image.data()), what);
  if (status == RP_OK) known[at] = *module;
  return status;
}

} // namespace rp
