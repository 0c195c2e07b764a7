/* Base: types, accounts, fault injection, status. */
#include "support.h"

#include "base/context.h"
#include "base/map.h"
#include "base/type.h"

static void types_are_checked(void **state) {
  (void)state;
  rp_context *ctx = rp_context_new();
  rp_type type = {.dtype = RP_F32, .rank = 2, .dims = {3, 0}};
  assert_int_equal(rp_type_check(ctx, "t", &type), RP_OK);
  assert_int_equal(rp_type_count(&type), 0);
  type.dims[1] = -1;
  assert_int_equal(rp_type_check(ctx, "t", &type), RP_VALUE);
  type = (rp_type){.dtype = RP_F64, .rank = 9};
  assert_int_equal(rp_type_check(ctx, "t", &type), RP_VALUE);
  /* 2^62 doubles: the count fits, the bytes do not. A zero hides nothing. */
  type = (rp_type){.dtype = RP_F64, .rank = 3,
                   .dims = {(int64_t)1 << 31, (int64_t)1 << 31, 0}};
  assert_int_equal(rp_type_check(ctx, "t", &type), RP_VALUE);
  type = rp_type_scalar(RP_F32);
  assert_int_equal(rp_type_count(&type), 1);
  rp_context_free(ctx);
}

static void bf16_rounds_to_nearest_even(void **state) {
  (void)state;
  /* 1 + 2^-8 is half way between two bf16 numbers: to even, which is 1. */
  assert_int_equal(rp_f32_to_bf16(1.00390625f), 0x3f80);
  assert_int_equal(rp_f32_to_bf16(1.01171875f), 0x3f82);
  assert_int_equal(rp_f32_to_bf16(3.4e38f), 0x7f80); /* overflows to inf */
  assert_true(rp_bf16_to_f32(rp_f32_to_bf16(__builtin_nanf(""))) !=
              rp_bf16_to_f32(rp_f32_to_bf16(__builtin_nanf(""))));
}

static void accounts_add_up(void **state) {
  (void)state;
  rp_context *ctx = rp_context_new();
  rp_memory before, now;
  rp_memory_stats(ctx, -1, &before);
  void *a = rp_storage_alloc(ctx->devices[RP_CPU], 100);
  void *b = rp_storage_alloc(ctx->devices[RP_CPU], 64);
  rp_memory_stats(ctx, -1, &now);
  assert_int_equal(now.storage_bytes - before.storage_bytes, 128 + 64);
  assert_int_equal((uintptr_t)a % RP_ALIGN, 0);
  rp_storage_free(ctx->devices[RP_CPU], a, 100);
  rp_storage_free(ctx->devices[RP_CPU], b, 64);
  rp_memory_stats(ctx, -1, &now);
  assert_int_equal(now.storage_bytes, before.storage_bytes);
  assert_int_equal(now.storage_peak_bytes, before.storage_bytes + 192);
  rp_memory_reset_peak(ctx);
  rp_memory_stats(ctx, -1, &now);
  assert_int_equal(now.storage_peak_bytes, before.storage_bytes);
  rp_context_free(ctx);
}

static void the_kth_request_fails_once(void **state) {
  (void)state;
  rp_context *ctx = rp_context_new();
  rp_memory_fail_at(ctx, 2);
  void *a = rp_alloc(ctx, 8);
  assert_non_null(a);
  assert_null(rp_alloc(ctx, 8));
  assert_int_equal(rp_last_status(ctx), RP_NOMEM);
  assert_non_null(rp_message(ctx));
  void *b = rp_alloc(ctx, 8);
  assert_non_null(b);
  rp_free(ctx, a, 8);
  rp_free(ctx, b, 8);
  rp_context_free(ctx);
}

static void maps_number_keys_in_order(void **state) {
  (void)state;
  rp_context *ctx = rp_context_new();
  rp_map map = {0};
  for (uint64_t i = 0; i < 1000; i++)
    assert_int_equal(rp_map_number(&map, ctx, i * i * 977), (int32_t)i);
  for (uint64_t i = 0; i < 1000; i++)
    assert_int_equal(rp_map_get(&map, i * i * 977), (int32_t)i);
  assert_int_equal(rp_map_get(&map, 5), -1);
  rp_map_free(&map, ctx);
  rp_context_free(ctx);
}

static void notices_are_taken_once(void **state) {
  (void)state;
  rp_context *ctx = rp_context_new();
  rp_notice(ctx, "first %d", 1);
  rp_notice(ctx, "second");
  assert_string_equal(rp_notice_take(ctx), "first 1");
  assert_string_equal(rp_notice_take(ctx), "second");
  assert_null(rp_notice_take(ctx));
  rp_context_free(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(types_are_checked),
      cmocka_unit_test(bf16_rounds_to_nearest_even),
      cmocka_unit_test(accounts_add_up),
      cmocka_unit_test(the_kth_request_fails_once),
      cmocka_unit_test(maps_number_keys_in_order),
      cmocka_unit_test(notices_are_taken_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
