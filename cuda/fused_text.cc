/* A fused node's kernels as source text over kernels/scalar.h. Each part is a
   call of the function that the part's own row calls, on the same values, and
   its result is rounded to the part's dtype: a fused node has the bits of its
   parts run one by one.

   Dims and strides are constants in the text, so that index arithmetic is by
   multiplication; where every operand is contiguous or one value, there are
   none, and one text serves every size. */
#include "fused_text.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace rp {
namespace {

/* Dims innermost first, neighbours merged where all operands go on through
   them with one stride, as walk<N> does. */
struct grid {
  int rank;
  int64_t dims[RP_RANK], strides[FUSED_OPERANDS][RP_RANK];
};

int64_t stride_along(const rp_array *in, int rank, int d) {
  const int at = d - (rank - in->type.rank);
  return at < 0 || in->type.dims[at] == 1 ? 0 : in->strides[at];
}

grid grid_of(const rp_kernel_args *args) {
  grid g = {};
  const rp_type *out = &args->out->type;
  for (int d = out->rank - 1; d >= 0; d--) {
    if (out->dims[d] == 1) continue;
    bool merges = g.rank > 0;
    for (int j = 0; j < args->n_in && merges; j++)
      merges = stride_along(&args->in[j], out->rank, d) ==
               g.strides[j][g.rank - 1] * g.dims[g.rank - 1];
    if (merges) {
      g.dims[g.rank - 1] *= out->dims[d];
      continue;
    }
    g.dims[g.rank] = out->dims[d];
    for (int j = 0; j < args->n_in; j++)
      g.strides[j][g.rank] = stride_along(&args->in[j], out->rank, d);
    g.rank++;
  }
  return g;
}

bool is_fixed(const grid &g, int j) {
  return g.rank == 0 || g.strides[j][0] == 0;
}

int size_of(const rp_type &type) {
  return (int)rp_dtype_size((rp_dtype)type.dtype);
}

/* Elements that one thread takes: 16 bytes of the narrowest array, at most 8,
   and whole blocks of random words. 0 where packs would cross rows, or an
   operand's elements are no neighbours. */
int pack_of(const rp_kernel_args *args, const grid &g, bool random) {
  int narrowest = size_of(args->out->type);
  for (int j = 0; j < args->n_in; j++)
    if (!is_fixed(g, j) && size_of(args->in[j].type) < narrowest)
      narrowest = size_of(args->in[j].type);
  int pack = 16 / narrowest < 8 ? 16 / narrowest : 8;
  if (random && pack < 4) pack = 4;
  for (int j = 0; j < args->n_in; j++) {
    if (is_fixed(g, j)) continue;
    if (g.strides[j][0] != 1) return 0;
    for (int d = 1; d < g.rank; d++)
      if (g.strides[j][d] % pack) return 0;
  }
  return g.rank > 1 && g.dims[0] % pack ? 0 : pack;
}

int alignment(int size, int pack) {
  return size * pack < 16 ? size * pack : 16;
}

/* ---- text --------------------------------------------------------------- */

void say(std::string &s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void say(std::string &s, const char *format, ...) {
  char line[512];
  va_list list;
  va_start(list, format);
  vsnprintf(line, sizeof line, format, list);
  va_end(list);
  s += line;
}

const char *type_name(int32_t dtype) {
  switch (dtype) {
    case RP_F32: return "float";
    case RP_F64: return "double";
    case RP_BF16: return "bf16";
    case RP_I32: return "int32_t";
    case RP_I64: return "int64_t";
    default: return "uint8_t";
  }
}

/* An attribute, to the last bit. */
std::string real_text(double value) {
  char text[64];
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (std::isfinite(value)) snprintf(text, sizeof text, "%a", value);
  else snprintf(text, sizeof text, "__longlong_as_double(0x%llxLL)",
                (unsigned long long)bits);
  return text;
}

std::string operand_text(const rp_part &part, int k) {
  char text[32];
  const int j = part.in[k];
  snprintf(text, sizeof text, j < 0 ? "widen(v%d)" : "widen(x%d)",
           j < 0 ? -1 - j : j);
  return text;
}

/* What part computes, in the wide type. */
std::string part_text(const rp_part &part) {
  const char *name = part.op->name;
  const std::string x = operand_text(part, 0);
  const std::string type = std::string("wide<") +
                           type_name(part.type.dtype) + ">";
  if (strcmp(name, "cast") == 0) return "scalar::cast<" + type + ">(" + x + ")";
  if (strcmp(name, "dropout") == 0) {
    const std::string p = real_text(part.reals[0]);
    return "scalar::dropout(" + x + ", word, scalar::dropout_bound(" + p +
           "), scalar::dropout_scale<" + type + ">(" + p + "))";
  }
  std::string text = std::string("scalar::") + name + "(" + x;
  for (int k = 1; k < part.n_in; k++) text += ", " + operand_text(part, k);
  for (int k = 0; k < part.n_reals; k++)
    text += ", " + real_text(part.reals[k]);
  return text + ")";
}

/* out_type chain(x0, x1, ..., word) */
void say_chain(std::string &s, const rp_kernel_args *args) {
  const rp_fusion *f = args->fusion;
  say(s, "static __device__ __forceinline__ %s chain(",
      type_name(args->out->type.dtype));
  for (int j = 0; j < args->n_in; j++)
    say(s, "%s x%d, ", type_name(args->in[j].type.dtype), j);
  s += "uint32_t word) {\n";
  for (int i = 0; i < f->n; i++) {
    const char *type = type_name(f->parts[i].type.dtype);
    say(s, "  const %s v%d = narrow<%s>(", type, i, type);
    s += part_text(f->parts[i]) + ");\n";
  }
  say(s, "  return v%d;\n}\n", f->n - 1);
}

void say_parameters(std::string &s, const rp_kernel_args *args,
                    const char *kernel) {
  say(s, "extern \"C\" __global__ void __launch_bounds__(256) %s(\n    ",
      kernel);
  for (int j = 0; j < args->n_in; j++)
    say(s, "const %s *in%d, ", type_name(args->in[j].type.dtype), j);
  say(s, "%s *out,\n    const uint64_t *draw, int64_t first, int64_t count) "
         "{\n", type_name(args->out->type.dtype));
}

/* at<j>: where element i of operand j is. */
void say_offsets(std::string &s, const grid &g, int n_in, int64_t count) {
  const char *type = count <= INT32_MAX ? "uint32_t" : "int64_t";
  if (g.rank > 1) {
    say(s, "    %s rest = (%s)i;\n", type, type);
    for (int d = 0; d < g.rank; d++) {
      if (d + 1 == g.rank) {
        say(s, "    const int64_t i%d = rest;\n", d);
      } else {
        say(s, "    const int64_t i%d = rest %% (%s)%lldLL;\n", d, type,
            (long long)g.dims[d]);
        say(s, "    rest /= (%s)%lldLL;\n", type, (long long)g.dims[d]);
      }
    }
  }
  for (int j = 0; j < n_in; j++) {
    say(s, "    const int64_t at%d = 0", j);
    for (int d = 0; d < g.rank; d++) {
      if (g.strides[j][d] == 0) continue;
      if (g.rank == 1) s += " + i";
      else say(s, " + i%d", d);
      if (g.strides[j][d] != 1)
        say(s, " * %lldLL", (long long)g.strides[j][d]);
    }
    s += ";\n";
  }
}

void say_each(std::string &s, const rp_kernel_args *args, const grid &g,
              int64_t count, bool random) {
  say_parameters(s, args, "fused_each");
  s += "  const int64_t step = (int64_t)gridDim.x * 256;\n"
       "  for (int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; i < count;"
       "\n       i += step) {\n";
  say_offsets(s, g, args->n_in, count);
  s += "    out[i] = chain(";
  for (int j = 0; j < args->n_in; j++) say(s, "in%d[at%d], ", j, j);
  s += random ? "philox_word(draw, (uint64_t)(first + i)));\n" : "0);\n";
  s += "  }\n}\n";
}

/* All of a thread's operands are read before its output is written, which may
   lie over one of them. */
void say_packs(std::string &s, const rp_kernel_args *args, const grid &g,
               int64_t count, int pack, bool random) {
  const char *out = type_name(args->out->type.dtype);
  s += "template <typename T, int A> struct alignas(A) pack {\n";
  say(s, "  T at[%d];\n};\n", pack);
  say_parameters(s, args, "fused_packs");
  say(s, "  const int64_t step = (int64_t)gridDim.x * 256, packs = count / %d;"
         "\n  for (int64_t p = (int64_t)blockIdx.x * 256 + threadIdx.x; "
         "p < packs;\n       p += step) {\n    const int64_t i = p * %d;\n",
      pack, pack);
  say_offsets(s, g, args->n_in, count);
  for (int j = 0; j < args->n_in; j++) {
    const char *type = type_name(args->in[j].type.dtype);
    const int aligned = alignment(size_of(args->in[j].type), pack);
    if (is_fixed(g, j))
      say(s, "    const %s x%d = in%d[at%d];\n", type, j, j, j);
    else
      say(s, "    const pack<%s, %d> x%d = *(const pack<%s, %d> *)(in%d + "
             "at%d);\n", type, aligned, j, type, aligned, j, j);
  }
  if (random) {
    say(s, "    uint32_t words[%d];\n", pack);
    say(s, "    for (int k = 0; k < %d; k += 4) {\n", pack);
    s += "      const uint4 w = philox(draw, (uint64_t)(first + i + k) / 4);\n"
         "      words[k] = w.x, words[k + 1] = w.y;\n"
         "      words[k + 2] = w.z, words[k + 3] = w.w;\n    }\n";
  }
  const int aligned = alignment(size_of(args->out->type), pack);
  say(s, "    pack<%s, %d> y;\n#pragma unroll\n", out, aligned);
  say(s, "    for (int k = 0; k < %d; k++)\n      y.at[k] = chain(", pack);
  for (int j = 0; j < args->n_in; j++)
    say(s, is_fixed(g, j) ? "x%d, " : "x%d.at[k], ", j);
  s += random ? "words[k]);\n" : "0);\n";
  say(s, "    *(pack<%s, %d> *)(out + i) = y;\n  }\n", out, aligned);
  if (g.rank <= 1) { /* else packs are whole rows' */
    say(s, "  for (int64_t i = packs * %d + (int64_t)blockIdx.x * 256 + "
           "threadIdx.x;\n       i < count; i += step) {\n", pack);
    say_offsets(s, g, args->n_in, count);
    s += "    out[i] = chain(";
    for (int j = 0; j < args->n_in; j++) say(s, "in%d[at%d], ", j, j);
    s += random ? "philox_word(draw, (uint64_t)(first + i)));\n" : "0);\n";
    s += "  }\n";
  }
  s += "}\n";
}

} // namespace

fused_text fused_source(const rp_kernel_args *args) {
  fused_text text = {};
  const rp_fusion *f = args->fusion;
  for (int i = 0; i < f->n; i++)
    text.random = text.random || f->parts[i].op->flags & RP_RANDOM;
  const grid g = grid_of(args);
  text.count = rp_type_count(&args->out->type);
  text.pack = pack_of(args, g, text.random);
  for (int j = 0; j < args->n_in; j++)
    text.aligned[j] = is_fixed(g, j) || text.pack == 0
                          ? 1 : alignment(size_of(args->in[j].type), text.pack);
  text.out_aligned =
      text.pack ? alignment(size_of(args->out->type), text.pack) : 1;

  std::string &s = text.source;
  s = "#include \"scalar.h\"\nusing namespace rp;\n";
  say_chain(s, args);
  say_each(s, args, g, text.count, text.random);
  if (text.pack) say_packs(s, args, g, text.count, text.pack, text.random);
  return text;
}

} // namespace rp
