#include "plan/chain.h"

#include <math.h>
#include <string.h>

#include "base/context.h"

/* ---- words -------------------------------------------------------------- */

/* Pairs i <= j are packed by length. */
static size_t pair(int32_t n, int32_t i, int32_t j) {
  const size_t length = (size_t)(j - i);
  return length * (size_t)n - length * (length - 1) / 2 + (size_t)i;
}

static size_t pairs(int32_t n) { return (size_t)n * ((size_t)n + 1) / 2; }

static bool same_block(const rp_chain_block *a, const rp_chain_block *b) {
  if (a->input != b->input || a->forward != b->forward ||
      a->forward_seconds != b->forward_seconds ||
      a->n_options != b->n_options)
    return false;
  for (int32_t k = 0; k < a->n_options; k++)
    if (a->options[k].kept != b->options[k].kept ||
        a->options[k].backward != b->options[k].backward ||
        a->options[k].seconds != b->options[k].seconds)
      return false;
  return true;
}

/* Words of one length are those of the length before and the block behind
   them: known ones are listed by the former. */
typedef struct speller {
  int32_t *head;      /* by word of the length before: its first entry */
  int32_t *next;      /* by word */
  int32_t *last_kind; /* by word: the kind of its last block */
} speller;

static int32_t spell(speller *s, int32_t before, int32_t kind, int32_t *n) {
  for (int32_t w = s->head[before]; w >= 0; w = s->next[w])
    if (s->last_kind[w] == kind) return w;
  s->next[*n] = s->head[before];
  s->last_kind[*n] = kind;
  s->head[before] = *n;
  return (*n)++;
}

rp_status rp_chain_words_find(rp_chain_words *words, rp_context *ctx,
                              const rp_chain_block *blocks, int32_t n) {
  *words = (rp_chain_words){.n = n};
  words->number = rp_alloc(ctx, pairs(n) * sizeof(int32_t));
  words->first = rp_alloc(ctx, (size_t)(n + 1) * sizeof(int64_t));
  const size_t size = (size_t)n * sizeof(int32_t);
  speller s = {.head = rp_alloc(ctx, size), .next = rp_alloc(ctx, size),
               .last_kind = rp_alloc(ctx, size)};
  const bool ready =
      words->number && words->first && s.head && s.next && s.last_kind;
  for (int32_t i = 0; ready && i < n; i++) { /* head: a block of each kind */
    int32_t kind = 0;
    while (kind < words->n_kinds &&
           !same_block(&blocks[s.head[kind]], &blocks[i]))
      kind++;
    if (kind == words->n_kinds) s.head[words->n_kinds++] = i;
    words->number[i] = kind;
  }
  int32_t count = words->n_kinds;
  for (int32_t length = 0; ready && length < n; length++) {
    const int32_t before = count;
    if (length > 0) {
      memset(s.head, 0xff, (size_t)before * sizeof *s.head);
      count = 0;
      for (int32_t i = 0; i + length < n; i++)
        words->number[pair(n, i, i + length)] =
            spell(&s, words->number[pair(n, i, i + length - 1)],
                  words->number[i + length], &count);
    }
    words->first[length] = words->n_words;
    words->n_words += count;
    words->work += (double)count * (length + 1);
  }
  rp_free(ctx, s.head, size);
  rp_free(ctx, s.next, size);
  rp_free(ctx, s.last_kind, size);
  if (ready) return RP_OK;
  rp_chain_words_free(words, ctx);
  return RP_NOMEM;
}

void rp_chain_words_free(rp_chain_words *words, rp_context *ctx) {
  rp_free(ctx, words->number, pairs(words->n) * sizeof(int32_t));
  rp_free(ctx, words->first, (size_t)(words->n + 1) * sizeof(int64_t));
  words->number = NULL;
  words->first = NULL;
}

/* ---- the table ---------------------------------------------------------- */

/* All m of one word, so that the inner loops run over memory in order. */
static float *row(const rp_chain *c, int32_t i, int32_t j) {
  const int64_t word =
      c->words.first[j - i] + c->words.number[pair(c->n, i, j)];
  return c->seconds + (size_t)word * (size_t)(c->slots + 1);
}

double rp_chain_seconds(const rp_chain *c, int32_t m, int32_t i, int32_t j) {
  if (i > j) return 0;
  return m < 0 ? INFINITY : (double)row(c, i, j)[m];
}

/* The least slots for option k of block i. */
static int32_t option_slots(const rp_chain_block *block, int32_t k) {
  const int32_t least = block->options[k].kept + block->options[k].backward;
  return least < block->forward ? block->forward : least;
}

/* Slots that block p - 1 needs when i..p-1 run for the input of p alone: its
   own input is there too, but for the first, whose input the caller holds. */
static int32_t forward_slots(const rp_chain *c, int32_t i, int32_t p) {
  const int32_t held = p - 1 > i ? c->blocks[p - 1].input : 0;
  return held + c->blocks[p - 1].forward;
}

/* Keep all that option k of block i keeps, then go on behind it. */
static void try_options(rp_chain *c, int32_t i, int32_t j) {
  const rp_chain_block *block = &c->blocks[i];
  float *restrict best = row(c, i, j);
  for (int32_t k = 0; k < block->n_options; k++) {
    const rp_chain_option *option = &block->options[k];
    const float own = (float)option->seconds;
    const float *restrict rest = i < j ? row(c, i + 1, j) : NULL;
    for (int32_t m = option_slots(block, k); m <= c->slots; m++) {
      const float seconds = own + (rest ? rest[m - option->kept] : 0);
      best[m] = seconds < best[m] ? seconds : best[m];
    }
  }
}

/* Keep only the input of block p: i..p-1 run once for it, and again later. */
static void try_inputs(rp_chain *c, int32_t i, int32_t j) {
  float *restrict best = row(c, i, j);
  double again = 0;
  int32_t least = 0;
  for (int32_t p = i + 1; p <= j; p++) {
    again += c->blocks[p - 1].forward_seconds;
    const int32_t forward = forward_slots(c, i, p);
    if (forward > least) least = forward;
    const int32_t input = c->blocks[p].input;
    const float own = (float)again;
    const float *restrict right = row(c, p, j);
    const float *restrict left = row(c, i, p - 1);
    for (int32_t m = least > input ? least : input; m <= c->slots; m++) {
      const float seconds = own + right[m - input] + left[m];
      best[m] = seconds < best[m] ? seconds : best[m];
    }
  }
}

int32_t rp_chain_choice(const rp_chain *c, int32_t m, int32_t i, int32_t j) {
  if (m < 0 || isinf(row(c, i, j)[m])) return -1;
  const rp_chain_block *block = &c->blocks[i];
  const float best = row(c, i, j)[m];
  for (int32_t k = 0; k < block->n_options; k++) {
    if (m < option_slots(block, k)) continue;
    const int32_t left = m - block->options[k].kept;
    if ((float)block->options[k].seconds +
            (i < j ? row(c, i + 1, j)[left] : 0) == best)
      return k;
  }
  double again = 0;
  int32_t least = 0;
  for (int32_t p = i + 1; p <= j; p++) {
    again += c->blocks[p - 1].forward_seconds;
    const int32_t forward = forward_slots(c, i, p);
    if (forward > least) least = forward;
    const int32_t input = c->blocks[p].input;
    if (m >= least && m >= input &&
        (float)again + row(c, p, j)[m - input] + row(c, i, p - 1)[m] == best)
      return RP_CHAIN_OPTIONS + p - i;
  }
  return -1;
}

static size_t table_bytes(const rp_chain *c) {
  return (size_t)c->words.n_words * (size_t)(c->slots + 1) * sizeof(float);
}

rp_status rp_chain_solve(rp_chain *chain, rp_context *ctx,
                         const rp_chain_block *blocks, int32_t n,
                         int32_t slots) {
  *chain = (rp_chain){.n = n, .slots = slots, .blocks = blocks};
  const rp_status status = rp_chain_words_find(&chain->words, ctx, blocks, n);
  if (status != RP_OK) return status;
  chain->seconds = rp_alloc(ctx, table_bytes(chain));
  if (chain->seconds == NULL) {
    rp_chain_free(chain, ctx);
    return RP_NOMEM;
  }
  for (size_t k = 0; k < table_bytes(chain) / sizeof(float); k++)
    chain->seconds[k] = INFINITY;
  int64_t solved = 0; /* a word is new where its number is the next */
  for (int32_t length = 0; length < n; length++)
    for (int32_t i = 0; i + length < n; i++) {
      const int64_t word = chain->words.first[length] +
                           chain->words.number[pair(n, i, i + length)];
      if (word < solved) continue;
      try_options(chain, i, i + length);
      try_inputs(chain, i, i + length);
      solved = word + 1;
    }
  return RP_OK;
}

void rp_chain_free(rp_chain *chain, rp_context *ctx) {
  rp_free(ctx, chain->seconds, table_bytes(chain));
  chain->seconds = NULL;
  rp_chain_words_free(&chain->words, ctx);
}
