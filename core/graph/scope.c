/* Places: interned scopes, layer, entry and segment instances. */
#include <string.h>

#include "base/context.h"
#include "graph/recorder.h"

enum { SCOPE_TEXT_MAX = 1000, SEGMENTS_KEPT = 128 };

static uint32_t hash_text(const char *text) {
  uint32_t h = 2166136261u;
  for (; *text; text++) h = (h ^ (uint8_t)*text) * 16777619u;
  return h;
}

/* The slot of text, or the free one where it belongs. */
static int32_t *scope_slot(const rp_recorder *r, const char *text,
                           uint32_t hash) {
  uint32_t at = hash & (uint32_t)(r->scope_slots - 1);
  for (;; at = (at + 1) & (uint32_t)(r->scope_slots - 1)) {
    const int32_t id = r->scope_table[at];
    if (id < 0) return &r->scope_table[at];
    const rp_scope *scope = &r->scopes.at[id];
    if (scope->hash == hash && strcmp(scope->text, text) == 0)
      return &r->scope_table[at];
  }
}

static bool scope_table_grow(rp_context *ctx) {
  rp_recorder *r = ctx->recorder;
  const int32_t slots = r->scope_slots ? 2 * r->scope_slots : 256;
  int32_t *table = rp_alloc(ctx, (size_t)slots * sizeof *table);
  if (table == NULL) return false;
  memset(table, 0xff, (size_t)slots * sizeof *table);
  rp_free(ctx, r->scope_table, (size_t)r->scope_slots * sizeof *table);
  r->scope_table = table;
  r->scope_slots = slots;
  for (int32_t i = 0; i < r->scopes.n; i++)
    *scope_slot(r, r->scopes.at[i].text, r->scopes.at[i].hash) = i;
  return true;
}

/* The scope called text, made when it is new; -1 without memory. */
static int32_t intern(rp_context *ctx, int32_t parent, const char *text) {
  rp_recorder *r = ctx->recorder;
  if (2 * r->scopes.n >= r->scope_slots && !scope_table_grow(ctx)) return -1;
  const uint32_t hash = hash_text(text);
  int32_t *slot = scope_slot(r, text, hash);
  if (*slot >= 0) return *slot;
  if (!rp_array_room(ctx, &r->scopes, sizeof *r->scopes.at, 1)) return -1;
  const size_t size = strlen(text) + 1;
  char *copy = rp_alloc(ctx, size);
  if (copy == NULL) return -1;
  memcpy(copy, text, size);
  r->scopes.at[r->scopes.n] =
      (rp_scope){.parent = parent, .hash = hash, .text = copy};
  return *slot = r->scopes.n++;
}

rp_recorder *rp_recorder_new(rp_context *ctx) {
  rp_recorder *r = rp_alloc(ctx, sizeof *r);
  if (r == NULL) return NULL;
  ctx->recorder = r;
  r->grad_enabled = true;
  r->segment_prune = SEGMENTS_KEPT;
  r->pending_notice = 100000;
  /* Room for all that are kept at once, so that a loop's account is level
     from its first step. */
  if (!rp_array_room(ctx, &r->segment_parents, sizeof(int32_t),
                     2 * SEGMENTS_KEPT) ||
      intern(ctx, -1, "") < 0) {
    rp_recorder_free(ctx);
    return NULL;
  }
  return r;
}

void rp_recorder_free(rp_context *ctx) {
  rp_recorder *r = ctx->recorder;
  if (r == NULL) return;
  for (int32_t i = 0; i < r->scopes.n; i++)
    rp_free(ctx, r->scopes.at[i].text, strlen(r->scopes.at[i].text) + 1);
  rp_array_free(ctx, &r->scopes, sizeof *r->scopes.at);
  rp_free(ctx, r->scope_table, (size_t)r->scope_slots * sizeof(int32_t));
  rp_array_free(ctx, &r->segment_parents, sizeof(int32_t));
  rp_free(ctx, r, sizeof *r);
  ctx->recorder = NULL;
}

const char *rp_scope_text(const rp_context *ctx, int32_t scope) {
  return ctx->recorder->scopes.at[scope].text;
}

rp_place rp_place_get(const rp_context *ctx) { return ctx->recorder->place; }
void rp_place_set(rp_context *ctx, rp_place place) {
  ctx->recorder->place = place;
}

rp_status rp_scope_enter(rp_context *ctx, const char *name) {
  rp_recorder *r = ctx->recorder;
  const char *outer = rp_scope_text(ctx, r->place.scope);
  char text[SCOPE_TEXT_MAX];
  const size_t outer_size = strlen(outer), name_size = strlen(name);
  if (outer_size + name_size + 2 > sizeof text)
    return rp_fail(ctx, RP_VALUE, "scope name '%.40s...' is too long: at most "
                   "%d characters in all", name, SCOPE_TEXT_MAX - 2);
  memcpy(text, outer, outer_size);
  size_t at = outer_size;
  if (at > 0) text[at++] = '.';
  memcpy(text + at, name, name_size + 1);
  const int32_t scope = intern(ctx, r->place.scope, text);
  if (scope < 0) return RP_NOMEM;
  r->place.scope = scope;
  return RP_OK;
}

rp_status rp_layer_enter(rp_context *ctx) {
  rp_recorder *r = ctx->recorder;
  if (r->place.layer != 0) return RP_OK;
  r->place.layer = ++r->layers;
  r->place.layer_scope = r->place.scope;
  return RP_OK;
}

rp_status rp_entry_enter(rp_context *ctx) {
  rp_recorder *r = ctx->recorder;
  if (r->place.entry != 0) return RP_OK;
  r->place.entry = ++r->entries;
  r->place.entry_scope = r->place.scope;
  return RP_OK;
}

/* Forgets segments older than any that a live node is in. */
static void prune_segments(rp_recorder *r) {
  int32_t oldest = r->segment_base + r->segment_parents.n + 1;
  for (const rp_node *node = r->first; node; node = node->next)
    if (node->place.segment > 0 && node->place.segment < oldest)
      oldest = node->place.segment;
  const int32_t gone = oldest - r->segment_base - 1;
  r->segment_parents.n -= gone;
  memmove(r->segment_parents.at, r->segment_parents.at + gone,
          (size_t)r->segment_parents.n * sizeof(int32_t));
  r->segment_base += gone;
  r->segment_prune = 2 * r->segment_parents.n;
  if (r->segment_prune < SEGMENTS_KEPT) r->segment_prune = SEGMENTS_KEPT;
}

rp_status rp_segment_enter(rp_context *ctx) {
  rp_recorder *r = ctx->recorder;
  /* An inner segment's ancestors may have no node yet, so they are counted
     as old only when no segment is open. */
  if (r->place.segment == 0 && r->segment_parents.n >= r->segment_prune)
    prune_segments(r);
  if (!rp_array_room(ctx, &r->segment_parents, sizeof(int32_t), 1))
    return RP_NOMEM;
  r->segment_parents.at[r->segment_parents.n++] = r->place.segment;
  r->place.segment = r->segment_base + r->segment_parents.n;
  return RP_OK;
}

int32_t rp_segment_parent(const rp_context *ctx, int32_t segment) {
  const rp_recorder *r = ctx->recorder;
  const int32_t at = segment - r->segment_base - 1;
  return at >= 0 && at < r->segment_parents.n ? r->segment_parents.at[at] : 0;
}
