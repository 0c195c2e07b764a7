/* Attention's loops in f64. */
typedef double real;

#include "cpu/attention_backward.h"

const rp_attention_loops rp_attention_f64 = {
    forward_items, forward_bytes, forward, backward_bytes, backward};
