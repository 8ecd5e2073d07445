/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The encapsulation of ADR 0001: written here, read in ingress.bpf.c. */
#ifndef HITLESS_GENEVE_H
#define HITLESS_GENEVE_H

#include "common.h"
#include "parse.h"

/*
 * Geneve's header with our one option. Every field has its own alignment within the header: a packed struct would be
 * read and written byte by byte, which costs more than all else that a director does.
 */
struct geneve {
	__u8 version_options;	/* 2 bits, 6 bits: words of options */
	__u8 flags;
	__be16 protocol;
	__be32 vni_reserved;	/* 24 bits, 8 bits */
	__be16 option_class;
	__u8 option_type;
	__u8 option_length;	/* 3 reserved bits, 5 bits: words behind this */
	__u8 layout_flags;	/* 4 bits, 4 bits */
	__u8 zero;
	__be16 stamper;
	__be32 word[2];		/* 64 bits in network order */
	__be32 tag;
};

#define GENEVE_OPTION_WORDS 5
#define GENEVE_CONTROL 0x80
#define GENEVE_CRITICAL 0x40

_Static_assert(sizeof(struct geneve) == 28, "8 bytes of header, 20 of option");
_Static_assert(sizeof(struct iphdr) + sizeof(struct udphdr) + 28 == HL_OUTER_V4, "as in ADR 0001");
_Static_assert(sizeof(struct ipv6hdr) + sizeof(struct udphdr) + 28 == HL_OUTER_V6, "as in ADR 0001");

/* The first 8 bytes and the option's header of a packet of ours, as they stand in memory. */
#define GENEVE_START4 (GENEVE_OPTION_WORDS | GENEVE_CRITICAL << 8 | (__u32)bpf_htons(ETH_P_IP) << 16)
#define GENEVE_START6 (GENEVE_OPTION_WORDS | GENEVE_CRITICAL << 8 | (__u32)bpf_htons(ETH_P_IPV6) << 16)
#define GENEVE_OPTION ((__u32)bpf_htons(HL_OPTION_CLASS) | HL_OPTION_TYPE << 16 | 4U << 24)

/* What goes into the option. */
struct stamp {
	__u64 word;
	__be32 vni;		/* as the header has it */
	__u32 tag;
	__be16 stamper;
	__u16 flags;
};

enum encapsulated { ENCAPSULATED, TOO_BIG, NO_HEADROOM };

/* The complement of a ones' complement sum, of 16 bits. The sum is of less than 2^20 words of 32 bits. */
static __always_inline __u32 checksum_of(__u64 sum)
{
	__u32 folded;

	sum = (__u32)sum + (sum >> 32);
	folded = (__u32)(sum & 0xffff) + (__u32)(sum >> 16);
	folded = (folded & 0xffff) + (folded >> 16);
	return folded ^ 0xffff;
}

/*
 * UDP and Geneve. The sum of what never changes for a hop lies in hop->outer_sum: both addresses, UDP's protocol and
 * port, Geneve's first 12 bytes but for its protocol, and the layout. The inner packet's is known from its headers.
 * Stores are of 8 bytes where fields allow it.
 */
static __always_inline void write_udp(void *start, const struct hl_hop *hop, const struct client *client,
				      const struct stamp *stamp, __u16 source_port, __u32 udp_length)
{
	__be64 word = bpf_cpu_to_be64(stamp->word);
	__be32 tag = bpf_htonl(stamp->tag);
	/* Layout and flags, 0, stamper. */
	__be32 option = HL_LAYOUT << 4 | stamp->flags | (__u32)stamp->stamper << 16;
	__be16 length = bpf_htons(udp_length);
	__be16 port = bpf_htons(source_port);
	__u32 first = client->is_v6 ? GENEVE_START6 : GENEVE_START4;
	__u32 check;
	__u64 sum;

	sum = (__u64)hop->outer_sum + 2 * (__u32)length + port + (first >> 16) + client->inner_sum;
	sum += option;
	sum += (__u32)word;
	sum += word >> 32;
	sum += tag;
	check = checksum_of(sum);
	/* 0 would say that there is no checksum, and the receiver would not look at the inner one either. */
	if (unlikely(!check))
		check = 0xffff;
	*(__u32 *)start = port | (__u32)bpf_htons(HL_GENEVE_PORT) << 16;
	*(__u32 *)(start + 4) = length | check << 16;
	*(__u64 *)(start + 8) = first | (__u64)stamp->vni << 32;
	*(__u64 *)(start + 16) = GENEVE_OPTION | (__u64)option << 32;
	*(__u64 *)(start + 24) = word;
	*(__u32 *)(start + 32) = tag;
}

/*
 * Puts `client`'s packet, which has `old_outer` bytes of encapsulation now, into a new one for `hop`. All pointers
 * into the packet are void afterwards.
 */
static __always_inline enum encapsulated encapsulate(struct xdp_md *ctx, const struct hl_hop *hop,
						     const struct client *client,
						     const struct stamp *stamp, __u16 source_port,
						     int old_outer)
{
	__u32 udp_length = client->length + sizeof(struct udphdr) + sizeof(struct geneve);
	/* The Ethernet addresses. */
	const __u32 *macs = (const __u32 *)hop;
	__u16 mtu = hop->mtu;
	void *data, *ip;

	if (likely(hop->family == 4)) {
		__u32 length = udp_length + sizeof(struct iphdr);
		__be16 wire_length = bpf_htons(length);

		if (unlikely((mtu && length > mtu) || length > 0xffff))
			return TOO_BIG;
		if (old_outer != HL_OUTER_V4 && bpf_xdp_adjust_head(ctx, old_outer - HL_OUTER_V4))
			return NO_HEADROOM;
		data = (void *)(long)ctx->data;
		if (data + sizeof(struct ethhdr) + HL_OUTER_V4 > (void *)(long)ctx->data_end)
			return NO_HEADROOM;
		ip = data + sizeof(struct ethhdr);
		*(__u64 *)data = *(const __u64 *)macs;
		/* The address's end, IPv4's type, version and header length. */
		*(__u64 *)(data + 8) = macs[2] | (__u64)bpf_htons(ETH_P_IP) << 32 | 0x45ULL << 48;
		/* Length, no fragment and not to be one, 64 hops, UDP. */
		*(__u64 *)(ip + 2) = wire_length | (__u64)bpf_htons(0x4000) << 32 | 64ULL << 48 |
				     (__u64)IPPROTO_UDP << 56;
		*(__u16 *)(ip + 10) = checksum_of(hop->ip_sum + wire_length);
		*(__u64 *)(ip + 12) = *(const __u64 *)hop->addresses;
		write_udp(ip + sizeof(struct iphdr), hop, client, stamp, source_port, udp_length);
	} else {
		if (unlikely((mtu && udp_length + sizeof(struct ipv6hdr) > mtu) || udp_length > 0xffff))
			return TOO_BIG;
		if (old_outer != HL_OUTER_V6 && bpf_xdp_adjust_head(ctx, old_outer - HL_OUTER_V6))
			return NO_HEADROOM;
		data = (void *)(long)ctx->data;
		if (data + sizeof(struct ethhdr) + HL_OUTER_V6 > (void *)(long)ctx->data_end)
			return NO_HEADROOM;
		ip = data + sizeof(struct ethhdr);
		*(__u64 *)data = *(const __u64 *)macs;
		/* The address's end, IPv6's type, version and class. */
		*(__u64 *)(data + 8) = macs[2] | (__u64)bpf_htons(ETH_P_IPV6) << 32 | 0x60ULL << 48;
		/* The flow label's end, length, UDP, 64 hops. */
		*(__u16 *)(ip + 2) = 0;
		*(__u32 *)(ip + 4) = bpf_htons(udp_length) | IPPROTO_UDP << 16 | 64U << 24;
		*(__u64 *)(ip + 8) = *(const __u64 *)&hop->addresses[0];
		*(__u64 *)(ip + 16) = *(const __u64 *)&hop->addresses[2];
		*(__u64 *)(ip + 24) = *(const __u64 *)&hop->addresses[4];
		*(__u64 *)(ip + 32) = *(const __u64 *)&hop->addresses[6];
		write_udp(ip + sizeof(struct ipv6hdr), hop, client, stamp, source_port, udp_length);
	}
	return ENCAPSULATED;
}

/* Spreads flows over the receiver's queues: 14 bits of the hash that neither bucket nor tag uses. */
static __always_inline __u16 source_port_of(__u64 hash)
{
	return 0xc000 | ((hash >> 16) & 0x3fff);
}

#endif
