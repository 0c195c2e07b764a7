/* What tests ask of the emulated device beyond CUDA's own functions. Also read
   by LuaJIT's ffi.cdef, from the line `ffi` on. */
#ifndef RP_EMULATED_HOOKS_H
#define RP_EMULATED_HOOKS_H
#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)
/* ffi */

/* Threads (and blocks) run "forward", "reverse", or shuffled by a number. Bits
   that depend on it are a race. RP_EMULATED_ORDER says it from outside. */
void rp_emulated_order(const char *order);
/* Queued work runs when somebody waits for it (the default: what is read too
   early is seen to be stale), or at once. RP_EMULATED_EAGER=1 does the latter. */
void rp_emulated_eager(int eager);
/* The k-th operation of a kernel or library from now (1: the next) fails with
   "unspecified launch failure", which then sticks. 0: none does. */
void rp_emulated_fail_launch(long long k);
/* The k-th cudaGraphInstantiate from now fails for want of memory. 0: none. */
void rp_emulated_fail_instantiate(long long k);
/* The device's memory, bytes. What is allocated stays. RP_EMULATED_BYTES. */
void rp_emulated_limit(unsigned long long bytes);
/* Bytes allocated now, and the most at a time since the last reset. */
unsigned long long rp_emulated_used(void);
unsigned long long rp_emulated_peak(void);
/* Kernels and library calls that have run; launches refused are not counted. */
long long rp_emulated_launches(void);
/* Those of one name. */
long long rp_emulated_launches_of(const char *name);
/* "name count", a line for each name, by name. Borrowed until the next. */
const char *rp_emulated_launch_counts(void);
/* A lost device is found again, as in a new process; allocations stay. */
void rp_emulated_reset(void);
/* The last thing that went wrong in a kernel, in words; "" where nothing did.
   Borrowed until the next. */
const char *rp_emulated_message(void);

/* ffi end */
#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
