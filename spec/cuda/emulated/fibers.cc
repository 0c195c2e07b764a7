/* The threads of a block as fibers.

   A fiber runs threads to their end one after another; only a thread that
   waits keeps its stack, and the next one gets another. So a kernel without
   barriers is a loop over its threads on one stack.

   Threads run in rounds: each round goes once through all threads in the
   chosen order and runs those that are not waiting. A round in which nothing
   moved is a barrier that cannot be passed: an error. */
#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <numeric>

#include <sys/mman.h>
#include <unistd.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#include "engine.h"

RP_EMULATED_API rp_emulated_place rp_emulated_here;

namespace {

enum { WARP = 32, MOST_THREADS = 1024, STACK_BYTES = 128 << 10 };
enum state { FRESH, READY, AT_BARRIER, IN_MEETING, DONE };

#ifdef __x86_64__
/* What a call saves: the rest is the caller's. */
typedef void *context;
extern "C" void rp_emulated_switch(context *from, context to);
asm(R"(
.text
.globl rp_emulated_switch
.hidden rp_emulated_switch
.type rp_emulated_switch, @function
rp_emulated_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size rp_emulated_switch, .-rp_emulated_switch
)");
void switch_context(context *from, context *to) {
  rp_emulated_switch(from, *to);
}
void make_context(context *made, char *stack, size_t bytes, void (*entry)()) {
  /* As if entry had been called: its frame is aligned when the return address
     lies just below a multiple of 16. */
  void **top = reinterpret_cast<void **>(stack + bytes) - 1;
  top[0] = nullptr;
  *--top = reinterpret_cast<void *>(entry);
  top -= 6;
  memset(top, 0, 6 * sizeof *top);
  *made = top;
}
#else
typedef ucontext_t context;
void switch_context(context *from, context *to) { swapcontext(from, to); }
void make_context(context *made, char *stack, size_t bytes, void (*entry)()) {
  getcontext(made);
  made->uc_stack.ss_sp = stack;
  made->uc_stack.ss_size = bytes;
  made->uc_link = nullptr;
  makecontext(made, entry, 0);
}
#endif

struct fiber {
  context at;
  char *stack;
};

struct thread {
  enum state state;
  fiber *on;
  uint3 index;
  const char *file; /* where it waits */
  int line;
  rp_emulated_meeting *meeting;
};

struct order {
  enum { FORWARD, REVERSE, SHUFFLED } kind = FORWARD;
  uint64_t seed = 0;
};

struct block_runner {
  std::string name;
  const std::function<void()> *body = nullptr;
  std::vector<thread> threads;
  std::vector<int> sequence;
  int count = 0;
  int done = 0, at_barrier = 0;
  int cursor = 0; /* in sequence */
  int current = -1;
  bool moved = false;
  int predicate_all = 1, predicate_any = 0, predicate_count = 0;
  int vote_all = 1, vote_any = 0, vote_count = 0; /* of the last barrier */
  std::vector<std::vector<rp_emulated_meeting *>> open; /* by warp */
  cudaError_t error = cudaSuccess;
  std::string message;
};

block_runner runner;
context scheduler;
std::vector<fiber *> all_fibers, free_fibers;
order chosen;
bool order_read = false;
uint64_t shuffle_state = 1;
char *shared_region = nullptr;
size_t shared_room = 0, shared_bytes_now = 0;

sigjmp_buf escape;
volatile sig_atomic_t guarded = 0;
char fault_text[256];
cudaError_t fault_error;

uint64_t next_random() {
  shuffle_state ^= shuffle_state << 13;
  shuffle_state ^= shuffle_state >> 7;
  shuffle_state ^= shuffle_state << 17;
  return shuffle_state;
}

void set_order(const char *text) {
  chosen = order();
  if (!text || !*text || !strcmp(text, "forward")) return;
  if (!strcmp(text, "reverse")) {
    chosen.kind = order::REVERSE;
    return;
  }
  char *end;
  chosen.kind = order::SHUFFLED;
  chosen.seed = strtoull(text, &end, 10);
  if (!*end) return;
  fprintf(stderr, "RP_EMULATED_ORDER=%s: forward, reverse or a number\n",
          text);
  exit(2);
}

/* ---- faults ------------------------------------------------------------- */

struct sigaction before_segv, before_bus, before_ill;

void on_fault(int signal, siginfo_t *info, void *) {
  if (!guarded) {
    /* Not ours: as if we had never been here. The instruction runs again. */
    sigaction(signal, signal == SIGSEGV  ? &before_segv
                      : signal == SIGBUS ? &before_bus
                                         : &before_ill,
              nullptr);
    return;
  }
  /* SIGILL: the compiler's checks of alignment and of bounds trap. */
  const bool trap = signal == SIGILL;
  fault_error = trap ? cudaErrorMisalignedAddress : cudaErrorIllegalAddress;
  const rp_emulated_place &h = rp_emulated_here;
  snprintf(fault_text, sizeof fault_text,
           "block (%u,%u,%u), thread (%u,%u,%u): %s %p", h.block.x, h.block.y,
           h.block.z, h.thread.x, h.thread.y, h.thread.z,
           trap ? "misaligned access, index outside an array, or a bad shift, "
                  "at instruction"
                : "illegal address",
           info->si_addr);
  siglongjmp(escape, 1);
}

void watch_faults() {
  static bool watching = false;
  if (watching) return;
  watching = true;
  static char stack[64 << 10];
  stack_t alternate = {};
  alternate.ss_sp = stack;
  alternate.ss_size = sizeof stack;
  sigaltstack(&alternate, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGSEGV, &action, &before_segv);
  sigaction(SIGBUS, &action, &before_bus);
  sigaction(SIGILL, &action, &before_ill);
}

/* ---- the scheduler ------------------------------------------------------ */

[[noreturn]] void to_scheduler_for_good() {
  context dead;
  switch_context(&dead, &scheduler);
  abort();
}

[[noreturn]] void stop(cudaError_t error, const std::string &text) {
  if (runner.error == cudaSuccess) {
    runner.error = error;
    runner.message = text;
  }
  to_scheduler_for_good();
}

std::string site(const thread &t) {
  const char *slash = strrchr(t.file, '/');
  return std::string(slash ? slash + 1 : t.file) + ":" +
         std::to_string(t.line);
}

void complete(rp_emulated_meeting *meeting, int warp) {
  meeting->complete = true;
  meeting->to_leave = __builtin_popcount(meeting->arrived);
  auto &open = runner.open[warp];
  for (size_t i = 0; i < open.size(); i++)
    if (open[i] == meeting) {
      open.erase(open.begin() + i);
      break;
    }
  for (int lane = 0; lane < WARP; lane++)
    if (meeting->arrived >> lane & 1)
      runner.threads[warp * WARP + lane].state = READY;
}

/* Lanes of mask that are still to come. */
unsigned missing(const rp_emulated_meeting *meeting, int warp) {
  unsigned away = meeting->mask & ~meeting->arrived;
  for (int lane = 0; lane < WARP; lane++) {
    const int id = warp * WARP + lane;
    if (id >= runner.count || runner.threads[id].state == DONE)
      away &= ~(1u << lane);
  }
  return away;
}

void barrier_if_all() {
  if (runner.at_barrier == 0 ||
      runner.at_barrier + runner.done != runner.count)
    return;
  const thread *first = nullptr;
  for (const thread &t : runner.threads) {
    if (t.state != AT_BARRIER) continue;
    if (!first) first = &t;
    if (t.line != first->line || strcmp(t.file, first->file))
      stop(cudaErrorLaunchFailure,
           "threads of one block wait at different barriers, " + site(*first) +
               " and " + site(t));
  }
  if (runner.done)
    stop(cudaErrorLaunchFailure,
         std::to_string(runner.done) + " of " + std::to_string(runner.count) +
             " threads have returned, the others wait at the barrier of " +
             site(*first));
  for (thread &t : runner.threads) t.state = READY;
  runner.at_barrier = 0;
  runner.vote_all = runner.predicate_all;
  runner.vote_any = runner.predicate_any;
  runner.vote_count = runner.predicate_count;
  runner.predicate_all = 1;
  runner.predicate_any = runner.predicate_count = 0;
}

/* The running thread waits; returns when the scheduler comes back to it. */
void pause(thread &self) {
  const int id = runner.current;
  switch_context(&self.on->at, &scheduler);
  runner.current = id;
  rp_emulated_here.thread = self.index;
}

/* Runs threads from the cursor on for as long as they are fresh. */
void fiber_main() {
  for (;;) {
    fiber *self = nullptr;
    {
      thread &t = runner.threads[runner.current];
      self = t.on;
      rp_emulated_here.thread = t.index;
      (*runner.body)();
    }
    /* A thread that waited may end on a fiber of an earlier cursor. */
    const int ended = runner.current;
    runner.threads[ended].state = DONE;
    runner.done++;
    auto &open = runner.open[ended / WARP];
    for (size_t i = open.size(); i-- > 0;)
      if (missing(open[i], ended / WARP) == 0) complete(open[i], ended / WARP);
    barrier_if_all();
    const int next = runner.cursor + 1;
    if (next < runner.count &&
        runner.threads[runner.sequence[next]].state == FRESH) {
      runner.cursor = next;
      runner.current = runner.sequence[next];
      runner.threads[runner.current].on = self;
      continue;
    }
    free_fibers.push_back(self);
    switch_context(&self->at, &scheduler);
  }
}

fiber *take_fiber() {
  if (free_fibers.empty()) {
    fiber *made = new fiber;
    made->stack = static_cast<char *>(
        mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0));
    if (made->stack == MAP_FAILED) {
      perror("emulated device: a stack");
      abort();
    }
    mprotect(made->stack, 4096, PROT_NONE);
    make_context(&made->at, made->stack, STACK_BYTES, fiber_main);
    all_fibers.push_back(made);
    free_fibers.push_back(made);
  }
  fiber *taken = free_fibers.back();
  free_fibers.pop_back();
  return taken;
}

/* After an error fibers hold frames of threads that will not go on. */
void renew_fibers() {
  free_fibers = all_fibers;
  for (fiber *f : all_fibers)
    make_context(&f->at, f->stack, STACK_BYTES, fiber_main);
  for (auto &open : runner.open) {
    for (rp_emulated_meeting *meeting : open) delete meeting;
    open.clear();
  }
}

void arrange() {
  for (int i = 0; i < runner.count; i++)
    runner.sequence[i] =
        chosen.kind == order::REVERSE ? runner.count - 1 - i : i;
  if (chosen.kind == order::SHUFFLED)
    for (int i = runner.count - 1; i > 0; i--)
      std::swap(runner.sequence[i], runner.sequence[next_random() % (i + 1)]);
}

void run_block() {
  for (thread &t : runner.threads) t.state = FRESH;
  runner.done = runner.at_barrier = 0;
  if (shared_bytes_now)
    memset(rp_emulated_shared(), 0xff, shared_bytes_now);
  while (runner.done < runner.count) {
    if (chosen.kind == order::SHUFFLED) arrange();
    runner.moved = false;
    for (runner.cursor = 0; runner.cursor < runner.count; runner.cursor++) {
      const int id = runner.sequence[runner.cursor];
      thread &t = runner.threads[id];
      if (t.state != FRESH && t.state != READY) continue;
      if (t.state == FRESH) t.on = take_fiber();
      runner.moved = true;
      runner.current = id;
      switch_context(&scheduler, &t.on->at);
      if (runner.error != cudaSuccess) return;
    }
    if (runner.moved) continue;
    std::string text = "threads wait for others that never come:";
    int said = 0;
    for (int id = 0; id < runner.count && said < 4; id++) {
      const thread &t = runner.threads[id];
      if (t.state != AT_BARRIER && t.state != IN_MEETING) continue;
      if (id && runner.threads[id - 1].state == t.state &&
          runner.threads[id - 1].line == t.line)
        continue;
      said++;
      text += " thread " + std::to_string(id) + " at " + site(t) +
              (t.state == AT_BARRIER ? " (block)" : " (warp)") + ";";
    }
    text += " " + std::to_string(runner.done) + " of " +
            std::to_string(runner.count) + " have returned";
    runner.error = cudaErrorLaunchFailure;
    runner.message = text;
    return;
  }
}

void run_blocks(dim3 grid) {
  const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
  uint64_t step = 1, start = 0;
  if (chosen.kind == order::SHUFFLED && blocks > 1) {
    step = next_random() % blocks | 1;
    while (std::gcd(step, blocks) != 1) step += 2;
    start = next_random() % blocks;
  }
  for (uint64_t i = 0; i < blocks && runner.error == cudaSuccess; i++) {
    uint64_t id = chosen.kind == order::REVERSE
                      ? blocks - 1 - i
                      : (uint64_t)(((unsigned __int128)i * step + start) %
                                   blocks);
    rp_emulated_here.block.x = (unsigned)(id % grid.x);
    rp_emulated_here.block.y = (unsigned)(id / grid.x % grid.y);
    rp_emulated_here.block.z = (unsigned)(id / grid.x / grid.y);
    run_block();
  }
}

void prepare_shared(size_t bytes) {
  const size_t page = 4096;
  const size_t room = (bytes + page - 1) / page * page;
  if (room > shared_room) {
    if (shared_region) munmap(shared_region, shared_room + page);
    shared_region = static_cast<char *>(
        mmap(nullptr, room + page, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (shared_region == MAP_FAILED) {
      perror("emulated device: shared memory");
      abort();
    }
    mprotect(shared_region + room, page, PROT_NONE);
    shared_room = room;
  }
  shared_bytes_now = bytes;
}

std::string where() {
  const rp_emulated_place &h = rp_emulated_here;
  return "block (" + std::to_string(h.block.x) + "," +
         std::to_string(h.block.y) + "," + std::to_string(h.block.z) + ")";
}

} // namespace

/* ---- what kernels call -------------------------------------------------- */

void *rp_emulated_shared() {
  return shared_region + shared_room - (shared_bytes_now + 15) / 16 * 16;
}

int rp_emulated_lane() { return runner.current % WARP; }

int rp_emulated_barrier(int predicate, rp_emulated_vote vote,
                        const char *file, int line) {
  thread &self = runner.threads[runner.current];
  self.state = AT_BARRIER;
  self.file = file;
  self.line = line;
  runner.at_barrier++;
  runner.predicate_all &= predicate != 0;
  runner.predicate_any |= predicate != 0;
  runner.predicate_count += predicate != 0;
  barrier_if_all();
  pause(self);
  return vote == RP_EMULATED_ALL   ? runner.vote_all
         : vote == RP_EMULATED_ANY ? runner.vote_any
                                   : runner.vote_count;
}

rp_emulated_meeting *rp_emulated_meet(unsigned mask, const void *value,
                                      size_t size, void *object,
                                      const char *file, int line) {
  const int id = runner.current, warp = id / WARP, lane = id % WARP;
  thread &self = runner.threads[id];
  self.file = file;
  self.line = line;
  if (!(mask >> lane & 1))
    stop(cudaErrorLaunchFailure, "lane " + std::to_string(lane) + " at " +
                                     site(self) + " is not in its own mask");
  rp_emulated_meeting *meeting = nullptr;
  for (rp_emulated_meeting *each : runner.open[warp]) {
    if (!(each->mask & mask)) continue;
    if (each->mask != mask || each->line != line || strcmp(each->file, file)) {
      thread other = self;
      other.file = each->file;
      other.line = each->line;
      stop(cudaErrorLaunchFailure,
           "lanes of one warp meet at different places, " + site(self) +
               " and " + site(other) + ", or with different masks");
    }
    meeting = each;
  }
  if (!meeting) {
    meeting = new rp_emulated_meeting();
    meeting->mask = mask;
    meeting->file = file;
    meeting->line = line;
    runner.open[warp].push_back(meeting);
  }
  if (size) memcpy(meeting->value[lane], value, size);
  meeting->object[lane] = object;
  meeting->arrived |= 1u << lane;
  self.state = IN_MEETING;
  self.meeting = meeting;
  if (missing(meeting, warp) == 0) complete(meeting, warp);
  pause(self);
  return meeting;
}

void rp_emulated_leave(rp_emulated_meeting *meeting) {
  if (--meeting->to_leave == 0) delete meeting;
}

void rp_emulated_stop(cudaError_t error, const char *format, ...) {
  char text[512];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  stop(error, text);
}

extern "C" void rp_emulated_order(const char *text) {
  order_read = true;
  set_order(text);
}

/* ---- what the device calls ---------------------------------------------- */

namespace emulated {

/* Nothing may be destroyed between sigsetjmp and the jump: this frame has no
   object that is. */
static bool escaped(void (*call)(void *), void *argument) {
  watch_faults();
  if (sigsetjmp(escape, 1)) {
    guarded = 0;
    return true;
  }
  guarded = 1;
  call(argument);
  guarded = 0;
  return false;
}

cudaError_t run_grid(const std::string &name, dim3 grid, dim3 block,
                     size_t shared_bytes, const std::function<void()> &thread) {
  if (!order_read) {
    order_read = true;
    set_order(getenv("RP_EMULATED_ORDER"));
  }
  runner.count = (int)(block.x * block.y * block.z);
  if (runner.count > MOST_THREADS) abort();
  runner.name = name;
  runner.body = &thread;
  runner.error = cudaSuccess;
  runner.predicate_all = 1;
  runner.predicate_any = runner.predicate_count = 0;
  runner.threads.resize(runner.count);
  runner.sequence.resize(runner.count);
  runner.open.resize((runner.count + WARP - 1) / WARP);
  for (int id = 0; id < runner.count; id++)
    runner.threads[id].index = make_uint3(
        id % block.x, id / block.x % block.y, id / block.x / block.y);
  rp_emulated_here.block_size = block;
  rp_emulated_here.grid_size = grid;
  shuffle_state = (chosen.seed + 1) * 0x9E3779B97F4A7C15u;
  arrange();
  prepare_shared(shared_bytes);
  if (escaped([](void *g) { run_blocks(*static_cast<dim3 *>(g)); }, &grid)) {
    renew_fibers();
    return lose(fault_error, "kernel " + name + ", " + fault_text);
  }
  if (runner.error == cudaSuccess) return cudaSuccess;
  const std::string text = "kernel " + name + ", " + where() + ": " +
                           runner.message;
  renew_fibers();
  return lose(runner.error, text);
}

size_t pick(size_t n) {
  if (!order_read) {
    order_read = true;
    set_order(getenv("RP_EMULATED_ORDER"));
    shuffle_state = (chosen.seed + 1) * 0x9E3779B97F4A7C15u;
  }
  return chosen.kind == order::FORWARD   ? 0
         : chosen.kind == order::REVERSE ? n - 1
                                         : next_random() % n;
}

cudaError_t run_guarded(const std::string &name,
                        const std::function<void()> &f) {
  rp_emulated_here = rp_emulated_place();
  if (!escaped([](void *f) { (*static_cast<std::function<void()> *>(f))(); },
               const_cast<std::function<void()> *>(&f)))
    return cudaSuccess;
  return lose(fault_error, name + ": " + fault_text);
}

} // namespace emulated
