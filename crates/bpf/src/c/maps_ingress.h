/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tables of one guest's ingress. */
#ifndef HITLESS_MAPS_INGRESS_H
#define HITLESS_MAPS_INGRESS_H

#include "common.h"

/* Who we are, lease, marks. One entry. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hl_self);
} me SEC(".maps");

/* Our own rows, by bucket. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} rows SEC(".maps");

/* Peer words by slot, and the hops that they name. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} guests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_PEER_HOPS);
	__type(key, __u32);
	__type(value, struct hl_hop);
} hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HL_ADDRESSES);
	__type(key, __u32);
	__type(value, struct hl_address);
} addresses4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HL_ADDRESSES);
	__type(key, struct hl_in6);
	__type(value, struct hl_address);
} addresses6 SEC(".maps");

/* By director's number: not 0 if a packet with its stamp came since the reader last wrote 0. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_STAMPERS);
	__type(key, __u32);
	__type(value, __u64);
} stampers SEC(".maps");

/* By director's number: packets whose stamp was older than our row. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_STAMPERS);
	__type(key, __u32);
	__type(value, __u64);
} stale_stamps SEC(".maps");

/* Filled by the socket iterator, by bucket: what the kernel holds. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} live SEC(".maps");

enum ingress_counter { HL_INGRESS_COUNTERS(HL_COUNTER_NAME_) HL_INGRESS_COUNTERS_END };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HL_INGRESS_COUNTERS_END);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

#endif
