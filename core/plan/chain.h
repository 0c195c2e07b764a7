/* The chain dynamic programme: which blocks keep what, for every amount of
   memory at once.

   Source: Herrmann, Beaumont, Eyraud-Dubois, Hermann, Joly, Shilova, "Optimal
   checkpointing for heterogeneous chains" (2019); options inside a block
   after Rockmate (Zhao et al., 2023). Sizes are whole slots.

   Stretches of equal blocks in equal order are one word of the table and are
   solved once: a chain of n blocks that repeat with period p has p n words
   instead of n^2 / 2. */
#ifndef RP_PLAN_CHAIN_H
#define RP_PLAN_CHAIN_H

#include "base/memory.h"

enum { RP_CHAIN_OPTIONS = 12 };

/* One way to run a block so that its backward finds what it needs. */
typedef struct rp_chain_option {
  int32_t kept;     /* slots held until its backward, its output included */
  int32_t backward; /* slots its backward needs besides those */
  double seconds;   /* replay of what it did not keep */
} rp_chain_option;

typedef struct rp_chain_block {
  int32_t input;    /* slots of the value that comes in */
  int32_t forward;  /* slots of a forward that keeps nothing, output included */
  double forward_seconds;
  int32_t n_options;
  rp_chain_option options[RP_CHAIN_OPTIONS];
} rp_chain_block;

/* The distinct words of a chain: word(i, j) is first[j - i] + the number of
   blocks i..j among the distinct words of their length. */
typedef struct rp_chain_words {
  int32_t n;        /* blocks */
  int32_t n_kinds;  /* distinct blocks */
  int64_t n_words;
  double work;      /* sum of the words' lengths: steps for each slot */
  int32_t *number;  /* packed by length, then by i */
  int64_t *first;   /* by length; n + 1 entries */
} rp_chain_words;

rp_status rp_chain_words_find(rp_chain_words *words, rp_context *ctx,
                              const rp_chain_block *blocks, int32_t n);
void rp_chain_words_free(rp_chain_words *words, rp_context *ctx);

typedef struct rp_chain {
  int32_t n, slots; /* blocks; the table answers 0..slots */
  const rp_chain_block *blocks;
  rp_chain_words words;
  float *seconds;   /* by word and slots: T(m, i, j) beyond forward and
                       backward of each block once */
} rp_chain;

/* Fills the table: O(slots (n + options)) for each word. T(m, i, j) is the
   least time of replays for forward and backward of blocks i..j in m slots,
   the input of i held by the caller. RP_NOMEM. */
rp_status rp_chain_solve(rp_chain *chain, rp_context *ctx,
                         const rp_chain_block *blocks, int32_t n,
                         int32_t slots);
void rp_chain_free(rp_chain *chain, rp_context *ctx);

/* T for blocks i..j (i <= j) in m slots; and what reaches it: -1 infeasible;
   < OPTIONS: keep block i by that option; else OPTIONS + p - i: keep only the
   input of block p. The choice takes O(j - i + options). */
double rp_chain_seconds(const rp_chain *chain, int32_t m, int32_t i,
                        int32_t j);
int32_t rp_chain_choice(const rp_chain *chain, int32_t m, int32_t i,
                        int32_t j);

#endif
