/* A node's life: made, linked in record order, dropped with its last reference;
   and its death before that, where it can never run again.

   Invariant: nodes that go wait in a list that runs through `next`, so nothing
   recurses, however long the chain. */
#include <string.h>

#include "base/context.h"
#include "graph/op.h"
#include "graph/record.h"
#include "graph/recorder.h"

/* One block: node, outputs, then inputs, ints, reals, versions. */
rp_node *rp_node_new(rp_context *ctx, const rp_op *op, int n_inputs,
                     int n_outputs, int n_ints, int n_reals) {
  /* An effect has no output, but its handle still has to be somewhere. */
  const int slots = n_outputs ? n_outputs : 1;
  const size_t fixed = sizeof(rp_node) + (size_t)slots * sizeof(rp_tensor);
  const size_t size = fixed + (size_t)n_inputs * sizeof(rp_tensor *) +
                      (size_t)n_ints * sizeof(int64_t) +
                      (size_t)n_reals * sizeof(double) +
                      (size_t)n_inputs * sizeof(uint32_t);
  rp_node *node = rp_alloc(ctx, size);
  if (node == NULL) return NULL;
  char *at = (char *)node + fixed;
  node->inputs = (rp_tensor **)at;
  at += (size_t)n_inputs * sizeof(rp_tensor *);
  node->ints = (int64_t *)at;
  at += (size_t)n_ints * sizeof(int64_t);
  node->reals = (double *)at;
  at += (size_t)n_reals * sizeof(double);
  node->versions = (uint32_t *)at;
  node->ctx = ctx;
  node->op = op;
  node->refs = 1;
  node->n_outputs = (uint16_t)n_outputs;
  node->n_ints = (uint16_t)n_ints;
  node->n_reals = (uint16_t)n_reals;
  node->size_bytes = size;
  for (int k = 0; k < slots; k++) {
    node->outputs[k].node = node;
    node->outputs[k].root = &node->outputs[k];
    node->outputs[k].index = (uint8_t)k;
  }
  return node;
}

void rp_node_link(rp_node *node) {
  rp_recorder *r = node->ctx->recorder;
  node->ordinal = ++r->ordinal;
  node->prev = r->last;
  if (r->last) r->last->next = node; else r->first = node;
  r->last = node;
  r->nodes++;
}

static void node_unlink(rp_node *node) {
  rp_recorder *r = node->ctx->recorder;
  if (node->ordinal == 0) return; /* never linked */
  if (node->prev) node->prev->next = node->next; else r->first = node->next;
  if (node->next) node->next->prev = node->prev; else r->last = node->prev;
  node->prev = node->next = NULL;
  r->nodes--;
}

/* Takes one reference; a node without any is unlinked and put on the list,
   which runs through `next`: no recursion however long the chain. */
static void drop(rp_tensor *t, rp_node **list) {
  rp_node *node = t->node;
  if (--node->refs > 0) return;
  node_unlink(node);
  node->next = *list;
  *list = node;
}

static void drop_inputs(rp_node *node, rp_node **list) {
  for (int i = 0; i < node->n_inputs; i++) drop(node->inputs[i], list);
  node->n_inputs = 0;
}

static void free_string(rp_context *ctx, char *text) {
  if (text) rp_free(ctx, text, strlen(text) + 1);
}

static void drain(rp_node *list) {
  while (list) {
    rp_node *node = list;
    list = node->next;
    rp_context *ctx = node->ctx;
    drop_inputs(node, &list);
    for (int k = 0; k < node->n_outputs; k++) {
      rp_tensor *t = &node->outputs[k];
      if (t->storage) rp_storage_release(t->storage);
      if (t->grad) drop(t->grad, &list);
    }
    if (node->leaf) {
      if (node->leaf->recipe) drop(node->leaf->recipe, &list);
      free_string(ctx, node->leaf->name);
      rp_leaf_drop_mirror(node);
      rp_free(ctx, node->leaf, sizeof *node->leaf);
    }
    free_string(ctx, node->stale_name);
    rp_free(ctx, node, node->size_bytes);
  }
}

void rp_tensor_retain(rp_tensor *t) { t->node->refs++; }

void rp_tensor_release(rp_tensor *t) {
  if (t == NULL) return;
  rp_node *list = NULL;
  drop(t, &list);
  drain(list);
}

void rp_node_discard(rp_node *node) {
  rp_node *list = NULL;
  drop_inputs(node, &list);
  rp_free(node->ctx, node, node->size_bytes);
  drain(list);
}

/* ---- what can never run again -------------------------------------------- */

static const rp_node *stale_input(const rp_node *node) {
  for (int i = 0; i < node->n_inputs; i++) {
    const rp_tensor *root = node->inputs[i]->root;
    const rp_node *source = root->node;
    if (source->leaf) {
      if (node->versions[i] != 0 &&
          source->leaf->version != node->versions[i])
        return source;
    } else if ((source->flags & RP_NODE_DEAD) && root->storage == NULL) {
      return source;
    }
  }
  return NULL;
}

static void node_die(rp_node *node, const rp_node *source, rp_node **list) {
  node->flags |= RP_NODE_DEAD;
  const char *name = source->leaf ? source->leaf->name : source->stale_name;
  if (name) {
    /* Without memory for it the message does without the name. */
    node->stale_name = rp_alloc(node->ctx, strlen(name) + 1);
    if (node->stale_name) memcpy(node->stale_name, name, strlen(name) + 1);
    else rp_clear_error(node->ctx);
  }
  node->stale_writer =
      source->leaf ? source->leaf->writer : source->stale_writer;
  drop_inputs(node, list);
}

void rp_sweep(rp_context *ctx) {
  if (!ctx->recorder->stale) return;
  ctx->recorder->stale = false;
  rp_node *list = NULL;
  /* Record order: a node's inputs are judged before it. Freed nodes are only
     unlinked here, so `next` stays good until the drain. */
  for (rp_node *node = ctx->recorder->first; node;) {
    rp_node *next = node->next;
    /* A view reads what its root holds now, whatever that is. */
    if (node->n_inputs > 0 && !(node->flags & RP_NODE_DEAD) &&
        !(node->op->flags & RP_VIEW)) {
      const rp_node *source = stale_input(node);
      if (source) node_die(node, source, &list);
    }
    node = next;
  }
  drain(list);
  ctx->recorder->pending_notice = 100000 + 2 * ctx->recorder->nodes;
}

rp_status rp_stale_fail(const rp_node *node, const char *op) {
  const char *scope = rp_scope_text(node->ctx, node->place.scope);
  return rp_fail(
      node->ctx, RP_STALE,
      "[%s] reads a recipe (%s%s%s) recorded before %s was changed by %s: its "
      "older value is gone. Record it again after the change, or ask for the "
      "value in the same step: opt:minimize(loss, {also = {value}})",
      op, node->op->name, *scope ? ", recorded in " : "", scope,
      node->stale_name ? node->stale_name : "a leaf it reads",
      node->stale_writer ? node->stale_writer : "an assignment");
}

rp_status rp_check_fresh(const rp_tensor *t, const char *op) {
  const rp_node *node = rp_root_node(t);
  if (!(node->flags & RP_NODE_DEAD) || t->root->storage) return RP_OK;
  return rp_stale_fail(node, op);
}

rp_status rp_node_check_fresh(rp_node *node) {
  if (node->op->flags & RP_VIEW) {
    for (int k = 0; k < node->n_outputs; k++)
      if (rp_check_fresh(&node->outputs[k], node->op->name) != RP_OK)
        return RP_STALE;
    return RP_OK;
  }
  if (node->flags & RP_NODE_DEAD) return rp_stale_fail(node, node->op->name);
  const rp_node *source = stale_input(node);
  if (source == NULL) return RP_OK;
  rp_node *list = NULL;
  node_die(node, source, &list);
  const rp_status status = rp_stale_fail(node, node->op->name);
  drain(list);
  return status;
}
