/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the kernel's programs and their loader share: sizes, table entries, counters. The only definition:
 * the build script makes the Rust constants from the #define lines and the counter lists, and the Rust
 * structs from the type information of the compiled objects. A change of anything here, or of a map in
 * maps_*.h, changes the layout's digest, so that a new loader fills new maps instead of misreading old ones.
 */
#ifndef HITLESS_ABI_H
#define HITLESS_ABI_H

/* Tables. */
#define HL_VIRTUAL_CLUSTERS 32		/* per node; a table of rows takes 512 KiB, so 16 MiB */
#define HL_BUCKETS 65536		/* per virtual cluster: 16 bits of the hash (ADR 0001) */
#define HL_SLOTS 4096			/* guest slots 0 (none) to 4095 (ADR 0001) */
#define HL_HOPS 16384			/* next hops of a director: guests in use and some being replaced, 1 MiB */
#define HL_PEER_HOPS 8192		/* next hops of an ingress: 4095 peers, each replaced at once, 512 KiB */
#define HL_ADDRESSES 16384		/* VIPs and egress addresses of one family */
#define HL_NEAR 1024			/* IPv4 addresses that are found without a hash map, 64 KiB; others cost 10 ns more */
#define HL_MEMBERS 16384		/* underlay addresses of directors and guests */
#define HL_PORTS 4096			/* guests' interfaces on one node */
#define HL_STAMPERS 65536		/* a director's number has 16 bits (ADR 0001) */

/* What an address is, in struct hl_address.kind. */
#define HL_VIP 1
#define HL_EGRESS 2

/* Where an underlay member is, the value in members: only one elsewhere may send through an uplink. */
#define HL_MEMBER_ELSEWHERE 1
#define HL_MEMBER_HERE 2

/* Bits of a guest word: hop index in the low half, plus the mark. */
#define HL_GUEST_HOP_MASK 0xffffffff
#define HL_GUEST_WATCHED 0x100000000

/* The encapsulation (ADR 0001). */
#define HL_GENEVE_PORT 6081
#define HL_OPTION_CLASS 0xff48
#define HL_OPTION_TYPE 0x81
#define HL_LAYOUT 1
#define HL_NO_ANSWER 1
#define HL_AS_NEW 2
#define HL_OUTER_V4 56
#define HL_OUTER_V6 76

/* Limits of the parser. */
#define HL_EXTENSIONS_MAX 4		/* IPv6 extension headers before TCP: hop-by-hop and destination options */
#define HL_EXTENSION_BYTES_MAX 128	/* all of them together; more is counted and dropped */

/* Where a packet to a guest goes. Written once before a guest word names it, never changed while it does. */
struct hl_hop {
	__u8 mac[6];		/* next hop's; first 12 bytes are an Ethernet header's */
	__u8 source_mac[6];
	__u16 family;		/* 4 or 6: of the outer header */
	__u16 mtu;		/* the underlay's; 0: not checked */
	__u32 ifindex;		/* where it leaves; 0: where it came in */
	__u32 outer_sum;	/* sum of all that is the same in every packet to it; see geneve.h */
	__u32 addresses[8];	/* network order, source and destination: two words of IPv4, or eight of IPv6 */
	__u32 ip_sum;		/* likewise of the outer IPv4 header, below 0x10000 */
	__u32 reserved;
} __attribute__((aligned(8)));

/* A virtual cluster as a director knows it. Keys are little-endian halves of the SipHash key. */
struct hl_cluster {
	__u64 key[2];		/* only kept: addresses have what is made of it */
	__be32 vni;		/* as Geneve's header has it: 24 bits and 8 that are 0 */
	__be16 director;	/* this director's number, the stamper */
	__u16 present;		/* 0: the entry is free */
	__u64 dead_marks;	/* 0: no bit below is set, so nobody needs to look */
	__u64 dead[64];		/* a bit per guest slot that this director believes dead */
};

/* One of our addresses and whose it is. */
struct hl_address {
	__u32 cluster;		/* index of struct hl_cluster; 0 at an ingress */
	__u32 kind;		/* HL_VIP or HL_EGRESS */
	__u64 state[4];		/* the flow hash behind the destination (sip.h) */
};

/*
 * An IPv4 address once more, where it is found at once, with all that a usual packet needs. What stands behind the word is
 * written before it, and stays.
 */
struct hl_near {
	__u64 word;		/* the address, and above it its kind and cluster (<< 2); 0: nobody's */
	__u64 state[4];
	__u64 vni;		/* of its virtual cluster, as Geneve's header has it */
	__u64 reserved[2];	/* to a cache line */
};

/* The rows of a virtual cluster. */
struct hl_rows {
	__u64 word[HL_BUCKETS];
};

struct hl_in6 {
	__u32 word[4];		/* network order; an IPv4 address is mapped (::ffff:a.b.c.d) */
};

/* A guest's interface on its node. */
struct hl_port {
	struct hl_in6 address;	/* the only outer source it may use */
	__u32 number;		/* VNI of its virtual cluster */
	__u32 reserved;
};

/* What an ingress is. Written before the program is attached; lease and marks change later by atomic stores. */
struct hl_self {
	__u64 key[2];
	__u64 lease_until_ns;	/* CLOCK_BOOTTIME; before it, the stack may answer unknown packets */
	__be32 vni;		/* as Geneve's header has it */
	__u16 slot;		/* 0: this server is not listed in any row */
	__u16 reserved;
	__u64 dead_marks;
	__u64 dead[64];
};

/* Counters. One packet counts one verdict; those named also_* are counted beside one. */
#define HL_DIRECTOR_COUNTERS(X) \
	X(directed) \
	X(pass_other) \
	X(pass_vlan) \
	X(pass_not_ours) \
	X(pass_icmp) \
	X(pass_geneve) \
	X(drop_truncated) \
	X(drop_malformed) \
	X(drop_extension) \
	X(drop_fragment) \
	X(drop_protocol) \
	X(drop_icmp_error) \
	X(drop_geneve_outsider) \
	X(drop_no_row) \
	X(drop_no_guest) \
	X(drop_too_big) \
	X(drop_no_headroom) \
	X(also_dead_last)

#define HL_INGRESS_COUNTERS(X) \
	X(delivered) \
	X(accepted) \
	X(answered) \
	X(refused) \
	X(forwarded) \
	X(restamped) \
	X(pass_other) \
	X(pass_vlan) \
	X(pass_not_ours) \
	X(pass_icmp) \
	X(no_row) \
	X(not_named) \
	X(no_answer) \
	X(older_row) \
	X(no_lease) \
	X(not_listed) \
	X(wrong_number) \
	X(drop_truncated) \
	X(drop_malformed) \
	X(drop_extension) \
	X(drop_fragment) \
	X(drop_protocol) \
	X(drop_icmp_error) \
	X(drop_outer) \
	X(drop_geneve) \
	X(drop_option) \
	X(drop_layout) \
	X(drop_cluster) \
	X(drop_length) \
	X(drop_inner_destination) \
	X(drop_tag) \
	X(drop_row) \
	X(drop_no_peer) \
	X(drop_too_big) \
	X(drop_no_headroom) \
	X(also_cookie) \
	X(also_mismatch)

#define HL_PORT_COUNTERS(X) \
	X(pass_other) \
	X(pass_vlan) \
	X(pass_forwarded) \
	X(drop_truncated) \
	X(drop_unknown_port) \
	X(drop_source) \
	X(drop_destination) \
	X(drop_geneve) \
	X(drop_cluster)

#define HL_COUNTER_NAME_(name) COUNT_##name,
#define HL_PORT_COUNTER_NAME_(name) PORT_COUNT_##name,

#endif
