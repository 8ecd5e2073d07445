/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tables of one guest's ingress. */
#ifndef HITLESS_MAPS_INGRESS_H
#define HITLESS_MAPS_INGRESS_H

#include "common.h"

/*
 * What stands in a section .bss.NAME is a map of one entry, which programs reach by its address: no look-up with its
 * key on the stack and its check of bounds. An index is masked instead, so lengths are powers of two.
 */

/* Who we are, lease, marks. One entry. */
struct hl_self me SEC(".bss.me");

/* Our own rows, by bucket. */
__u64 rows[HL_BUCKETS] SEC(".bss.rows");

/* Peer words by slot, and the hops that they name. */
__u64 guests[HL_SLOTS] SEC(".bss.guests");

struct hl_hop hops[HL_PEER_HOPS] SEC(".bss.hops");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HL_ADDRESSES);
	__type(key, __u32);
	__type(value, struct hl_address);
} addresses4 SEC(".maps");

/* By the hash of address.h; of the addresses that share a place one has it, and the others are found in addresses4. */
struct hl_near near4[HL_NEAR] SEC(".bss.near4");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HL_ADDRESSES);
	__type(key, struct hl_in6);
	__type(value, struct hl_address);
} addresses6 SEC(".maps");

/* By director's number as the packet has it, in network order: not 0 if a packet with its stamp came since the reader last wrote 0. */
__u64 stampers[HL_STAMPERS] SEC(".bss.stampers");

/* Likewise: packets whose stamp was older than our row. */
__u64 stale[HL_STAMPERS] SEC(".bss.stale");

/* Filled by the socket iterator, by bucket: what the kernel holds. */
__u64 live[HL_BUCKETS] SEC(".bss.live");

enum ingress_counter { HL_INGRESS_COUNTERS(HL_COUNTER_NAME_) HL_INGRESS_COUNTERS_END };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HL_INGRESS_COUNTERS_END);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

#endif
