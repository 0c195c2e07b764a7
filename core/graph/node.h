/* Nodes (recipes), tensors (handles on their outputs) and leaves.

   Invariants
     - A tensor lives inside its node; a handle on any output counts on the
       node. Nodes hold their inputs, so a held node's recipe is whole unless
       the node is DEAD.
     - ordinals grow in record order and every input is older than its
       reader: ordinal order is a topological order.
     - A view's outputs alias `root` (never itself a view) with strides fixed
       when it was recorded; every other node's outputs are contiguous, and
       root is the tensor itself.
     - versions[i] is the version of the leaf that input i reads (through
       views), 0 where it reads no leaf. A node whose versions lag behind its
       leaf's, or whose unheld input is dead, can never run: rp_sweep makes it
       DEAD and lets its inputs go. Views do not die: they show what is there.
     - a gradient leaf without storage is no gradient (rp_tensor_grad). */
#ifndef RP_GRAPH_NODE_H
#define RP_GRAPH_NODE_H

#include "base/memory.h"
#include "base/type.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rp_node rp_node;

/* Bytes that outlive a program; counted. */
typedef struct rp_storage {
  rp_device *device;
  int64_t size;
  int32_t refs;
  int64_t used; /* the device's run that read or wrote it last */
  int32_t slot; /* its value is there too, while delivered[slot] is ... */
  int64_t run;  /* ... this */
  void *data;
} rp_storage;

struct rp_tensor {
  rp_node *node;
  rp_tensor *root;
  rp_storage *storage; /* roots only: the held value, NULL when not held */
  rp_tensor *grad;     /* leaves only: the accumulated gradient */
  rp_type type;
  rp_strides strides;
  uint8_t index;
  bool requires_grad, keep, tap;
};

typedef struct rp_leaf_data {
  rp_role role;
  uint32_t version;   /* of the bytes, from 1 */
  char *name;
  rp_tensor *recipe;  /* first bytes, until made */
  const char *writer; /* what made the present version, for messages */
  void *mirror;       /* integers on a device: the host's copy ... */
  uint32_t mirrored;  /* ... of this version; 0: none */
  double number[8];   /* RP_NUMBER: room for the bytes themselves */
} rp_leaf_data;

enum {
  RP_NODE_DEAD = 1,     /* can never run again; stale_* says why */
  RP_NODE_BACKWARD = 2, /* emitted by autodiff or an optimizer */
  RP_NODE_NO_GRAD = 4,  /* recorded under no_grad: no gradient passes */
  RP_NODE_EFFECTED = 8  /* its effects (op.effects) have run */
};

/* What a random node draws: number `draw` after the seed was set to `seed`.
   Two nodes draw the same where id is the same. */
typedef struct rp_stream {
  uint64_t id, seed, draw;
} rp_stream;

struct rp_node {
  const rp_op *op;
  rp_context *ctx;
  rp_node *prev, *next; /* the context's list, in ordinal order */
  uint64_t ordinal;
  rp_stream stream;     /* random nodes */
  uint64_t origin;      /* BACKWARD: ordinal of the node it is a gradient of */
  int32_t refs;
  uint16_t n_inputs, n_outputs, n_ints, n_reals;
  uint8_t flags;
  int8_t device;        /* slot, or RP_ANYWHERE */
  rp_place place;
  uint64_t walk;        /* the last walk that met this node ... */
  int32_t walk_index;   /* ... and its index there */
  rp_tensor **inputs;
  uint32_t *versions;
  int64_t *ints;
  double *reals;
  rp_leaf_data *leaf;   /* leaves only */
  char *stale_name;     /* DEAD: the leaf to blame (owned), and ... */
  const char *stale_writer;
  size_t size_bytes;
  rp_tensor outputs[];
};

extern const rp_op rp_op_leaf;

/* The node behind a tensor's bytes: its root's. */
static inline rp_node *rp_root_node(const rp_tensor *t) {
  return t->root->node;
}
static inline bool rp_is_leaf(const rp_tensor *t) {
  return t->node->leaf != NULL;
}
/* t's bytes are there: a leaf (they can always be made) or held. */
static inline bool rp_is_available(const rp_tensor *t) {
  return t->root->node->leaf != NULL || t->root->storage != NULL;
}

rp_storage *rp_storage_new(rp_device *device, int64_t size);
/* Where the node's bytes lie. */
rp_device *rp_node_device(const rp_node *node);
void rp_storage_release(rp_storage *storage);

/* A leaf's bytes where the host can read them; NULL with the failure said. It
   has bytes. */
const void *rp_leaf_host_bytes(rp_tensor *leaf);
/* Lets go of a leaf's host copy. */
void rp_leaf_drop_mirror(rp_node *node);
/* The leaf's first bytes when it has none: the value of its recipe, run as a
   program of its own, or zeros. exec/read.c. */
rp_status rp_leaf_make(rp_tensor *leaf);
/* The same for a leaf without a recipe. */
rp_status rp_leaf_materialize(rp_tensor *leaf);
/* The bytes of a leaf or held root; NULL when there are none yet. */
void *rp_root_data(const rp_tensor *root);
/* The leaf has new bytes: its next version. Readers of the older one die at
   the next rp_sweep. `writer` is a literal. */
void rp_leaf_bump(rp_tensor *leaf, const char *writer);
/* Lets go what dead recipes hold. O(live nodes). */
void rp_sweep(rp_context *ctx);
/* Says RP_STALE with the leaf and both places when node cannot run. */
rp_status rp_node_check_fresh(rp_node *node);

#ifdef __cplusplus
}
#endif

#endif
