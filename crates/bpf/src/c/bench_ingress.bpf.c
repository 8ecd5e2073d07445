// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The ingress without its look-up, under the benchmark's wrapper. */
#define HL_PROGRAM __noinline
#define HL_BENCH_WITHOUT_LOOK_UP
#include "ingress.bpf.c"

#include "bench.h"

BENCH(bench_nothing, restore_encapsulated, nothing)
BENCH(bench_cut_head, restore_encapsulated, cut_head)
BENCH(bench_ingress, restore_encapsulated, ingress)
