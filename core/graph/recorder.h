/* What recording keeps in the context: the list of live nodes, the interned
   scopes, layers and segments, and the present place.

   Invariants: scopes form a tree; scope 0 is the empty name; a scope's text
   is made once. Layer, entry and segment instances are numbered from 1 and
   never reused; info[i] describes instance i of the tail that is still in
   use. */
#ifndef RP_GRAPH_RECORDER_H
#define RP_GRAPH_RECORDER_H

#include "graph/node.h"

typedef struct rp_scope {
  int32_t parent;
  uint32_t hash;
  char *text;
} rp_scope;

typedef struct rp_recorder {
  rp_node *first, *last; /* live nodes, by ordinal */
  int64_t nodes;
  int64_t pending_notice; /* nodes at which the next notice is due */
  uint64_t ordinal, walk;
  uint64_t streams, draws; /* given out; draws: since the seed was set */
  RP_ARRAY(rp_scope) scopes;
  int32_t *scope_table; /* open addressing, capacity a power of two */
  int32_t scope_slots;
  rp_place place;
  int32_t layers, entries; /* instances given out */
  /* Parent of segment instance segment_base + 1 + i. */
  RP_ARRAY(int32_t) segment_parents;
  int32_t segment_base, segment_prune; /* forget old ones at this many */
  int8_t device; /* slot of what is made without inputs */
  bool grad_enabled;
  bool autocast; /* rp_record's products take bf16 */
  bool stale;    /* a leaf has changed since the last sweep */
  bool ran_twice; /* the notice about early runs has been given */
  bool emitting; /* autodiff or an optimizer is recording ... */
  uint64_t origin; /* ... for the node of this ordinal */
} rp_recorder;

rp_recorder *rp_recorder_new(rp_context *ctx);
void rp_recorder_free(rp_context *ctx);

const char *rp_scope_text(const rp_context *ctx, int32_t scope);
/* The segment instance around `segment`, 0 when there is none. */
int32_t rp_segment_parent(const rp_context *ctx, int32_t segment);

#endif
