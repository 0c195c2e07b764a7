/* The chain programme against an exhaustive search over the same class of
   schedules: each is written out step by step and its memory and time added
   up, so nothing of the recurrence is shared. */
#include "support.h"

#include <math.h>

#include "plan/chain.h"

enum { BLOCKS = 8, SLOTS = 120, TASKS = 64, CHAINS = 200 };

/* What is still to be done: solve blocks first..last; run the backward of
   block `first` with option `last`, which frees what that kept; let go of the
   input of block `first`. */
typedef struct task {
  enum { SOLVE, BACKWARD, LET_GO } kind;
  int32_t first, last;
} task;

typedef struct search {
  const rp_chain_block *blocks;
  double best[SLOTS + 1]; /* by exact peak; beyond it nothing is of interest */
  int64_t schedules;
} search;

/* Where one schedule stands. */
typedef struct state {
  task tasks[TASKS];
  int32_t n, held, peak;
  double seconds;
} state;

static void need(state *s, int32_t slots) {
  if (s->held + slots > s->peak) s->peak = s->held + slots;
}

static void push(state *s, task t) {
  assert_true(s->n < TASKS);
  s->tasks[s->n++] = t;
}

/* Runs block i forward keeping all that option k keeps, the rest, then its
   backward. */
static void keep_block(state *s, const rp_chain_block *blocks, task t,
                       int32_t k) {
  const rp_chain_block *block = &blocks[t.first];
  push(s, (task){BACKWARD, t.first, k});
  if (t.first < t.last) push(s, (task){SOLVE, t.first + 1, t.last});
  need(s, block->forward);
  s->held += block->options[k].kept;
  need(s, 0);
}

/* Runs t.first..p-1 for p's input alone, holds it, solves p.., then what is
   before p. */
static void keep_input(state *s, const rp_chain_block *blocks, task t,
                       int32_t p) {
  push(s, (task){SOLVE, t.first, p - 1});
  push(s, (task){LET_GO, p, 0});
  push(s, (task){SOLVE, p, t.last});
  for (int32_t q = t.first; q < p; q++) {
    need(s, (q > t.first ? blocks[q].input : 0) + blocks[q].forward);
    s->seconds += blocks[q].forward_seconds;
  }
  s->held += blocks[p].input;
  need(s, 0);
}

static void explore(search *all, const state *from) {
  state s = *from;
  while (s.n > 0) {
    const task t = s.tasks[--s.n];
    const rp_chain_block *block = &all->blocks[t.first];
    if (t.kind == LET_GO) {
      s.held -= block->input;
    } else if (t.kind == BACKWARD) {
      need(&s, block->options[t.last].backward);
      s.held -= block->options[t.last].kept;
      s.seconds += block->options[t.last].seconds;
    } else {
      for (int32_t k = 0; k < block->n_options; k++) {
        state next = s;
        keep_block(&next, all->blocks, t, k);
        explore(all, &next);
      }
      for (int32_t p = t.first + 1; p <= t.last; p++) {
        state next = s;
        keep_input(&next, all->blocks, t, p);
        explore(all, &next);
      }
      return;
    }
  }
  all->schedules++;
  if (s.peak <= SLOTS && s.seconds < all->best[s.peak])
    all->best[s.peak] = s.seconds;
}

/* The schedule that the table's choices make in m slots. */
static state follow(const rp_chain *chain, int32_t m) {
  state s = {0};
  int32_t free_slots[TASKS]; /* as the table counts them, by task */
  push(&s, (task){SOLVE, 0, chain->n - 1});
  free_slots[0] = m;
  while (s.n > 0) {
    const task t = s.tasks[--s.n];
    const int32_t slots = free_slots[s.n];
    const rp_chain_block *block = &chain->blocks[t.first];
    if (t.kind == LET_GO) {
      s.held -= block->input;
    } else if (t.kind == BACKWARD) {
      need(&s, block->options[t.last].backward);
      s.held -= block->options[t.last].kept;
      s.seconds += block->options[t.last].seconds;
    } else {
      const int32_t choice = rp_chain_choice(chain, slots, t.first, t.last);
      assert_true(choice >= 0);
      if (choice < RP_CHAIN_OPTIONS) {
        keep_block(&s, chain->blocks, t, choice);
        free_slots[s.n - 1] = slots - block->options[choice].kept;
      } else {
        const int32_t p = t.first + choice - RP_CHAIN_OPTIONS;
        keep_input(&s, chain->blocks, t, p);
        free_slots[s.n - 1] = slots - chain->blocks[p].input;
        free_slots[s.n - 3] = slots;
      }
    }
  }
  return s;
}

static int32_t draw(uint64_t *at, int32_t least, int32_t most) {
  *at = *at * 6364136223846793005u + 1442695040888963407u;
  return least + (int32_t)((*at >> 33) % (uint64_t)(most - least + 1));
}

/* Whole slots and whole seconds, so that sums are exact in float too. */
static void random_chain(rp_chain_block *blocks, int32_t n, int32_t options,
                         uint64_t *at) {
  for (int32_t i = 0; i < n; i++) {
    blocks[i] = (rp_chain_block){
        .input = draw(at, 1, 6), .forward = draw(at, 1, 12),
        .forward_seconds = draw(at, 1, 9),
        .n_options = draw(at, 1, options)};
    for (int32_t k = 0; k < blocks[i].n_options; k++)
      blocks[i].options[k] = (rp_chain_option){
          .kept = draw(at, 1, 12), .backward = draw(at, 0, 8),
          .seconds = draw(at, 0, 9)};
  }
}

static void the_table_equals_an_exhaustive_search(void **unused) {
  (void)unused;
  /* Options a block at most, by length: the number of schedules grows with
     its power. */
  static const int32_t options[BLOCKS + 1] = {0, 3, 3, 3, 3, 3, 2, 2, 1};
  rp_context *ctx = rp_context_new();
  uint64_t at = 4;
  int64_t schedules = 0;
  for (int32_t c = 0; c < CHAINS; c++) {
    const int32_t n = 1 + c % BLOCKS;
    rp_chain_block blocks[BLOCKS];
    random_chain(blocks, n, options[n] + (c == 2 * BLOCKS - 1), &at);
    /* Every third chain repeats its first few blocks in some order. */
    for (int32_t i = 2; i < n && c % 3 == 0; i++)
      blocks[i] = blocks[draw(&at, 0, 1)];
    search all = {.blocks = blocks};
    for (int32_t m = 0; m <= SLOTS; m++) all.best[m] = INFINITY;
    state start = {.tasks = {{SOLVE, 0, n - 1}}, .n = 1};
    explore(&all, &start);
    schedules += all.schedules;
    rp_chain chain;
    assert_int_equal(rp_chain_solve(&chain, ctx, blocks, n, SLOTS), RP_OK);
    double best = INFINITY;
    for (int32_t m = 0; m <= SLOTS; m++) {
      if (all.best[m] < best) best = all.best[m];
      const double found = rp_chain_seconds(&chain, m, 0, n - 1);
      if (isinf(best)) {
        assert_true(isinf(found));
        assert_int_equal(rp_chain_choice(&chain, m, 0, n - 1), -1);
        continue;
      }
      assert_true(found == best);
      const state made = follow(&chain, m);
      assert_true(made.peak <= m);
      assert_true(made.seconds == best);
    }
    assert_true(isfinite(best));
    rp_chain_free(&chain, ctx);
  }
  assert_true(schedules > 100000);
  rp_context_free(ctx);
}

/* Equal blocks of which one at a time can keep what its backward reads: held
   inputs are revolve's states, and the table finds its t(n, s). */
static void equal_blocks_have_the_binomial_optimum(void **unused) {
  (void)unused;
  /* t(10, s) of Griewank and Walther; s counts the first state, which the
     caller holds. The state being stepped from, which they do not count,
     takes a slot. */
  static const double known[] = {45, 20, 15};
  enum { N = 10 };
  rp_context *ctx = rp_context_new();
  rp_chain_block blocks[N];
  for (int32_t i = 0; i < N; i++)
    blocks[i] = (rp_chain_block){
        .input = 1, .forward = 0, .forward_seconds = 1, .n_options = 1,
        .options = {{.kept = 50, .backward = 0, .seconds = 0}}};
  rp_chain chain;
  assert_int_equal(rp_chain_solve(&chain, ctx, blocks, N, 99), RP_OK);
  for (int32_t s = 1; s <= 3; s++)
    assert_true(rp_chain_seconds(&chain, 50 + s, 0, N - 1) == known[s - 1]);
  rp_chain_free(&chain, ctx);
  rp_context_free(ctx);
}

/* Stretches of equal blocks in equal order are one word. */
static void equal_stretches_are_solved_once(void **unused) {
  (void)unused;
  enum { N = 300, PERIOD = 8, MANY = 40 };
  rp_context *ctx = rp_context_new();
  static rp_chain_block blocks[N];
  uint64_t at = 9;
  random_chain(blocks, PERIOD, 3, &at);
  for (int32_t i = PERIOD; i < N; i++) blocks[i] = blocks[i - PERIOD];
  rp_chain all, part;
  assert_int_equal(rp_chain_solve(&all, ctx, blocks, N, MANY), RP_OK);
  assert_int_equal(all.words.n_kinds, PERIOD);
  assert_true(all.words.n_words <= PERIOD * N);
  /* As a table of its own has it, wherever the stretch begins. */
  for (int32_t from = 0; from < 2 * PERIOD; from += 5) {
    assert_int_equal(rp_chain_solve(&part, ctx, blocks + from, 30, MANY),
                     RP_OK);
    for (int32_t m = 0; m <= MANY; m++) {
      const double want = rp_chain_seconds(&part, m, 0, 29);
      assert_true(want == rp_chain_seconds(&all, m, from, from + 29));
      assert_true(want ==
                  rp_chain_seconds(&all, m, from + 80, from + 109));
    }
    rp_chain_free(&part, ctx);
  }
  rp_chain_free(&all, ctx);
  rp_context_free(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(the_table_equals_an_exhaustive_search),
    cmocka_unit_test(equal_blocks_have_the_binomial_optimum),
    cmocka_unit_test(equal_stretches_are_solved_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
