/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The row's word (ADR 0001), as core's row.rs has it. */
#ifndef HITLESS_ROW_H
#define HITLESS_ROW_H

#include "common.h"

#define ROW_SLOTS 4
#define ROW_GUESTS 0xffffffffffffULL
#define SLOT_MASK 0xfff

static __always_inline __u32 slot_at(__u64 row, int position)
{
	return (row >> (12 * position)) & SLOT_MASK;
}

static __always_inline bool is_newer(__u64 a, __u64 b)
{
	return (__s16)((__u16)(a >> 48) - (__u16)(b >> 48)) > 0;
}

static __always_inline bool is_same_sequence(__u64 a, __u64 b)
{
	return a >> 48 == b >> 48;
}

/* No slot twice, none behind an empty one. */
static __always_inline bool is_row(__u64 row)
{
	__u32 a = slot_at(row, 0), b = slot_at(row, 1), c = slot_at(row, 2), d = slot_at(row, 3);

	if (!b)
		return !(c | d);
	if (!a || a == b)
		return false;
	if (!c)
		return !d;
	return a != c && b != c && (!d || (a != d && b != d && c != d));
}

/* -1 if the row does not name it. */
static __always_inline int position_of(__u64 row, __u32 slot)
{
	int i;

#pragma unroll
	for (i = 0; i < ROW_SLOTS; i++)
		if (slot_at(row, i) == slot)
			return i;
	return -1;
}

/* The row with those that `dead` marks behind all others; nobody is left out, and `me` is never dead. */
static __always_inline __u64 dead_last(__u64 row, const __u64 *dead, __u32 me)
{
	__u64 living = 0, late = 0;
	__u32 living_bits = 0, late_bits = 0;
	int i;

#pragma unroll
	for (i = 0; i < ROW_SLOTS; i++) {
		__u64 slot = slot_at(row, i);

		if (!slot)
			break;
		if (slot != me && READ_ONCE(dead[slot >> 6]) >> (slot & 63) & 1) {
			late |= slot << late_bits;
			late_bits += 12;
		} else {
			living |= slot << living_bits;
			living_bits += 12;
		}
	}
	/* Four living leave nothing late, so a shift by 48 moves nothing. */
	return (row & ~ROW_GUESTS) | living | late << living_bits;
}

static __always_inline __u64 without(__u64 row, __u32 me)
{
	__u64 others = 0;
	__u32 bits = 0;
	int i;

#pragma unroll
	for (i = 0; i < ROW_SLOTS; i++) {
		__u64 slot = slot_at(row, i);

		if (slot && slot != me) {
			others |= slot << bits;
			bits += 12;
		}
	}
	return (row & ~ROW_GUESTS) | others;
}

#endif
