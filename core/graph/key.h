/* The plan key: a serialisation of everything that decides what a program
   is, in walk order, compared in full.

   In it: structure, ops, attributes, shapes, dtypes, places (scope, layer,
   mark), which leaf is which (role, place in the walk), what is held, kept,
   tapped, trainable. Not in it: bytes of leaves, plain numbers, which random
   streams are drawn from (only which are the same). */
#ifndef RP_GRAPH_KEY_H
#define RP_GRAPH_KEY_H

#include "graph/graph.h"
#include "graph/walk.h"

typedef struct rp_key {
  RP_ARRAY(int64_t) words;
  uint64_t hash; /* of all words, once finished */
} rp_key;

rp_status rp_key_add(rp_key *key, rp_context *ctx, int64_t word);
rp_status rp_key_add_text(rp_key *key, rp_context *ctx, const char *text);
/* Adds the walk and fills bindings with its leaves, held values and random
   streams, in the key's order. RP_STALE when a node can no longer run. */
rp_status rp_key_add_walk(rp_key *key, rp_context *ctx, const rp_walk *walk,
                          rp_bindings *bindings);
void rp_key_finish(rp_key *key);
bool rp_key_equal(const rp_key *a, const rp_key *b);
void rp_key_free(rp_key *key, rp_context *ctx);
void rp_bindings_free(rp_bindings *bindings, rp_context *ctx);
rp_status rp_bindings_add(rp_bindings *bindings, rp_context *ctx,
                          rp_tensor *tensor);

#endif
