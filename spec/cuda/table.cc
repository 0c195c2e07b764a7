/* The cases of every op, family by family. Sizes: odd ones, 1, 0, and enough
   for several blocks; inputs of ops that take strides lie in every way that a
   view can. */
#include <cmath>
#include <cstring>

#include "writer.h"

namespace cases {
namespace {

enum { MANY = 20011 }; /* elements: several blocks and an odd end */

const lie strided[] = {lie::offset, lie::transposed, lie::stepped,
                       lie::columns, lie::expanded};

typedef std::vector<double> real_list;

/* ---- elementwise -------------------------------------------------------- */

void unary_with(writer &w, const dims &ints, const real_list &reals, fill f,
                bool all) {
  w.add({w.leaf({7, 33}, f)}, ints, reals);
  w.add({w.leaf({MANY}, f)}, ints, reals);
  if (!all) return;
  for (const dims &d : {dims{}, dims{1}, dims{0, 3}, dims{3, 1, 5}})
    w.add({w.leaf(d, f)}, ints, reals);
  for (lie how : strided)
    for (const dims &d :
         {dims{5, 12}, dims{2, 3, 4, 7}, dims{65, 130}, dims{9, 64}})
      w.add({w.view(how, d, f)}, ints, reals, "view");
}

void unary_of(writer &w, fill f, const real_list &reals = {}) {
  unary_with(w, {}, reals, f, true);
  unary_with(w, {}, reals, fill::special, false);
}
void unary(writer &w) { unary_of(w, fill::any); }
void unary_positive(writer &w) { unary_of(w, fill::positive); }

void pow_scalar(writer &w) {
  unary_of(w, fill::any, {3});
  for (double p : {0.0, 1.0, 2.0, -1.0, -2.0, 17.0})
    unary_with(w, {}, {p}, fill::any, false);
  if (!w.is_float()) return;
  for (double p : {0.5, -0.5, 2.3, -1.7})
    unary_with(w, {}, {p}, fill::positive, false);
}

void clamp(writer &w) {
  unary_of(w, fill::any, {-0.5, 1});
  unary_with(w, {}, {-3, 2.5}, fill::any, false);
  if (w.is_float()) unary_with(w, {}, {-INFINITY, 0}, fill::any, false);
}

void dropout(writer &w) {
  unary_of(w, fill::any, {0.3});
  for (double p : {0.0, 0.5, 1.0}) unary_with(w, {}, {p}, fill::any, false);
}

void cast(writer &w) {
  for (int64_t to = 0; to < RP_DTYPES; to++) {
    unary_with(w, {to}, {}, fill::any, to == RP_BF16 || to == RP_F32);
    unary_with(w, {to}, {}, fill::special, false);
    if (w.is_float()) unary_with(w, {to}, {}, fill::wide, false);
  }
}

/* f of two inputs, whose second is filled otherwise. */
void pairs(writer &w, const real_list &reals, fill f, fill g, bool mixes) {
  w.add({w.leaf({7, 33}, f), w.leaf({7, 33}, g)}, {}, reals);
  w.add({w.leaf({MANY}, f), w.leaf({MANY}, g)}, {}, reals);
  w.add({w.leaf({}, f), w.leaf({}, g)}, {}, reals);
  w.add({w.leaf({4, 0}, f), w.leaf({4, 0}, g)}, {}, reals);
  w.add({w.leaf({4, 0}, f), w.leaf({1, 1}, g)}, {}, reals);
  w.add({w.leaf({5, 7}, f), w.leaf({7}, g)}, {}, reals);
  w.add({w.leaf({7}, f), w.leaf({5, 7}, g)}, {}, reals);
  w.add({w.leaf({4, 1, 6}, f), w.leaf({3, 1}, g)}, {}, reals);
  w.add({w.leaf({3, 5, 1}, f), w.leaf({1, 5, 9}, g)}, {}, reals);
  w.add({w.leaf({9, 64}, f), w.leaf({64}, g)}, {}, reals);
  w.add({w.leaf({9, 1}, f), w.leaf({3, 9, 64}, g)}, {}, reals);
  w.add({w.leaf({130, 67}, f), w.leaf({}, g)}, {}, reals);
  w.add({w.leaf({}, f), w.leaf({130, 67}, g)}, {}, reals);
  for (lie how : strided) {
    w.add({w.view(how, {5, 12}, f), w.leaf({5, 12}, g)}, {}, reals, "view");
    w.add({w.leaf({2, 5, 12}, f), w.view(how, {5, 12}, g)}, {}, reals, "view");
    w.add({w.view(how, {65, 130}, f), w.view(how, {65, 130}, g)}, {}, reals,
          "views");
  }
  if (!mixes || (w.dtype != RP_BF16 && w.dtype != RP_F32)) return;
  const int other = w.dtype == RP_BF16 ? RP_F32 : RP_BF16;
  w.add({w.leaf({7, 33}, f), w.leaf({7, 33}, g, other)}, {}, reals, "mixed");
  w.add({w.leaf({5, 7}, f), w.leaf({7}, g, other)}, {}, reals, "mixed");
  w.add({w.leaf({9, 64}, f), w.leaf({64}, g, other)}, {}, reals, "mixed");
  w.add({w.view(lie::offset, {65, 130}, f),
         w.view(lie::offset, {65, 130}, g, other)}, {}, reals, "mixed");
  if (w.dtype == RP_BF16)
    w.add({w.leaf({65, 31}, f), w.number(0.7, RP_F32)}, {}, reals, "number");
}

void pairs_special(writer &w, const real_list &reals = {}) {
  w.add({w.leaf({MANY}, fill::special), w.leaf({MANY}, fill::special)}, {},
        reals);
}

void binary(writer &w) {
  pairs(w, {}, fill::any, fill::any, true);
  pairs_special(w);
}
void division(writer &w) {
  pairs(w, {}, fill::any, fill::positive, true);
  pairs_special(w);
  w.add({w.leaf({MANY}), w.leaf({MANY})});
}
void power(writer &w) {
  pairs(w, {}, fill::positive, fill::any, true);
  w.add({w.leaf({MANY}), w.leaf({MANY})});
  pairs_special(w);
}
void clamp_grad(writer &w) {
  pairs(w, {-0.5, 1}, fill::any, fill::any, true);
  pairs_special(w, {-1, 0});
}
void logical(writer &w) { pairs(w, {}, fill::any, fill::any, false); }

void where(writer &w) {
  for (int as = 0; as < RP_DTYPES; as++) {
    const auto c = [&](const dims &d) { return w.leaf(d); };
    w.add({c({7, 33}), w.leaf({7, 33}, fill::special, as),
           w.leaf({7, 33}, fill::any, as)});
    w.add({c({MANY}), w.leaf({MANY}, fill::any, as),
           w.leaf({MANY}, fill::any, as)});
    w.add({c({}), w.leaf({}, fill::any, as), w.leaf({}, fill::any, as)});
    w.add({c({3, 0}), w.leaf({3, 1}, fill::any, as),
           w.leaf({1}, fill::any, as)});
    w.add({c({5, 1, 7}), w.leaf({4, 1}, fill::any, as),
           w.leaf({}, fill::any, as)});
    w.add({w.view(lie::offset, {65, 130}),
           w.view(lie::transposed, {65, 130}, fill::any, as),
           w.view(lie::columns, {130}, fill::any, as)}, {}, {}, "views");
  }
  for (int as : {(int)RP_F32, (int)RP_BF16})
    w.add({w.leaf({7, 33}), w.leaf({7, 33}, fill::any, as),
           w.leaf({33}, fill::any, as == RP_F32 ? RP_BF16 : RP_F32)}, {}, {},
          "mixed");
}

void masked_fill(writer &w) {
  const auto one = [&](rp_tensor *x, const dims &mask) {
    w.add({x, w.leaf(mask, fill::any, RP_BOOL), w.leaf({})});
  };
  one(w.leaf({7, 33}), {7, 33});
  one(w.leaf({MANY}), {MANY});
  one(w.leaf({3, 0}), {3, 0});
  one(w.leaf({4, 5, 6}), {5, 1});
  for (lie how : strided) one(w.view(how, {65, 130}), {130});
  w.add({w.leaf({9, 31}), w.view(lie::transposed, {9, 31}, fill::any, RP_BOOL),
         w.number(-3)});
}

/* ---- made from nothing -------------------------------------------------- */

void arange(writer &w) {
  for (int64_t n : {0, 1, 13, (int)MANY})
    w.add({w.number(3), w.number(-2)}, {n});
  if (w.is_float()) w.add({w.number(0.1), w.number(0.37)}, {MANY});
}

void created(writer &w, const dims &front) {
  for (const dims &d : {dims{}, dims{0}, dims{1}, dims{2}, dims{7, 33},
                        dims{MANY}}) {
    dims ints = front;
    ints.insert(ints.end(), d.begin(), d.end());
    w.add({}, ints);
  }
}
void random_floats(writer &w) { created(w, {w.dtype}); }
void randint(writer &w) {
  created(w, {w.dtype, -3, 11});
  created(w, {w.dtype, 0, 1});
  if (w.dtype == RP_I32) created(w, {w.dtype, INT32_MIN, INT32_MAX});
  else created(w, {w.dtype, INT64_MIN, INT64_MAX});
}

/* ---- reductions --------------------------------------------------------- */

void reduced_over(writer &w, const dims &front, fill f, bool of_nothing) {
  const auto one = [&](rp_tensor *x, const dims &over) {
    dims ints = front;
    ints.insert(ints.end(), over.begin(), over.end());
    w.add({x}, ints);
  };
  for (const dims &over :
       {dims{}, dims{0}, dims{1}, dims{3}, dims{0, 2}, dims{2, 3},
        dims{1, 2, 3}, dims{0, 1}})
    one(w.leaf({3, 5, 7, 4}, f), over);
  one(w.leaf({}, f), {});
  one(w.leaf({1}, f), {0});
  one(w.leaf({5, MANY}, f), {1});
  one(w.leaf({MANY, 5}, f), {0});
  one(w.leaf({300, 257}, f), {0});
  one(w.leaf({300, 257}, f), {1});
  one(w.leaf({3, 1000, 33}, f), {1});
  one(w.leaf({4 * MANY}, f), {});
  one(w.leaf({20, 2, 4000}, f), {0, 2});
  one(w.leaf({20, 2, 4001}, f), {0, 2});
  one(w.view(lie::offset, {63, 129}, f), {1});
  one(w.view(lie::offset, {63, 129}, f), {0});
  one(w.view(lie::transposed, {63, 29}, f), {1});
  one(w.leaf({0, 3}, f), {1});
  if (of_nothing) one(w.leaf({0, 3}, f), {0});
}

void sums(writer &w) {
  reduced_over(w, {0}, fill::any, true);
  reduced_over(w, {1}, fill::positive, true);
}
void extremes(writer &w) {
  reduced_over(w, {0}, fill::any, false);
  reduced_over(w, {1}, fill::special, false);
}
void logsumexp(writer &w) {
  reduced_over(w, {0}, fill::any, false);
  reduced_over(w, {1}, fill::positive, false);
}
void var(writer &w) {
  reduced_over(w, {0, 1}, fill::any, false);
  reduced_over(w, {1, 0}, fill::positive, false);
}

void argmax(writer &w) {
  for (int64_t keep : {0, 1})
    for (int64_t dim : {-1, 0, 1, 2}) {
      w.add({w.leaf({4, 35, 6})}, {keep, dim});
      w.add({w.leaf({3, 700, 65}, fill::special)}, {keep, dim});
    }
  w.add({w.leaf({5 * MANY})}, {0, -1});
  w.add({w.leaf({3, MANY})}, {0, 1});
  w.add({w.view(lie::offset, {31, 67})}, {0, 1});
  w.add({w.leaf({0, 4})}, {0, 1});
  w.add({w.leaf({})}, {0, -1});
}

void cumsum(writer &w) {
  for (int64_t back : {0, 1}) {
    for (int64_t dim : {0, 1, 2}) w.add({w.leaf({5, 33, 7})}, {dim, back});
    w.add({w.leaf({MANY})}, {0, back});
    w.add({w.leaf({3, 5000})}, {1, back});
    w.add({w.leaf({1500, 40})}, {0, back});
    w.add({w.view(lie::offset, {7, 65})}, {1, back});
    w.add({w.leaf({0, 3})}, {0, back});
    w.add({w.leaf({3, 1})}, {1, back});
  }
}

void sum_to(writer &w) {
  const auto one = [&](const dims &from, const dims &to) {
    w.add({w.leaf(from)}, to);
  };
  one({4, 5, 6}, {});
  one({4, 5, 6}, {6});
  one({4, 5, 6}, {5, 1});
  one({4, 5, 6}, {4, 1, 1});
  one({4, 5, 6}, {1, 5, 6});
  one({4, 5, 6}, {4, 5, 6});
  one({2, 3, 4, 5}, {3, 1, 5});
  one({2, 3, 4, 5}, {2, 1, 4, 1});
  one({700, 130}, {130});
  one({700, 130}, {700, 1});
  one({MANY, 3}, {3});
  one({0, 3}, {3});
  one({3, 0}, {1, 0});
  w.add({w.view(lie::offset, {65, 33})}, {33});
}

void sum_squares(writer &w) {
  for (const dims &d : {dims{}, dims{1}, dims{0}, dims{7, 33}, dims{5 * MANY}})
    w.add({w.leaf(d)});
  w.add({w.view(lie::offset, {777})});
}

/* Parts of one leaf that begin anywhere, some of them empty. */
tensors crowd(writer &w, int n) {
  rp_tensor *leaf = w.leaf({(int64_t)n * 300});
  tensors all;
  for (int64_t i = 0; i < n; i++)
    all.push_back(w.record("narrow", {leaf}, {0, i * 300, i * 37 % 300, 1}));
  return all;
}

void total_squares(writer &w) {
  sum_squares(w);
  w.add(crowd(w, 2));
  w.add(crowd(w, 230), {}, {}, "several launches");
  w.add({w.leaf({0}), w.leaf({0, 3})}, {}, {}, "empty");
  w.add({w.leaf({3}), w.leaf({40000}), w.leaf({16384})});
}

void all_finite(writer &w) {
  for (const dims &d : {dims{}, dims{1}, dims{0}, dims{7, 33}, dims{5 * MANY}})
    w.add({w.leaf(d)});
  w.add({w.view(lie::offset, {777})});
  for (double bad : {(double)INFINITY, (double)-INFINITY, (double)NAN})
    for (size_t at : {0u, 1u, 4097u, (unsigned)MANY - 1}) {
      real_list values(MANY, 1.5);
      values[at] = bad;
      w.add({w.given({MANY}, values, w.dtype)}, {}, {}, "one bad");
    }
  w.add({w.leaf({MANY}, fill::special)});
  tensors all = crowd(w, 230);
  w.add(all, {}, {}, "several launches");
  all[218] = w.given({3}, {1, 2, (double)NAN}, w.dtype);
  w.add(all, {}, {}, "one bad of many");
}

/* ---- softmax ------------------------------------------------------------ */

struct along { dims of; int64_t dim; };
const along softmaxes[] = {
    {{3, 5}, 1}, {{3, 5}, 0}, {{4, 300, 7}, 1}, {{2, 5000}, 1}, {{5000, 2}, 0},
    {{130, 64}, 1}, {{130, 33}, 1}, {{7, 1025}, 1}, {{0, 4}, 1}, {{4, 0}, 1},
    {{4, 1}, 1}, {{2, 3, 4, 5}, 2}, {{1}, 0}, {{2, MANY}, 1}};

void softmax(writer &w) {
  for (const along &a : softmaxes) w.add({w.leaf(a.of)}, {a.dim});
  w.add({w.view(lie::offset, {31, 67})}, {1});
}

void softmax_grad(writer &w) {
  const std::string forward = w.op.substr(0, w.op.size() - 5);
  for (const along &a : softmaxes)
    w.add({w.leaf(a.of),
           w.record(forward.c_str(), {w.leaf(a.of)}, {a.dim})}, {a.dim});
}

const dims scores[] = {{2, 3, 5, 7},   {1, 2, 33, 33}, {2, 1, 64, 65},
                       {3, 4},         {2, 9, 1},      {2, 3, 1, 1030},
                       {1, 2, 40, 20}, {0, 4, 4},      {2, 3, 4, 0},
                       {1, 300, 4100}};

void masked_softmax(writer &w) {
  for (const dims &d : scores) {
    const size_t r = d.size();
    for (int64_t causal : {0, 1}) {
      w.add({w.leaf(d)}, {causal}, {0.37});
      w.add({w.leaf(d), w.leaf({d[r - 2], d[r - 1]}, fill::any, RP_BOOL)},
            {causal}, {1});
      if (r == 4)
        w.add({w.leaf(d), w.leaf({d[0], 1, 1, d[3]}, fill::any, RP_BOOL)},
              {causal}, {2});
    }
  }
  w.add({w.leaf({5, 7}), w.given({5, 7}, {0}, RP_BOOL)}, {0}, {1}, "nothing");
}

void masked_softmax_grad(writer &w) {
  for (const dims &d : scores)
    for (int64_t causal : {0, 1})
      w.add({w.leaf(d), w.record("scaled_masked_softmax", {w.leaf(d)},
                                 {causal}, {0.5})},
            {causal}, {0.5});
}

/* ---- attention ---------------------------------------------------------- */

struct attention_case {
  int64_t batch, heads, queries, keys, width, values;
  int64_t causal;
  double p;
  dims mask; /* none: {} */
  double times = 1;

  double scale() const { return times / std::sqrt((double)width); }
};
const attention_case attentions[] = {
    {1, 1, 1, 1, 1, 1, 0, 0, {}},
    {2, 3, 5, 7, 4, 6, 0, 0, {}},
    {2, 3, 7, 7, 8, 8, 1, 0, {}},
    {1, 2, 33, 33, 16, 16, 1, 0, {}},
    {1, 2, 65, 130, 64, 64, 0, 0, {}},
    {1, 2, 65, 130, 64, 64, 1, 0, {}},
    {1, 2, 9, 5, 8, 8, 1, 0, {}},
    {2, 2, 128, 128, 64, 64, 1, 0, {}},
    {2, 2, 40, 40, 32, 32, 1, 0.2, {}},
    {1, 3, 17, 30, 24, 8, 0, 0.5, {}},
    {2, 2, 20, 20, 16, 16, 0, 0, {20, 20}},
    {2, 2, 20, 33, 16, 16, 0, 0.1, {2, 1, 1, 33}},
    {2, 2, 20, 33, 16, 16, 1, 0, {2, 2, 20, 33}},
    {1, 1, 70, 70, 128, 128, 1, 0, {}},
    {1, 2, 129, 200, 64, 7, 1, 0.25, {200}},
    {1, 2, 200, 90, 5, 70, 1, 0, {}},
    {1, 1, 40, 150, 96, 80, 1, 0.25, {1, 1, 40, 150}},
    {1, 1, 20, 70, 136, 150, 0, 0.1, {}},
    {1, 2, 3, 0, 4, 4, 0, 0, {}},
    {1, 1, 0, 3, 4, 4, 1, 0, {}},
    {1, 1, 70, 70, 9, 9, 1, 1, {}},
    {0, 2, 4, 4, 8, 8, 0, 0, {}},
    {1, 2, 70, 70, 32, 32, 1, 0, {}, 0},
    {1, 2, 70, 90, 64, 64, 0, 0, {70, 90}, -2},
};

/* Heads behind positions in memory, as a projection leaves them. */
rp_tensor *behind(writer &w, int64_t b, int64_t h, int64_t t, int64_t d) {
  return w.record("permute", {w.leaf({b, t, h, d})}, {0, 2, 1, 3});
}

tensors attention_inputs(writer &w, const attention_case &a, bool swapped) {
  const auto one = [&](int64_t t, int64_t d) {
    return swapped ? behind(w, a.batch, a.heads, t, d)
                   : w.leaf({a.batch, a.heads, t, d});
  };
  tensors in = {one(a.queries, a.width), one(a.keys, a.width),
                one(a.keys, a.values)};
  if (!a.mask.empty()) in.push_back(w.leaf(a.mask, fill::any, RP_BOOL));
  return in;
}

void attention(writer &w) {
  for (const attention_case &a : attentions)
    for (bool swapped : {false, true})
      w.add(attention_inputs(w, a, swapped), {a.causal},
            {a.scale(), a.p});
}

void attention_grad(writer &w) {
  for (const attention_case &a : attentions)
    for (bool swapped : {false, true}) {
      const real_list reals = {a.scale(), a.p};
      const tensors x = attention_inputs(w, a, swapped);
      rp_tensor *out = w.record("attention", x, {a.causal}, reals);
      tensors in = {w.leaf({a.batch, a.queries, a.heads, a.values}), x[0], x[1],
                    x[2], out, w.output(out, 1)};
      if (x.size() > 3) in.push_back(x[3]);
      call *c = w.add(in, {a.causal}, reals);
      c->stream = out->node->stream;
    }
}

tensors packed_inputs(writer &w, const attention_case &a) {
  tensors in = {w.leaf({a.batch, a.queries, 3, a.heads, a.width})};
  if (!a.mask.empty()) in.push_back(w.leaf(a.mask, fill::any, RP_BOOL));
  return in;
}

bool packs(const attention_case &a) {
  return a.queries == a.keys && a.width == a.values;
}

void packed_attention(writer &w) {
  for (const attention_case &a : attentions)
    if (packs(a))
      w.add(packed_inputs(w, a), {a.causal},
            {a.scale(), a.p});
}

void packed_attention_grad(writer &w) {
  for (const attention_case &a : attentions) {
    if (!packs(a)) continue;
    const real_list reals = {a.scale(), a.p};
    const tensors x = packed_inputs(w, a);
    rp_tensor *out = w.record("packed_attention", x, {a.causal}, reals);
    tensors in = {w.leaf({a.batch, a.queries, a.heads, a.width}), x[0], out,
                  w.output(out, 1)};
    if (x.size() > 1) in.push_back(x[1]);
    call *c = w.add(in, {a.causal}, reals);
    c->stream = out->node->stream;
  }
}

/* ---- normalisation ------------------------------------------------------ */

struct norm_case { dims x, d; };
const norm_case norms[] = {
    {{1}, {1}},         {{3, 7}, {7}},       {{2, 3, 4, 5}, {4, 5}},
    {{5, 1}, {1}},      {{130, 64}, {64}},   {{200, 768}, {768}},
    {{7, 1025}, {1025}}, {{3, 5000}, {5000}}, {{0, 8}, {8}},
    {{2000, 33}, {33}}, {{6, 4}, {6, 4}},    {{2, 9000}, {9000}}};

void layer_norm(writer &w) {
  for (const norm_case &n : norms)
    w.add({w.leaf(n.x), w.leaf(n.d, fill::any, w.wide()),
           w.leaf(n.d, fill::any, w.wide())}, {}, {1e-5});
  w.add({w.view(lie::offset, {9, 64}), w.view(lie::offset, {64}, fill::any,
         w.wide()), w.leaf({64}, fill::any, w.wide())}, {}, {1e-3});
}
void rms_norm(writer &w) {
  for (const norm_case &n : norms)
    w.add({w.leaf(n.x), w.leaf(n.d, fill::any, w.wide())}, {}, {1e-5});
  w.add({w.view(lie::offset, {9, 64}),
         w.view(lie::offset, {64}, fill::any, w.wide())}, {}, {1e-3});
}
/* One value a row has no gradient but noise. */
bool has_spread(const norm_case &n) { return n.d != dims{1}; }

void layer_norm_grad(writer &w) {
  for (const norm_case &n : norms) {
    if (!has_spread(n)) continue;
    rp_tensor *x = w.leaf(n.x), *s = w.leaf(n.d, fill::any, w.wide());
    rp_tensor *y = w.record("layer_norm",
                            {x, s, w.leaf(n.d, fill::any, w.wide())}, {},
                            {1e-5});
    w.add({w.leaf(n.x), x, s, w.output(y, 1), w.output(y, 2)});
  }
}
void rms_norm_grad(writer &w) {
  for (const norm_case &n : norms) {
    if (!has_spread(n)) continue;
    rp_tensor *x = w.leaf(n.x), *s = w.leaf(n.d, fill::any, w.wide());
    rp_tensor *y = w.record("rms_norm", {x, s}, {}, {1e-5});
    w.add({w.leaf(n.x), x, s, w.output(y, 1)});
  }
}

const dims images[] = {{4, 3, 5, 5},   {6, 5},          {2, 64, 17},
                       {32, 7, 11, 3}, {3, 1, 70, 70},  {8, 130, 4, 4},
                       {2, 3, 1, 1},   {64, 6, 16, 16}};

tensors with_vectors(writer &w, rp_tensor *x, int n) {
  tensors in = {x};
  for (int i = 0; i < n; i++)
    in.push_back(w.leaf({x->type.dims[1]}, fill::any, w.wide()));
  return in;
}

void batch_norm(writer &w) {
  for (const dims &d : images) {
    w.add(with_vectors(w, w.leaf(d), 2), {}, {1e-5, 0.1});
    w.add(with_vectors(w, w.view(lie::offset, d), 4), {}, {1e-3, 0.2});
  }
}

/* batch_norm's parts: the same attributes, outputs shared out. */
void batch_norm_part(writer &w) {
  for (const dims &d : images) {
    const tensors in = with_vectors(w, w.leaf(d), 2);
    rp_tensor *y = w.record("batch_norm", in, {}, {1e-5, 0.1});
    call c = w.b.of_node(y->node);
    c.op = w.op;
    if (w.op == "batch_norm_apply") {
      c.in.push_back(w.output(y, 1));
      c.in.push_back(w.output(y, 2));
      c.out.resize(1);
    } else {
      c.in_place = 0;
      c.out.erase(c.out.begin());
    }
    w.calls.push_back(c);
  }
}

void batch_norm_grad(writer &w) {
  for (const dims &d : images) {
    const tensors x = with_vectors(w, w.leaf(d), 2);
    rp_tensor *y = w.record("batch_norm", x, {}, {1e-5, 0.1});
    w.add({w.leaf(d), x[0], x[1], w.output(y, 1), w.output(y, 2)}, {}, {1e-5});
  }
}

struct group_case { dims x; int64_t groups; };
const group_case groupings[] = {{{4, 6, 5, 5}, 3}, {{4, 6, 5, 5}, 1},
                                {{4, 6, 5, 5}, 6}, {{3, 8}, 2},
                                {{2, 64, 17}, 8},  {{2, 32, 33, 31}, 4},
                                {{2, 6, 24, 24}, 3}};

void group_norm(writer &w) {
  for (const group_case &g : groupings)
    w.add(with_vectors(w, w.leaf(g.x), 2), {g.groups}, {1e-5});
}
void group_norm_grad(writer &w) {
  for (const group_case &g : groupings) {
    const tensors x = with_vectors(w, w.leaf(g.x), 2);
    rp_tensor *y = w.record("group_norm", x, {g.groups}, {1e-5});
    w.add({w.leaf(g.x), x[0], x[1], w.output(y, 1), w.output(y, 2)},
          {g.groups});
  }
}

/* ---- losses ------------------------------------------------------------- */

const dims logit_dims[] = {{1, 1},   {5, 7},       {2, 3, 10}, {9, 1000},
                           {3, 5003}, {600, 65},   {130, 256}, {7}};

dims leading(const dims &d) { return dims(d.begin(), d.end() - 1); }

void cross_entropy(writer &w) {
  for (const dims &d : logit_dims)
    for (int labels : {(int)RP_I32, (int)RP_I64})
      for (int64_t reduction : {0, 1, 2})
        w.add({w.leaf(d), w.leaf(leading(d), fill::any, labels)},
              {-100, reduction});
  w.add({w.leaf({5, 7}), w.given({5}, {-100}, RP_I64)}, {-100, 0}, {}, "none");
  w.add({w.leaf({0, 7}), w.leaf({0}, fill::any, RP_I64)}, {-100, 1});
}

/* The row is that of the loss's gradient: f32 for logits in bf16 too. */
void cross_entropy_grad(writer &w) {
  for (const dims &d : logit_dims)
    for (int as : {(int)w.dtype, (int)RP_BF16}) {
      if (as == RP_BF16 && w.dtype != RP_F32) continue;
      for (int64_t reduction : {0, 1, 2}) {
        const dims ints = {-100, reduction};
        rp_tensor *x = w.leaf(d, fill::any, as);
        rp_tensor *labels = w.leaf(leading(d), fill::any, RP_I64);
        rp_tensor *loss = w.record("cross_entropy", {x, labels}, ints);
        rp_tensor *dloss =
            reduction == 2 ? w.leaf(leading(d)) : w.leaf({}, fill::positive);
        w.add({dloss, x, labels, w.output(loss, 1)}, ints);
      }
    }
}

struct head_case { dims x; int64_t classes; };
const head_case heads[] = {{{1, 1}, 1},     {{5, 7}, 3},      {{2, 9, 16}, 33},
                           {{130, 64}, 500}, {{600, 32}, 65},  {{33, 24}, 2011},
                           {{5, 16}, 9001}};

tensors head_inputs(writer &w, const head_case &h, int labels, bool bias) {
  tensors in = {w.leaf(h.x), w.leaf({h.classes, h.x.back()}),
                w.leaf(leading(h.x), fill::any, labels)};
  if (bias) in.push_back(w.leaf({h.classes}, fill::any, w.wide()));
  return in;
}

void linear_cross_entropy(writer &w) {
  for (const head_case &h : heads)
    for (int64_t reduction : {0, 1}) {
      w.add(head_inputs(w, h, RP_I64, false), {-100, reduction});
      w.add(head_inputs(w, h, RP_I32, true), {-100, reduction});
    }
}

void linear_cross_entropy_grad(writer &w) {
  for (const head_case &h : heads)
    for (int64_t reduction : {0, 1}) {
      w.add(head_inputs(w, h, RP_I64, false), {3, -100, reduction, 3});
      w.add(head_inputs(w, h, RP_I32, true), {4, -100, reduction, 7});
    }
  w.add(head_inputs(w, heads[3], RP_I64, false), {2, -100, 0, 1});
  w.add(head_inputs(w, heads[3], RP_I64, false), {2, -100, 0, 2});
  w.add(head_inputs(w, heads[3], RP_I64, true), {2, -100, 0, 4});
}

/* ---- indices ------------------------------------------------------------ */

struct table_case { int64_t entries, width; dims at; };
const table_case tables[] = {{1, 1, {1}},      {7, 3, {5}},
                             {11, 4, {}},      {50, 64, {3, 17}},
                             {1000, 33, {200}}, {5, 768, {2, 100}},
                             {20, 8, {0}},     {3, 2, {5000}},
                             {70000, 3, {3000}}};

template <typename F> void each_table(F f) {
  for (const table_case &t : tables)
    for (int as : {(int)RP_I32, (int)RP_I64}) f(t, as);
}
dims beside(dims d, int64_t last) {
  d.push_back(last);
  return d;
}

void embedding(writer &w) {
  each_table([&](const table_case &t, int as) {
    w.add({w.leaf({t.entries, t.width}), w.leaf(t.at, fill::any, as)});
  });
}
void embedding_grad(writer &w) {
  each_table([&](const table_case &t, int as) {
    w.add({w.leaf(beside(t.at, t.width)), w.leaf(t.at, fill::any, as)},
          {t.entries});
  });
}
void embedding_grad_add(writer &w) {
  each_table([&](const table_case &t, int as) {
    w.add({w.leaf({t.entries, t.width}), w.leaf(beside(t.at, t.width)),
           w.leaf(t.at, fill::any, as)}, {t.entries});
  });
}

const along selections[] = {{{7, 5, 3}, 0}, {{7, 5, 3}, 1}, {{7, 5, 3}, 2},
                            {{300, 65}, 0}, {{65, 300}, 1}, {{9}, 0}};

void index_select(writer &w) {
  for (const along &a : selections)
    for (int as : {(int)RP_I32, (int)RP_I64})
      for (int64_t n : {0, 1, 40})
        w.add({w.leaf(a.of), w.leaf({n}, fill::any, as)}, {a.dim});
}
void index_select_grad(writer &w) {
  for (const along &a : selections)
    for (int as : {(int)RP_I32, (int)RP_I64})
      for (int64_t n : {0, 1, 40}) {
        dims d = a.of;
        const int64_t size = d[(size_t)a.dim];
        d[(size_t)a.dim] = n;
        w.add({w.leaf(d), w.leaf({n}, fill::any, as)}, {a.dim, size});
      }
}
void gather(writer &w) {
  for (const along &a : selections)
    for (int as : {(int)RP_I32, (int)RP_I64})
      for (int64_t n : {0, 1, 40}) {
        dims d = a.of;
        d[(size_t)a.dim] = n;
        w.add({w.leaf(a.of), w.leaf(d, fill::any, as)}, {a.dim});
      }
}
void gather_grad(writer &w) {
  for (const along &a : selections)
    for (int as : {(int)RP_I32, (int)RP_I64})
      for (int64_t n : {0, 1, 40}) {
        dims d = a.of;
        const int64_t size = d[(size_t)a.dim];
        d[(size_t)a.dim] = n;
        w.add({w.leaf(d), w.leaf(d, fill::any, as)}, {a.dim, size});
      }
}

/* ---- copies ------------------------------------------------------------- */

void contiguous(writer &w) { unary_with(w, {}, {}, fill::special, true); }

void cat(writer &w) {
  w.add({w.leaf({3, 5}), w.leaf({4, 5})}, {0});
  w.add({w.leaf({3, 5}), w.leaf({3, 1}), w.leaf({3, 8})}, {1});
  w.add({w.leaf({2, 3, 4}), w.leaf({2, 0, 4}), w.leaf({2, 5, 4})}, {1});
  w.add({w.leaf({7})}, {0});
  w.add({w.leaf({9, 64}), w.leaf({9, 16}), w.leaf({9, 32})}, {1});
  w.add({w.leaf({MANY}), w.leaf({3})}, {0});
  w.add({w.view(lie::transposed, {33, 65}), w.view(lie::stepped, {33, 65}),
         w.view(lie::offset, {33, 65})}, {1});
  tensors many;
  for (int i = 0; i < 20; i++) many.push_back(w.leaf({2, 1 + i % 3, 3}));
  w.add(many, {1});
}

void pad(writer &w) {
  w.add({w.leaf({3, 5})}, {1, 2, 0, 3}, {0});
  w.add({w.leaf({2, 3, 4})}, {0, 0, 2, 1, 1, 0}, {1.5});
  w.add({w.leaf({0, 2})}, {1, 1, 0, 0}, {2});
  w.add({w.leaf({})}, {}, {1});
  w.add({w.leaf({MANY})}, {7, 9}, {-1});
  w.add({w.leaf({9, 64})}, {1, 2, 16, 32}, {2});
  for (lie how : strided) w.add({w.view(how, {33, 65})}, {1, 1, 2, 2}, {-3});
}

void narrow_grad(writer &w) {
  w.add({w.leaf({3, 5})}, {0, 1, 3, 1, 7});
  w.add({w.leaf({3, 5})}, {1, 2, 5, 3, 20});
  w.add({w.leaf({2, 3, 4})}, {1, 0, 3, 2, 5});
  w.add({w.leaf({2, 0, 4})}, {1, 0, 0, 1, 5});
  w.add({w.leaf({MANY})}, {0, 5, MANY, 1, MANY + 9});
  w.add({w.leaf({9, 64})}, {1, 16, 64, 1, 128});
  for (lie how : strided) w.add({w.view(how, {33, 65})}, {1, 3, 65, 2, 140});
}

/* ---- products ----------------------------------------------------------- */

/* The dtypes of y: bf16 operands give f32 too. */
std::vector<dims> product_dtypes(const writer &w) {
  std::vector<dims> all = {{}};
  if (w.dtype == RP_BF16) all.push_back({RP_F32});
  return all;
}

void matmul(writer &w) {
  struct { dims a, b; } const some[] = {
      {{1, 1}, {1, 1}},         {{3, 4}, {4, 5}},       {{33, 65}, {65, 17}},
      {{1, 64}, {64, 1}},       {{64, 1}, {1, 64}},     {{130, 70}, {70, 260}},
      {{2, 3, 4}, {2, 4, 5}},   {{2, 3, 4}, {4, 5}},    {{3, 4}, {2, 4, 5}},
      {{2, 1, 3, 4}, {5, 4, 6}}, {{2, 3, 8, 16}, {2, 3, 16, 8}},
      {{0, 4}, {4, 5}},         {{3, 0}, {0, 5}},       {{3, 4}, {4, 0}},
      {{0, 3, 4}, {0, 4, 5}},   {{256, 64}, {64, 64}}};
  for (const dims &ints : product_dtypes(w)) {
    for (const auto &s : some) w.add({w.leaf(s.a), w.leaf(s.b)}, ints);
    for (lie a : {lie::plain, lie::transposed, lie::columns, lie::offset})
      for (lie b : {lie::transposed, lie::columns, lie::offset}) {
        w.add({w.view(a, {33, 65}), w.view(b, {65, 17})}, ints, {}, "views");
        w.add({w.view(a, {3, 32, 64}), w.view(b, {3, 64, 16})}, ints, {},
              "views");
      }
    w.add({w.view(lie::expanded, {4, 9, 8}), w.leaf({4, 8, 7})}, ints);
  }
}

void linear(writer &w) {
  struct { dims x; int64_t out; } const some[] = {
      {{1, 1}, 1},   {{5, 7}, 3},     {{7}, 4},       {{2, 9, 16}, 33},
      {{130, 64}, 256}, {{0, 8}, 4},  {{65, 33}, 17}, {{3, 0}, 4}};
  for (const dims &ints : product_dtypes(w))
    for (const auto &s : some) {
      const int64_t in = s.x.back();
      w.add({w.leaf(s.x), w.leaf({s.out, in})}, ints);
      w.add({w.leaf(s.x), w.leaf({s.out, in}), w.leaf({s.out})}, ints);
      w.add({w.view(lie::offset, s.x), w.view(lie::offset, {s.out, in}),
             w.view(lie::offset, {s.out}, fill::any, w.wide())}, ints);
    }
  w.add({w.leaf({65, 32}), w.view(lie::transposed, {16, 32}), w.leaf({16})});
  w.add({w.view(lie::columns, {65, 32}), w.leaf({16, 32}), w.leaf({16})});
}

/* ---- images ------------------------------------------------------------- */

struct conv_case { dims x, w, attributes; };
const conv_case convolutions[] = {
    {{1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 0, 0, 1, 1, 1}},
    {{2, 3, 8, 8}, {4, 3, 3, 3}, {1, 1, 1, 1, 1, 1, 1}},
    {{2, 3, 9, 7}, {5, 3, 3, 2}, {2, 1, 0, 1, 1, 1, 1}},
    {{2, 4, 9, 9}, {6, 2, 3, 3}, {1, 2, 2, 1, 2, 1, 2}},
    {{1, 8, 12, 12}, {8, 1, 3, 3}, {1, 1, 1, 1, 1, 1, 8}},
    {{3, 16, 14, 14}, {32, 16, 1, 1}, {1, 1, 0, 0, 1, 1, 1}},
    {{2, 3, 23, 23}, {8, 3, 7, 7}, {2, 2, 3, 3, 1, 1, 1}},
    {{4, 8, 10, 10}, {16, 8, 3, 3}, {2, 2, 1, 1, 1, 1, 1}},
    {{0, 3, 8, 8}, {4, 3, 3, 3}, {1, 1, 1, 1, 1, 1, 1}}};

void conv2d(writer &w) {
  for (const conv_case &c : convolutions) {
    w.add({w.leaf(c.x), w.leaf(c.w)}, c.attributes);
    w.add({w.view(lie::offset, c.x), w.view(lie::offset, c.w),
           w.leaf({c.w[0]}, fill::any, w.wide())}, c.attributes);
  }
}

/* The adjoints; of bf16 in bf16 and in f32. */
void conv2d_grad(writer &w) {
  const bool input = w.op == "conv2d_grad_input";
  for (const conv_case &c : convolutions) {
    rp_tensor *x = w.leaf(c.x), *s = w.leaf(c.w);
    const rp_tensor *y = w.record("conv2d", {x, s}, c.attributes);
    const dims out(y->type.dims, y->type.dims + 4);
    const dims &sizes = input ? c.x : c.w;
    for (int as : {(int)w.dtype, w.wide()}) {
      dims ints = c.attributes;
      ints.insert(ints.end(), {sizes[2], sizes[3], as});
      w.add({w.leaf(out), input ? s : x}, ints);
      if (as == w.wide()) break;
    }
  }
}

struct pool_case { dims x, attributes; };
const pool_case pools[] = {
    {{2, 3, 8, 8}, {2, 2, 2, 2, 0, 0, 1, 1, 0}},
    {{2, 3, 9, 7}, {3, 2, 2, 1, 1, 1, 1, 1, 0}},
    {{1, 2, 11, 10}, {3, 3, 2, 2, 1, 1, 1, 1, 1}},
    {{3, 9, 9}, {2, 3, 1, 2, 1, 0, 2, 1, 0}},
    {{5, 5}, {5, 5, 1, 1, 0, 0, 1, 1, 0}},
    {{4, 8, 32, 32}, {3, 3, 2, 2, 1, 1, 1, 1, 0}},
    {{1, 2, 40, 70}, {3, 2, 1, 2, 1, 1, 2, 1, 0}},
    {{1, 2, 20, 20}, {2, 2, 5, 5, 0, 0, 3, 3, 0}},
    {{0, 3, 8, 8}, {2, 2, 2, 2, 0, 0, 1, 1, 0}}};

dims dims_of(const rp_tensor *t) {
  return dims(t->type.dims, t->type.dims + t->type.rank);
}

void max_pool2d(writer &w) {
  for (const pool_case &p : pools) {
    w.add({w.leaf(p.x)}, p.attributes);
    w.add({w.leaf(p.x, fill::special)}, p.attributes);
  }
}
void max_pool2d_grad(writer &w) {
  for (const pool_case &p : pools)
    for (fill values : {fill::any, fill::special}) {
      rp_tensor *x = w.leaf(p.x, values);
      rp_tensor *y = w.record("max_pool2d", {x}, p.attributes);
      w.add({w.leaf(dims_of(y)), x}, p.attributes);
    }
}
void max_pool2d_take(writer &w) {
  for (const pool_case &p : pools)
    w.add({w.leaf(p.x), w.leaf(p.x)}, p.attributes);
}

/* Without dilation; padding counted or not, or a divisor of the user's. */
std::vector<pool_case> averages() {
  std::vector<pool_case> all;
  for (const pool_case &p : pools)
    for (const dims &more : {dims{0, 0}, dims{1, 0}, dims{0, 5}}) {
      pool_case a = p;
      a.attributes[6] = a.attributes[7] = 1;
      a.attributes.insert(a.attributes.end(), more.begin(), more.end());
      all.push_back(a);
    }
  return all;
}
void avg_pool2d(writer &w) {
  for (const pool_case &p : averages()) w.add({w.leaf(p.x)}, p.attributes);
}
void avg_pool2d_grad(writer &w) {
  for (const pool_case &p : averages()) {
    const rp_tensor *y = w.record("avg_pool2d", {w.leaf(p.x)}, p.attributes);
    dims ints = p.attributes;
    ints.insert(ints.end(), p.x.end() - 2, p.x.end());
    w.add({w.leaf(dims_of(y))}, ints);
  }
}

/* From sizes to sizes, either way. */
void resize(writer &w) {
  for (const dims &d : {dims{2, 3, 8, 8}, dims{1, 1, 1, 1}, dims{5, 7},
                        dims{3, 11, 6}, dims{2, 4, 32, 33}})
    for (const dims &to : {dims{1, 1}, dims{3, 5}, dims{8, 8}, dims{20, 16}})
      w.add({w.leaf(d)}, to);
}

/* ---- updates ------------------------------------------------------------ */

const dims leaves[] = {{}, {1}, {0}, {7, 33}, {MANY}, {5, 4096}};

/* Without a guard, with one that lets through, and with one that does not. */
void guarded(writer &w, const tensors &in, const real_list &reals,
             const char *note) {
  w.add(in, {}, reals, note);
  for (double on : {1.0, 0.0}) {
    tensors more = in;
    more.push_back(w.given({}, {on}, RP_BOOL));
    w.add(more, {}, reals, on != 0 ? "guard true" : "guard false");
  }
}

void optimizer(writer &w, const std::vector<real_list> &numbers) {
  const int states = rp_op_find(w.op.c_str())->states;
  for (const dims &d : leaves)
    for (const real_list &n : numbers) {
      tensors in = {w.leaf(d), w.leaf(d)};
      for (int k = 0; k < states; k++) in.push_back(w.leaf(d, fill::positive));
      in.push_back(w.given({(int64_t)n.size()}, n, RP_F64));
      guarded(w, in, {}, "");
      in.push_back(w.given({}, {0.37}, w.dtype));
      guarded(w, in, {}, "scaled");
    }
  tensors in = {w.view(lie::offset, {777}), w.view(lie::offset, {777})};
  if (in[0]->node->leaf == nullptr) in[0] = w.leaf({777});
  for (int k = 0; k < states; k++) in.push_back(w.leaf({777}, fill::positive));
  in.push_back(w.given({(int64_t)numbers[0].size()}, numbers[0], RP_F64));
  guarded(w, in, {}, "unaligned gradient");
}

void sgd(writer &w) { optimizer(w, {{0.1, 0.01, 1}, {0.1, 0, 7}}); }
void sgd_momentum(writer &w) {
  optimizer(w, {{0.1, 0.9, 0.2, 0.01, 0, 1}, {0.1, 0.9, 0.2, 0.01, 0, 5},
                {0.1, 0.9, 0, 0, 1, 1}, {0.1, 0.9, 0, 0, 1, 3}});
}
void adam(writer &w) {
  optimizer(w, {{0.1, 0.9, 0.99, 1e-8, 0.01, 1},
                {0.1, 0.9, 0.999, 1e-8, 0.05, 1000},
                {0.1, 0.3, 0.99, 1e-3, 0, 2}});
}

void accumulate(writer &w) {
  for (const dims &d : leaves) guarded(w, {w.leaf(d), w.leaf(d)}, {}, "");
  guarded(w, {w.leaf({777}), w.view(lie::offset, {777})}, {}, "unaligned");
}
void running_update(writer &w) {
  for (const dims &d : {dims{1}, dims{7}, dims{0}, dims{1030}})
    guarded(w, {w.leaf(d), w.leaf(d)}, {0.1, 1.25}, "");
}
void assign(writer &w) {
  for (const dims &d : leaves)
    guarded(w, {w.leaf(d), w.leaf(d, fill::special)}, {}, "");
  for (lie how : strided)
    guarded(w, {w.leaf({65, 30}), w.view(how, {65, 30})}, {}, "view");
  guarded(w, {w.leaf({2, 3, 4}), w.record("permute", {w.leaf({4, 3, 2})},
                                          {2, 1, 0})}, {}, "view");
}

/* ---- the table ---------------------------------------------------------- */

struct entry {
  const char *op;
  void (*write)(writer &w);
};

const entry entries[] = {
    {"neg", unary}, {"exp", unary}, {"sqrt", unary_positive},
    {"rsqrt", unary_positive}, {"reciprocal", unary}, {"log", unary_positive},
    {"erf", unary}, {"sin", unary}, {"cos", unary}, {"abs", unary},
    {"sign", unary}, {"square", unary}, {"pow_scalar", pow_scalar},
    {"clamp", clamp}, {"clamp_grad", clamp_grad},
    {"relu", unary}, {"relu_grad", binary}, {"tanh", unary},
    {"tanh_grad", binary}, {"sigmoid", unary}, {"sigmoid_grad", binary},
    {"silu", unary}, {"silu_grad", binary}, {"gelu", unary},
    {"gelu_grad", binary}, {"gelu_tanh", unary}, {"gelu_tanh_grad", binary},
    {"add", binary}, {"sub", binary}, {"mul", binary}, {"div", division},
    {"pow", power}, {"maximum", binary}, {"minimum", binary},
    {"bce_with_logits", binary},
    {"eq", binary}, {"ne", binary}, {"lt", binary}, {"le", binary},
    {"gt", binary}, {"ge", binary}, {"logical_and", logical},
    {"logical_or", logical}, {"logical_not", unary}, {"where", where},
    {"masked_fill", masked_fill},
    {"arange", arange}, {"rand", random_floats}, {"randn", random_floats},
    {"randint", randint}, {"dropout", dropout}, {"cast", cast},
    {"sum", sums}, {"mean", sums}, {"max", extremes}, {"min", extremes},
    {"var", var}, {"logsumexp", logsumexp}, {"argmax", argmax},
    {"cumsum", cumsum}, {"sum_to", sum_to}, {"sum_squares", sum_squares},
    {"total_squares", total_squares},
    {"all_finite", all_finite},
    {"softmax", softmax}, {"softmax_grad", softmax_grad},
    {"log_softmax", softmax}, {"log_softmax_grad", softmax_grad},
    {"scaled_masked_softmax", masked_softmax},
    {"scaled_masked_softmax_grad", masked_softmax_grad},
    {"attention", attention}, {"attention_grad", attention_grad},
    {"packed_attention", packed_attention},
    {"packed_attention_grad", packed_attention_grad},
    {"layer_norm", layer_norm}, {"layer_norm_grad", layer_norm_grad},
    {"rms_norm", rms_norm}, {"rms_norm_grad", rms_norm_grad},
    {"cross_entropy", cross_entropy},
    {"cross_entropy_grad", cross_entropy_grad},
    {"linear_cross_entropy", linear_cross_entropy},
    {"linear_cross_entropy_grad", linear_cross_entropy_grad},
    {"embedding", embedding}, {"embedding_grad", embedding_grad},
    {"embedding_grad_add", embedding_grad_add},
    {"index_select", index_select}, {"index_select_grad", index_select_grad},
    {"gather", gather}, {"gather_grad", gather_grad},
    {"contiguous", contiguous}, {"narrow_grad", narrow_grad}, {"cat", cat},
    {"pad", pad},
    {"matmul", matmul}, {"linear", linear},
    {"conv2d", conv2d}, {"conv2d_grad_input", conv2d_grad},
    {"conv2d_grad_weight", conv2d_grad},
    {"max_pool2d", max_pool2d}, {"max_pool2d_grad", max_pool2d_grad},
    {"max_pool2d_take", max_pool2d_take}, {"avg_pool2d", avg_pool2d},
    {"avg_pool2d_grad", avg_pool2d_grad}, {"adaptive_avg_pool2d", resize},
    {"adaptive_avg_pool2d_grad", resize}, {"upsample_nearest2d", resize},
    {"upsample_nearest2d_grad", resize},
    {"batch_norm", batch_norm}, {"batch_norm_statistics", batch_norm_part},
    {"batch_norm_apply", batch_norm_part}, {"batch_norm_grad", batch_norm_grad},
    {"group_norm", group_norm}, {"group_norm_grad", group_norm_grad},
    {"sgd", sgd}, {"sgd_momentum", sgd_momentum}, {"adam", adam},
    {"adamw", adam}, {"accumulate", accumulate}, {"assign", assign},
    {"running_update", running_update}, {"fused", write_chains},
    {"linear+gelu_tanh", write_products},
    {"matmul+gelu_tanh_grad", write_products},
};

} // namespace

void write_cases(writer &w) {
  for (const entry &e : entries)
    if (w.op == e.op) e.write(w);
}

} // namespace cases
