/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tables of a node: shared by the director on its uplinks and the program on its guests' ports. */
#ifndef HITLESS_MAPS_DIRECTOR_H
#define HITLESS_MAPS_DIRECTOR_H

#include "common.h"

/* The rows of all virtual clusters, (cluster index << 16) | bucket. Written by stores into the mapping. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_VIRTUAL_CLUSTERS * HL_BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} rows SEC(".maps");

/* Virtual clusters. Marks are changed by atomic stores into the mapping. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_VIRTUAL_CLUSTERS);
	__type(key, __u32);
	__type(value, struct hl_cluster);
} clusters SEC(".maps");

/* Guest words, (cluster index << 12) | slot: which hop, and whether its last packet is timed. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_VIRTUAL_CLUSTERS * HL_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} guests SEC(".maps");

/* When the last packet left for a watched guest, CLOCK_BOOTTIME ns; index as guests. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_VIRTUAL_CLUSTERS * HL_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} last_sent SEC(".maps");

/* Next hops. Entry 0 is never used: a guest word of 0 names no hop. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_HOPS);
	__type(key, __u32);
	__type(value, struct hl_hop);
} hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HL_ADDRESSES);
	__type(key, __u32);
	__type(value, struct hl_address);
} addresses4 SEC(".maps");

/*
 * IPv4 addresses once more, one to a word: address, and above it its kind and cluster (<< 2). The place is the hash of
 * near_place(); of those that share one the first has it, and the others are found in addresses4.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_NEAR);
	__type(key, __u32);
	__type(value, __u64);
} near4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HL_ADDRESSES);
	__type(key, struct hl_in6);
	__type(value, struct hl_address);
} addresses6 SEC(".maps");

/* Who may send Geneve to this node from outside: outer addresses of directors and guests elsewhere. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HL_MEMBERS);
	__type(key, struct hl_in6);
	__type(value, __u32);
} members SEC(".maps");

/* The guests' interfaces on this node, by interface index. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HL_PORTS);
	__type(key, __u32);
	__type(value, struct hl_port);
} ports SEC(".maps");

enum director_counter { HL_DIRECTOR_COUNTERS(HL_COUNTER_NAME_) HL_DIRECTOR_COUNTERS_END };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HL_DIRECTOR_COUNTERS_END);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

enum port_counter { HL_PORT_COUNTERS(HL_PORT_COUNTER_NAME_) HL_PORT_COUNTERS_END };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HL_PORT_COUNTERS_END);
	__type(key, __u32);
	__type(value, __u64);
} port_counters SEC(".maps");

#endif
