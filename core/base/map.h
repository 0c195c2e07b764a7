/* A map from 64-bit keys (numbers, addresses) to int32_t.
   Invariant: at most half of the slots are taken; a slot's value is -1 when
   it is free. */
#ifndef RP_BASE_MAP_H
#define RP_BASE_MAP_H

#include "base/memory.h"

typedef struct rp_map {
  uint64_t *keys;
  int32_t *values;
  int32_t n, slots;
} rp_map;

/* The value of key, or -1. */
int32_t rp_map_get(const rp_map *map, uint64_t key);
/* Gives key the value (>= 0); false with RP_NOMEM said. */
bool rp_map_put(rp_map *map, rp_context *ctx, uint64_t key, int32_t value);
/* The number of key in order of first appearance; -1 without memory. */
int32_t rp_map_number(rp_map *map, rp_context *ctx, uint64_t key);
void rp_map_free(rp_map *map, rp_context *ctx);

static inline uint64_t rp_address(const void *p) {
  return (uint64_t)(uintptr_t)p;
}

#endif
