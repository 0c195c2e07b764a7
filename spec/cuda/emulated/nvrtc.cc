/* NVRTC by g++. Kernels are `extern "C" __global__ void name(...)`; arguments
   are of any types, since each kernel's binder is compiled beside it.

   As with NVRTC nothing of the host's headers is there: an #include is of a
   header that was given to nvrtcCreateProgram or lies in a directory that an
   option names. Names that emulated.h brings along (int64_t, sqrt of std) are
   there all the same: compile with the real library too. Of cuda_bf16.h the
   toolkit's is taken, whatever was given: a substitute has a device's
   instructions in it. */
#include <set>

#include <dlfcn.h>
#include <nvrtc.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine.h"
#include "image.h"

struct _nvrtcProgram {
  std::string source, name, log, image;
  std::vector<std::pair<std::string, std::string>> headers;
};

namespace {

bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

std::string without_comments(const std::string &s) {
  std::string out;
  for (size_t i = 0; i < s.size(); i++) {
    if (!s.compare(i, 2, "//")) {
      while (i < s.size() && s[i] != '\n') i++;
    } else if (!s.compare(i, 2, "/*")) {
      i = s.find("*/", i + 2);
      if (i == std::string::npos) break;
      i++;
      out += ' ';
      continue;
    }
    if (i < s.size()) out += s[i];
  }
  return out;
}

/* The names after __global__: the last word before the parameters, where
   __launch_bounds__(...) is not the parameters. */
std::vector<std::string> kernels_of(const std::string &commented) {
  const std::string s = without_comments(commented);
  std::vector<std::string> names;
  for (size_t at = s.find("__global__"); at != std::string::npos;
       at = s.find("__global__", at + 1)) {
    size_t i = at + strlen("__global__");
    std::string word, last;
    for (; i < s.size(); i++) {
      if (is_word(s[i])) {
        word += s[i];
        continue;
      }
      if (!word.empty()) last = word;
      word.clear();
      if (s[i] == ';' || s[i] == '{') break;
      if (s[i] != '(') continue;
      if (last != "__launch_bounds__") {
        names.push_back(last);
        break;
      }
      int depth = 0;
      do {
        depth += s[i] == '(' ? 1 : s[i] == ')' ? -1 : 0;
        i++;
      } while (depth && i < s.size());
      i--;
    }
  }
  return names;
}

bool is_ours(const std::string &header) { return header == "cuda_bf16.h"; }

bool write_file(const std::string &path, const std::string &text) {
  FILE *f = fopen(path.c_str(), "wb");
  if (!f) return false;
  const bool wrote = fwrite(text.data(), 1, text.size(), f) == text.size();
  return fclose(f) == 0 && wrote;
}
std::string read_file(const std::string &path) {
  std::string text;
  FILE *f = fopen(path.c_str(), "rb");
  if (!f) return text;
  char buffer[65536];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, f)) > 0;)
    text.append(buffer, n);
  fclose(f);
  return text;
}

std::string quoted(const std::string &s) {
  std::string out = "'";
  for (char c : s)
    if (c == '\'')
      out += "'\\''";
    else
      out += c;
  return out + "'";
}

/* The first include that a device's compiler would not find. */
std::string missing_include(const _nvrtcProgram *program,
                            const std::vector<std::string> &directories) {
  const std::string s = without_comments(program->source);
  for (size_t at = s.find("#include"); at != std::string::npos;
       at = s.find("#include", at + 1)) {
    const size_t open = s.find_first_of("<\"", at);
    const size_t close =
        open == std::string::npos ? open : s.find_first_of(">\"", open + 1);
    if (close == std::string::npos) return "#include";
    const std::string name = s.substr(open + 1, close - open - 1);
    bool found = false;
    for (const auto &header : program->headers) found |= header.first == name;
    for (const std::string &directory : directories)
      found |= access((directory + "/" + name).c_str(), R_OK) == 0;
    if (!found) return name;
  }
  return "";
}

nvrtcResult refuse(_nvrtcProgram *program, const std::string &log,
                   nvrtcResult result) {
  program->log = log;
  return result;
}

} // namespace

extern "C" {

const char *nvrtcGetErrorString(nvrtcResult result) {
  switch (result) {
  case NVRTC_SUCCESS: return "NVRTC_SUCCESS";
  case NVRTC_ERROR_OUT_OF_MEMORY: return "NVRTC_ERROR_OUT_OF_MEMORY";
  case NVRTC_ERROR_INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
  case NVRTC_ERROR_INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
  case NVRTC_ERROR_INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
  case NVRTC_ERROR_COMPILATION: return "NVRTC_ERROR_COMPILATION";
  default: return "NVRTC_ERROR unknown";
  }
}
nvrtcResult nvrtcVersion(int *major, int *minor) {
  *major = CUDART_VERSION / 1000;
  *minor = CUDART_VERSION % 1000 / 10;
  return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetNumSupportedArchs(int *count) {
  *count = 2;
  return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetSupportedArchs(int *archs) {
  archs[0] = 80;
  archs[1] = 90;
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCreateProgram(nvrtcProgram *program, const char *source,
                               const char *name, int headers,
                               const char *const *texts,
                               const char *const *names) {
  if (!program || !source || headers < 0) return NVRTC_ERROR_INVALID_INPUT;
  *program = new _nvrtcProgram;
  (*program)->source = source;
  (*program)->name = name ? name : "default_program";
  for (int i = 0; i < headers; i++)
    (*program)->headers.emplace_back(names[i], texts[i]);
  return NVRTC_SUCCESS;
}
nvrtcResult nvrtcDestroyProgram(nvrtcProgram *program) {
  if (!program || !*program) return NVRTC_ERROR_INVALID_PROGRAM;
  delete *program;
  *program = nullptr;
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int n,
                                const char *const *options) {
  if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
  program->log.clear();
  program->image.clear();
  std::vector<std::string> directories;
  std::string flags;
  for (int i = 0; i < n; i++) {
    std::string option = options[i];
    const auto starts = [&](const char *with) {
      return option.compare(0, strlen(with), with) == 0;
    };
    if (option == "-I" || option == "-D" || option == "-arch" ||
        option == "-std") {
      if (i + 1 == n)
        return refuse(program, "nvrtc: error: " + option + " needs a value\n",
                      NVRTC_ERROR_INVALID_OPTION);
      option += options[++i];
    }
    if (starts("-I") || starts("--include-path="))
      directories.push_back(option.substr(option[1] == 'I' ? 2 : 15));
    else if (starts("-D") || starts("--define-macro="))
      flags += " -D" + quoted(option.substr(option[1] == 'D' ? 2 : 15));
    else if (option[0] != '-')
      return refuse(program, "nvrtc: error: invalid option '" + option + "'\n",
                    NVRTC_ERROR_INVALID_OPTION);
  }
  const std::string unknown = missing_include(program, directories);
  if (!unknown.empty())
    return refuse(program,
                  program->name + ": catastrophic error: cannot open source "
                                  "file \"" + unknown + "\"\n",
                  NVRTC_ERROR_COMPILATION);

  const char *temporary = getenv("TMPDIR");
  std::string directory =
      std::string(temporary ? temporary : "/tmp") + "/rp-emulated-XXXXXX";
  if (!mkdtemp(&directory[0]))
    return refuse(program, directory + ": cannot be made\n",
                  NVRTC_ERROR_OUT_OF_MEMORY);
  const std::string source = directory + "/kernel.cc";
  const std::string library = directory + "/kernel.so";
  const std::string log = directory + "/log";
  std::string text = "#line 1 \"" + program->name + "\"\n" + program->source +
                     "\n#line 1 \"binders\"\n";
  for (const std::string &each : kernels_of(program->source))
    text += "extern \"C\" RP_EMULATED_API void " IMAGE_BINDER + each +
            "(void **p, std::function<void()> *bound) { rp_emulated_bind(" +
            each + ", p, bound); }\n";
  bool wrote = write_file(source, text);
  for (const auto &header : program->headers)
    wrote = wrote && (is_ours(header.first) ||
                      write_file(directory + "/" + header.first, header.second));
  Dl_info own;
  if (!dladdr(reinterpret_cast<void *>(&rp_emulated_launch), &own)) abort();
  std::string command = RP_EMULATED_COMPILER " " RP_EMULATED_FLAGS;
  command += flags + " -I" + quoted(directory);
  for (const std::string &each : directories)
    command += " -isystem " + quoted(each);
  /* A program that holds the device itself exports what modules need. */
  std::string against = own.dli_fname;
  if (against.find(".so") == std::string::npos) against.clear();
  command += " -shared -o " + quoted(library) + " " + quoted(source) + " " +
             (against.empty() ? "" : "-x none " + quoted(against)) + " > " +
             quoted(log) + " 2>&1";
  const int status = wrote ? system(command.c_str()) : -1;
  program->log = read_file(log);
  const std::string bytes = status == 0 ? read_file(library) : "";
  for (const auto &header : program->headers)
    unlink((directory + "/" + header.first).c_str());
  unlink(source.c_str());
  unlink(library.c_str());
  unlink(log.c_str());
  rmdir(directory.c_str());
  if (bytes.empty()) return NVRTC_ERROR_COMPILATION;
  image_header header = {};
  memcpy(header.magic, IMAGE_MAGIC, sizeof header.magic);
  header.bytes = bytes.size();
  program->image.assign(reinterpret_cast<char *>(&header), sizeof header);
  program->image += bytes;
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t *bytes) {
  if (!program || program->image.empty()) return NVRTC_ERROR_INVALID_PROGRAM;
  *bytes = program->image.size();
  return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char *image) {
  if (!program || program->image.empty()) return NVRTC_ERROR_INVALID_PROGRAM;
  memcpy(image, program->image.data(), program->image.size());
  return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetPTXSize(nvrtcProgram program, size_t *bytes) {
  return nvrtcGetCUBINSize(program, bytes);
}
nvrtcResult nvrtcGetPTX(nvrtcProgram program, char *image) {
  return nvrtcGetCUBIN(program, image);
}
nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *bytes) {
  if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
  *bytes = program->log.size() + 1;
  return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char *log) {
  if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
  memcpy(log, program->log.c_str(), program->log.size() + 1);
  return NVRTC_SUCCESS;
}

} // extern "C"
