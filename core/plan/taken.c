#include "plan/taken.h"

#include <stdlib.h>

#include "base/context.h"

enum { BITS = 64 };

typedef struct place {
  int64_t offset;
  int32_t instance;
} place;

static int by_offset(const void *a, const void *b) {
  const place *x = a, *y = b;
  if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
  return (x->instance > y->instance) - (x->instance < y->instance);
}

static int32_t count_words(rp_taken *t) {
  int32_t words = 0, n = t->n;
  do {
    t->first[t->levels++] = words;
    n = n / BITS + 1;
    words += n;
  } while (n > 1);
  t->first[t->levels] = words;
  return words;
}

rp_status rp_taken_open(rp_taken *t, rp_context *ctx, const int64_t *offsets,
                        int32_t n) {
  *t = (rp_taken){.offsets = offsets, .n = n};
  const size_t size = (size_t)n * sizeof(int32_t);
  const size_t places_size = (size_t)n * sizeof(place);
  place *places = rp_alloc(ctx, places_size);
  t->instance_at = rp_alloc(ctx, size);
  t->rank_of = rp_alloc(ctx, size);
  t->words = rp_alloc(ctx, (size_t)count_words(t) * sizeof *t->words);
  const bool made = places && t->instance_at && t->rank_of && t->words;
  if (made) {
    for (int32_t i = 0; i < n; i++) places[i] = (place){offsets[i], i};
    qsort(places, (size_t)n, sizeof *places, by_offset);
    for (int32_t r = 0; r < n; r++) {
      t->instance_at[r] = places[r].instance;
      t->rank_of[places[r].instance] = r;
    }
  }
  rp_free(ctx, places, places_size);
  if (made) return RP_OK;
  rp_taken_close(t, ctx);
  return RP_NOMEM;
}

void rp_taken_close(rp_taken *t, rp_context *ctx) {
  const size_t size = (size_t)t->n * sizeof(int32_t);
  rp_free(ctx, t->instance_at, size);
  rp_free(ctx, t->rank_of, size);
  rp_free(ctx, t->words, (size_t)t->first[t->levels] * sizeof *t->words);
  *t = (rp_taken){0};
}

void rp_taken_put(rp_taken *t, int32_t instance) {
  int32_t at = t->rank_of[instance];
  for (int32_t l = 0; l < t->levels; l++, at /= BITS)
    t->words[t->first[l] + at / BITS] |= (uint64_t)1 << at % BITS;
}

void rp_taken_drop(rp_taken *t, int32_t instance) {
  int32_t at = t->rank_of[instance];
  for (int32_t l = 0; l < t->levels; l++, at /= BITS) {
    uint64_t *word = &t->words[t->first[l] + at / BITS];
    *word &= ~((uint64_t)1 << at % BITS);
    if (*word != 0) return;
  }
}

/* The highest rank in the set that is less than `rank`, -1. */
static int32_t rank_below(const rp_taken *t, int32_t rank) {
  int32_t at = rank, l = 0;
  for (;; at /= BITS, l++) {
    if (l == t->levels) return -1;
    const uint64_t lower = ((uint64_t)1 << at % BITS) - 1;
    const uint64_t word = t->words[t->first[l] + at / BITS] & lower;
    if (word == 0) continue;
    at = at / BITS * BITS + BITS - 1 - __builtin_clzll(word);
    break;
  }
  while (l-- > 0)
    at = at * BITS + BITS - 1 - __builtin_clzll(t->words[t->first[l] + at]);
  return at;
}

static int32_t instance_below(const rp_taken *t, int32_t rank) {
  const int32_t found = rank_below(t, rank);
  return found < 0 ? -1 : t->instance_at[found];
}

int32_t rp_taken_below(const rp_taken *t, int64_t offset) {
  int32_t low = 0, high = t->n;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (t->offsets[t->instance_at[middle]] < offset) low = middle + 1;
    else high = middle;
  }
  return instance_below(t, low);
}

int32_t rp_taken_before(const rp_taken *t, int32_t instance) {
  return instance_below(t, t->rank_of[instance]);
}
