#include "exec/watch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "graph/recorder.h"

rp_anomaly rp_detect_anomaly(rp_context *ctx, rp_anomaly what) {
  const rp_anomaly before = (rp_anomaly)ctx->anomaly;
  ctx->anomaly = (int32_t)what;
  rp_cache_forget_prepared(ctx); /* its effects may come early */
  return before;
}

bool rp_verify_replay(rp_context *ctx, bool on) {
  const bool before = ctx->verify_replay;
  ctx->verify_replay = on;
  rp_cache_forget_prepared(ctx);
  return before;
}

bool rp_watches(const rp_context *ctx) {
  return ctx->anomaly != RP_ANOMALY_NONE || ctx->verify_replay;
}

/* ---- fingerprints ------------------------------------------------------- */

enum { LANES = 8, PIECE = 1 << 16 }; /* bytes hashed as one */

/* Bijective in each argument while the other stands still: a changed word
   changes every later state. */
static inline uint64_t mix(uint64_t state, uint64_t word) {
  state = (state ^ word) * 0x9E3779B97F4A7C15u;
  return state ^ state >> 29;
}

static uint64_t print_piece(const char *data, int64_t size, uint64_t seed) {
  uint64_t lanes[LANES], words[LANES];
  for (int k = 0; k < LANES; k++) lanes[k] = seed + (uint64_t)k;
  while (size > 0) {
    const size_t taken = size < (int64_t)sizeof words ? (size_t)size
                                                      : sizeof words;
    if (taken < sizeof words) memset(words, 0, sizeof words);
    memcpy(words, data, taken);
    for (int k = 0; k < LANES; k++) lanes[k] = mix(lanes[k], words[k]);
    data += taken;
    size -= (int64_t)taken;
  }
  uint64_t all = seed;
  for (int k = 0; k < LANES; k++) all = mix(all, lanes[k]);
  return all;
}

uint64_t rp_fingerprint(const void *data, int64_t size_bytes) {
  const int64_t pieces = (size_bytes + PIECE - 1) / PIECE;
  uint64_t sum = (uint64_t)size_bytes;
#pragma omp parallel for schedule(static) reduction(+ : sum) if (pieces > 4)
  for (int64_t i = 0; i < pieces; i++) {
    const int64_t left = size_bytes - i * PIECE;
    sum += print_piece((const char *)data + i * PIECE,
                       left < PIECE ? left : PIECE, (uint64_t)i);
  }
  return sum;
}

/* ---- values that are not finite ----------------------------------------- */

/* By the bits: the exponent is all ones; a NaN has a fraction, too. */
static bool bad_f32(uint32_t bits, bool nan_only) {
  return (bits & 0x7fffffffu) >= 0x7f800000u + nan_only;
}
static bool bad_f64(uint64_t bits, bool nan_only) {
  return (bits & 0x7fffffffffffffffu) >= 0x7ff0000000000000u + nan_only;
}

static bool any_bad(rp_dtype dtype, const void *data, int64_t first,
                    int64_t last, bool nan_only) {
  bool bad = false;
  if (dtype == RP_F32)
    for (int64_t i = first; i < last; i++)
      bad |= bad_f32(((const uint32_t *)data)[i], nan_only);
  else if (dtype == RP_F64)
    for (int64_t i = first; i < last; i++)
      bad |= bad_f64(((const uint64_t *)data)[i], nan_only);
  else if (dtype == RP_BF16)
    for (int64_t i = first; i < last; i++)
      bad |= bad_f32((uint32_t)((const uint16_t *)data)[i] << 16, nan_only);
  return bad;
}

/* The first element that is not as it should be, -1 when all are. */
static int64_t first_bad(const rp_type *type, const void *data,
                         bool nan_only) {
  enum { BLOCK = 8192 };
  const rp_dtype dtype = (rp_dtype)type->dtype;
  if (data == NULL || !rp_dtype_is_float(dtype)) return -1;
  const int64_t n = rp_type_count(type), blocks = (n + BLOCK - 1) / BLOCK;
  int64_t found = blocks;
#pragma omp parallel for schedule(static) reduction(min : found) \
    if (blocks > 4)
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t end = (b + 1) * BLOCK < n ? (b + 1) * BLOCK : n;
    if (any_bad(dtype, data, b * BLOCK, end, nan_only) && b < found) found = b;
  }
  if (found == blocks) return -1;
  int64_t i = found * BLOCK;
  while (!any_bad(dtype, data, i, i + 1, nan_only)) i++;
  return i;
}

static const char *kind_of(rp_dtype dtype, const void *data, int64_t i) {
  double x;
  if (dtype == RP_F64) x = ((const double *)data)[i];
  else if (dtype == RP_F32) x = ((const float *)data)[i];
  else x = rp_bf16_to_f32(((const uint16_t *)data)[i]);
  return isnan(x) ? "a NaN" : "an infinity";
}

/* ---- what a failure says ------------------------------------------------ */

enum { ORIGIN_TEXT = 160 };

static const char *leaf_name(const rp_watch *watch, int32_t leaf) {
  const int32_t binding = watch->plan->graph.leaves.at[leaf].binding;
  const char *name =
      binding < 0 ? "" : rp_leaf_name(watch->bindings->tensors.at[binding]);
  return *name ? name : "(unnamed)";
}

static int64_t leaf_bytes(const rp_graph *graph, int32_t leaf) {
  return rp_type_bytes(&graph->leaves.at[leaf].type);
}

/* The bytes where the host can read them: themselves, or a copy that is good
   until the next call. NULL with the failure said. */
static const void *host_bytes(rp_watch *watch, const void *data,
                              int64_t size) {
  rp_device *device = watch->plan->device;
  if (data == NULL || device->memory->is_host) return data;
  if (size > watch->copy_bytes) {
    void *grown = rp_grow(device->ctx, watch->copy, (size_t)watch->copy_bytes,
                          (size_t)size);
    if (grown == NULL) return NULL;
    watch->copy = grown;
    watch->copy_bytes = size;
  }
  return device->memory->read(device, watch->copy, data, size) == RP_OK
             ? watch->copy : NULL;
}

/* Whether the fault was there before: in a leaf that the node reads. */
static void blame_leaf(rp_watch *watch, const rp_graph_node *node,
                       char text[ORIGIN_TEXT]) {
  const rp_graph *graph = &watch->plan->graph;
  text[0] = 0;
  for (int32_t k = 0; k < node->n_operands; k++) {
    const int32_t leaf = rp_operand_leaf(rp_graph_in(graph, node, k));
    if (leaf < 0) continue;
    const void *data = host_bytes(watch, watch->leaf_data[leaf],
                                  leaf_bytes(graph, leaf));
    if (first_bad(&graph->leaves.at[leaf].type, data,
                  watch->anomaly == RP_ANOMALY_NAN) < 0)
      continue;
    snprintf(text, ORIGIN_TEXT, "; it reads %s, which holds one already",
             leaf_name(watch, leaf));
    return;
  }
}

static rp_status say_anomaly(rp_watch *watch, int32_t at,
                             const rp_array *out, const char *kind,
                             int64_t element) {
  const rp_plan *plan = watch->plan;
  const rp_instruction *run = &plan->program.instructions.at[at];
  const rp_graph_node *node = &plan->graph.nodes.at[run->node];
  const rp_dtype dtype = (rp_dtype)out->type.dtype;
  const char *scope = rp_scope_text(plan->ctx, node->place.scope);
  char dims[RP_DIMS_TEXT], origin[ORIGIN_TEXT];
  blame_leaf(watch, node, origin);
  return rp_fail(
      plan->ctx, RP_VALUE,
      "[detect_anomaly] %s%s%s made %s: %s %s, element %lld, %s of the %s pass "
      "(instruction %d of %d)%s. No leaf was changed.",
      node->op->name, *scope ? " in " : "", scope,
      kind, rp_dtype_name(dtype),
      rp_dims_text(&out->type, dims), (long long)element + 1,
      run->replay ? "a replay" : "a first run",
      run->node < plan->graph.n_forward ? "forward" : "backward", at + 1,
      (int)plan->program.instructions.n, origin);
}

/* 0 where the bytes cannot be read. */
static uint64_t leaf_print(rp_watch *watch, int32_t leaf) {
  const int64_t size = leaf_bytes(&watch->plan->graph, leaf);
  const void *data = host_bytes(watch, watch->leaf_data[leaf], size);
  return data ? rp_fingerprint(data, size) : 0;
}

static rp_status say_difference(rp_watch *watch, int32_t at,
                                const rp_array *out) {
  const rp_plan *plan = watch->plan;
  const rp_graph *graph = &plan->graph;
  const rp_instruction *run = &plan->program.instructions.at[at];
  const rp_graph_node *node = &graph->nodes.at[run->node];
  const char *scope = rp_scope_text(plan->ctx, node->place.scope);
  char dims[RP_DIMS_TEXT], why[ORIGIN_TEXT];
  snprintf(why, sizeof why, "none of the leaves that it reads has changed: "
           "the op is not deterministic");
  for (int32_t k = 0; k < node->n_operands; k++) {
    const int32_t leaf = rp_operand_leaf(rp_graph_in(graph, node, k));
    if (leaf < 0 || watch->leaf_data[leaf] == NULL ||
        watch->leaf_prints[leaf] == leaf_print(watch, leaf))
      continue;
    snprintf(why, sizeof why, "it reads %s, whose bytes were changed in "
             "between", leaf_name(watch, leaf));
    break;
  }
  return rp_fail(
      plan->ctx, RP_INTERNAL,
      "[verify_replay] %s%s%s: the replay made another %s %s than the first "
      "run did (instruction %d of %d); %s. No leaf was changed by this step.",
      node->op->name, *scope ? " in " : "", scope,
      rp_dtype_name((rp_dtype)out->type.dtype),
      rp_dims_text(&out->type, dims), at + 1,
      (int)plan->program.instructions.n, why);
}

/* ---- one run ------------------------------------------------------------ */

rp_status rp_watch_open(rp_watch *watch, const rp_plan *plan,
                        const rp_bindings *bindings, void *const *leaf_data) {
  rp_context *ctx = plan->ctx;
  const rp_graph *graph = &plan->graph;
  *watch = (rp_watch){.plan = plan, .bindings = bindings,
                      .leaf_data = leaf_data, .anomaly = ctx->anomaly};
  if (!ctx->verify_replay) return RP_OK;
  watch->replayed = rp_alloc(ctx, (size_t)graph->nodes.n);
  watch->prints = rp_alloc(ctx, (size_t)graph->values.n * sizeof(uint64_t));
  watch->leaf_prints =
      rp_alloc(ctx, (size_t)graph->leaves.n * sizeof(uint64_t));
  if (!watch->replayed || !watch->prints || !watch->leaf_prints)
    return RP_NOMEM;
  for (int32_t i = 0; i < plan->program.instructions.n; i++) {
    const rp_instruction *at = &plan->program.instructions.at[i];
    if (at->opcode != RP_OP_RUN || !at->replay || watch->replayed[at->node])
      continue;
    watch->replayed[at->node] = true;
    const rp_graph_node *node = &graph->nodes.at[at->node];
    for (int32_t k = 0; k < node->n_operands; k++) {
      const int32_t leaf = rp_operand_leaf(rp_graph_in(graph, node, k));
      if (leaf >= 0 && leaf_data[leaf])
        watch->leaf_prints[leaf] = leaf_print(watch, leaf);
    }
  }
  return RP_OK;
}

rp_status rp_watch_outputs(rp_watch *watch, int32_t at, const rp_array *out) {
  const rp_instruction *run = &watch->plan->program.instructions.at[at];
  const rp_graph_node *node = &watch->plan->graph.nodes.at[run->node];
  for (int32_t k = 0; k < node->n_values; k++) {
    const int64_t size = rp_type_bytes(&out[k].type);
    if (out[k].data == NULL || size == 0) continue;
    const void *data = host_bytes(watch, out[k].data, size);
    if (data == NULL) return watch->plan->ctx->status;
    if (watch->anomaly != RP_ANOMALY_NONE) {
      const int64_t element = first_bad(&out[k].type, data,
                                        watch->anomaly == RP_ANOMALY_NAN);
      if (element >= 0)
        return say_anomaly(watch, at, &out[k],
                           kind_of((rp_dtype)out[k].type.dtype, data, element),
                           element);
    }
    if (watch->prints == NULL || !watch->replayed[run->node]) continue;
    const uint64_t print = rp_fingerprint(data, size);
    uint64_t *first = &watch->prints[node->first_value + k];
    if (!run->replay) *first = print;
    else if (*first != print) return say_difference(watch, at, &out[k]);
  }
  return RP_OK;
}

void rp_watch_close(rp_watch *watch) {
  if (watch->plan == NULL) return;
  rp_context *ctx = watch->plan->ctx;
  const rp_graph *graph = &watch->plan->graph;
  rp_free(ctx, watch->copy, (size_t)watch->copy_bytes);
  rp_free(ctx, watch->replayed, (size_t)graph->nodes.n);
  rp_free(ctx, watch->prints, (size_t)graph->values.n * sizeof(uint64_t));
  rp_free(ctx, watch->leaf_prints,
          (size_t)graph->leaves.n * sizeof(uint64_t));
}
