/* Attention's loops in f32. */
typedef float real;

#include "cpu/attention_backward.h"

const rp_attention_loops rp_attention_f32 = {
    forward_items, forward_bytes, forward, backward_bytes, backward};
