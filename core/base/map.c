#include "base/map.h"

#include <string.h>

static int32_t slot_of(const rp_map *map, uint64_t key) {
  /* Fibonacci hashing: the high bits of the product are well mixed. */
  uint64_t at = (key * 0x9E3779B97F4A7C15u) >> 32 & (uint64_t)(map->slots - 1);
  while (map->values[at] >= 0 && map->keys[at] != key)
    at = (at + 1) & (uint64_t)(map->slots - 1);
  return (int32_t)at;
}

int32_t rp_map_get(const rp_map *map, uint64_t key) {
  return map->slots ? map->values[slot_of(map, key)] : -1;
}

static bool map_grow(rp_map *map, rp_context *ctx) {
  rp_map grown = {.n = map->n, .slots = map->slots ? 2 * map->slots : 64};
  grown.keys = rp_alloc(ctx, (size_t)grown.slots * sizeof *grown.keys);
  grown.values = rp_alloc(ctx, (size_t)grown.slots * sizeof *grown.values);
  if (grown.keys == NULL || grown.values == NULL) {
    rp_map_free(&grown, ctx);
    return false;
  }
  memset(grown.values, 0xff, (size_t)grown.slots * sizeof *grown.values);
  for (int32_t i = 0; i < map->slots; i++) {
    if (map->values[i] < 0) continue;
    const int32_t at = slot_of(&grown, map->keys[i]);
    grown.keys[at] = map->keys[i];
    grown.values[at] = map->values[i];
  }
  rp_map_free(map, ctx);
  *map = grown;
  return true;
}

bool rp_map_put(rp_map *map, rp_context *ctx, uint64_t key, int32_t value) {
  if (2 * map->n >= map->slots && !map_grow(map, ctx)) return false;
  const int32_t at = slot_of(map, key);
  if (map->values[at] < 0) map->n++;
  map->keys[at] = key;
  map->values[at] = value;
  return true;
}

int32_t rp_map_number(rp_map *map, rp_context *ctx, uint64_t key) {
  const int32_t found = rp_map_get(map, key);
  if (found >= 0) return found;
  const int32_t number = map->n;
  return rp_map_put(map, ctx, key, number) ? number : -1;
}

void rp_map_free(rp_map *map, rp_context *ctx) {
  const size_t slots = (size_t)map->slots;
  rp_free(ctx, map->keys, slots * sizeof *map->keys);
  rp_free(ctx, map->values, slots * sizeof *map->values);
  *map = (rp_map){0};
}
