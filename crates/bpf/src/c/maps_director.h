/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tables of a node: shared by the director on its uplinks and the program on its guests' ports. */
#ifndef HITLESS_MAPS_DIRECTOR_H
#define HITLESS_MAPS_DIRECTOR_H

#include "common.h"

/*
 * What stands in a section .bss.NAME is a map of one entry, which programs reach by its address: no look-up with its
 * key on the stack and its check of bounds. An index is masked instead, so lengths are powers of two. NAME has at most 10
 * letters.
 * All rows are too large for that, 4 MiB is the most; so they are a map with an entry per virtual cluster, which is
 * looked up before the bucket is known.
 */

/* The rows by cluster index. Written by stores into the mapping. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_VIRTUAL_CLUSTERS);
	__type(key, __u32);
	__type(value, struct hl_rows);
} rows SEC(".maps");

/* Virtual clusters. Marks are changed by atomic stores into the mapping. */
struct hl_cluster clusters[HL_VIRTUAL_CLUSTERS] SEC(".bss.clusters");

/* Guest words, (cluster index << 12) | slot: which hop, and whether its last packet is timed. */
__u64 guests[HL_VIRTUAL_CLUSTERS * HL_SLOTS] SEC(".bss.guests");

/* When the last packet left for a watched guest, CLOCK_BOOTTIME ns; index as guests. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HL_VIRTUAL_CLUSTERS * HL_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} last_sent SEC(".maps");

/* Next hops. Entry 0 is never used: a guest word of 0 names no hop. */
struct hl_hop hops[HL_HOPS] SEC(".bss.hops");

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
