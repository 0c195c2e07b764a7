#include "graph/key.h"

#include <string.h>

#include "base/context.h"
#include "base/map.h"
#include "graph/recorder.h"
#include "graph/registry.h"

rp_status rp_key_add(rp_key *key, rp_context *ctx, int64_t word) {
  if (!rp_array_room(ctx, &key->words, sizeof(int64_t), 1)) return RP_NOMEM;
  key->words.at[key->words.n++] = word;
  return RP_OK;
}

static rp_status add_bytes(rp_key *key, rp_context *ctx, const void *bytes,
                           size_t size) {
  const int32_t words = (int32_t)((size + 7) / 8);
  if (!rp_array_room(ctx, &key->words, sizeof(int64_t), words + 1))
    return RP_NOMEM;
  key->words.at[key->words.n++] = (int64_t)size;
  if (size == 0) return RP_OK;
  key->words.at[key->words.n + words - 1] = 0;
  memcpy(&key->words.at[key->words.n], bytes, size);
  key->words.n += words;
  return RP_OK;
}

rp_status rp_key_add_text(rp_key *key, rp_context *ctx, const char *text) {
  return add_bytes(key, ctx, text, strlen(text));
}

rp_status rp_bindings_add(rp_bindings *bindings, rp_context *ctx,
                          rp_tensor *tensor) {
  if (!rp_array_room(ctx, &bindings->tensors, sizeof(rp_tensor *), 1))
    return RP_NOMEM;
  bindings->tensors.at[bindings->tensors.n++] = tensor;
  return RP_OK;
}

void rp_bindings_free(rp_bindings *bindings, rp_context *ctx) {
  rp_array_free(ctx, &bindings->tensors, sizeof(rp_tensor *));
  rp_array_free(ctx, &bindings->streams, sizeof(rp_stream));
}

typedef struct writer {
  rp_key *key;
  rp_context *ctx;
  const rp_walk *walk;
  rp_bindings *bindings;
  rp_map layers, entries, segments, streams;
} writer;

static void put(writer *w, int64_t word) {
  w->key->words.at[w->key->words.n++] = word;
}

/* Instance numbers by first appearance, so that the next step's are equal. */
static int64_t number(writer *w, rp_map *map, int32_t instance,
                      rp_status *status) {
  if (instance == 0) return 0;
  const int32_t n = rp_map_number(map, w->ctx, (uint64_t)(uint32_t)instance);
  if (n < 0) *status = RP_NOMEM;
  return n + 1;
}

static rp_status write_place(writer *w, const rp_place *place) {
  rp_status status = RP_OK;
  put(w, (int64_t)place->scope << 32 | (uint32_t)place->layer_scope);
  put(w, number(w, &w->layers, place->layer, &status) << 32 |
             number(w, &w->entries, place->entry, &status));
  put(w, place->entry_scope);
  int32_t depth = 0;
  int32_t *const at = &w->key->words.n;
  const int32_t count_at = (*at)++;
  for (int32_t s = place->segment; s != 0 && depth < 64;
       s = rp_segment_parent(w->ctx, s), depth++)
    put(w, number(w, &w->segments, s, &status));
  w->key->words.at[count_at] = depth;
  return status;
}

static rp_status write_outputs(writer *w, rp_node *node) {
  for (int k = 0; k < node->n_outputs; k++) {
    rp_tensor *t = &node->outputs[k];
    put(w, t->requires_grad | t->keep << 1 | t->tap << 2 |
               (t->storage != NULL) << 3 |
               t->type.rank << 8 | t->type.dtype << 16);
    for (int d = 0; d < t->type.rank; d++) put(w, t->type.dims[d]);
    if (t->storage != NULL && node->leaf == NULL) {
      const rp_status status = rp_bindings_add(w->bindings, w->ctx, t);
      if (status != RP_OK) return status;
    }
  }
  return RP_OK;
}

/* Words a node can take: fixed ones, inputs, attributes, outputs, marks. */
static int32_t room_for(const rp_node *node) {
  return 96 + 2 * node->n_inputs + node->n_ints + node->n_reals +
         node->n_outputs * (1 + RP_RANK);
}

static rp_status write_node(writer *w, rp_node *node) {
  if (!rp_array_room(w->ctx, &w->key->words, sizeof(int64_t), room_for(node)))
    return RP_NOMEM;
  put(w, (int64_t)rp_op_index(node->op) << 32 |
             (node->flags & (RP_NODE_NO_GRAD | RP_NODE_DEAD |
                             RP_NODE_EFFECTED)) << 24 |
             node->n_inputs);
  put(w, (int64_t)node->n_ints << 32 | node->n_reals);
  for (int i = 0; i < node->n_inputs; i++) {
    const rp_node *source = node->inputs[i]->node;
    /* Not met: behind a held value that nobody looks through. */
    int64_t at = INT32_MAX;
    if (rp_walk_met(w->walk, source))
      at = source->leaf ? -1 - (int64_t)source->walk_index
                        : source->walk_index;
    put(w, at * 64 + node->inputs[i]->index);
  }
  for (int i = 0; i < node->n_ints; i++) put(w, node->ints[i]);
  for (int i = 0; i < node->n_reals; i++) {
    int64_t bits;
    memcpy(&bits, &node->reals[i], sizeof bits);
    put(w, bits);
  }
  if (node->op->flags & RP_RANDOM) {
    const int32_t before = w->streams.n;
    const int32_t n = rp_map_number(&w->streams, w->ctx, node->stream.id);
    if (n < 0) return RP_NOMEM;
    put(w, n);
    if (n == before) {
      if (!rp_array_room(w->ctx, &w->bindings->streams, sizeof(rp_stream), 1))
        return RP_NOMEM;
      w->bindings->streams.at[w->bindings->streams.n++] = node->stream;
    }
  }
  const rp_status status = write_place(w, &node->place);
  return status == RP_OK ? write_outputs(w, node) : status;
}

static rp_status write_leaf(writer *w, rp_node *node) {
  if (!rp_array_room(w->ctx, &w->key->words, sizeof(int64_t), 32))
    return RP_NOMEM;
  put(w, node->leaf->role);
  rp_tensor *t = &node->outputs[0];
  put(w, t->requires_grad | (rp_tensor_grad(t) != NULL) << 1 |
             t->type.rank << 8 | t->type.dtype << 16);
  for (int d = 0; d < t->type.rank; d++) put(w, t->type.dims[d]);
  return rp_bindings_add(w->bindings, w->ctx, t);
}

rp_status rp_key_add_walk(rp_key *key, rp_context *ctx, const rp_walk *walk,
                          rp_bindings *bindings) {
  writer w = {.key = key, .ctx = ctx, .walk = walk, .bindings = bindings};
  rp_status status = rp_key_add(key, ctx, walk->leaves.n);
  if (status == RP_OK) status = rp_key_add(key, ctx, walk->nodes.n);
  for (int32_t i = 0; i < walk->leaves.n && status == RP_OK; i++)
    status = write_leaf(&w, walk->leaves.at[i]);
  for (int32_t i = 0; i < walk->nodes.n && status == RP_OK; i++)
    status = write_node(&w, walk->nodes.at[i]);
  rp_map_free(&w.layers, ctx);
  rp_map_free(&w.entries, ctx);
  rp_map_free(&w.segments, ctx);
  rp_map_free(&w.streams, ctx);
  return status;
}

void rp_key_finish(rp_key *key) {
  uint64_t h = 0xcbf29ce484222325u;
  for (int32_t i = 0; i < key->words.n; i++) {
    h = (h ^ (uint64_t)key->words.at[i]) * 0x9E3779B97F4A7C15u;
    h ^= h >> 29;
  }
  key->hash = h;
}

bool rp_key_equal(const rp_key *a, const rp_key *b) {
  return a->hash == b->hash && a->words.n == b->words.n &&
         memcmp(a->words.at, b->words.at,
                (size_t)a->words.n * sizeof(int64_t)) == 0;
}

void rp_key_free(rp_key *key, rp_context *ctx) {
  rp_array_free(ctx, &key->words, sizeof(int64_t));
  key->hash = 0;
}
