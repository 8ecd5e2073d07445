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

/* What goes into the option. */
struct stamp {
	__u64 word;
	__u32 vni;
	__u32 tag;
	__u16 stamper;
	__u16 flags;
};

enum encapsulated { ENCAPSULATED, TOO_BIG, NO_HEADROOM };

/* The complement of a ones' complement sum, of 16 bits. */
static __always_inline __u16 checksum_of(__u64 sum)
{
	__u32 folded;

	sum = (sum & 0xffffffff) + (sum >> 32);
	folded = (__u32)sum + (__u32)(sum >> 32);
	folded += folded >> 16 | folded << 16;
	return ~folded >> 16;
}

/*
 * UDP and Geneve. The sum of what never changes for a hop lies in hop->outer_sum: both addresses, UDP's protocol and
 * port, Geneve's first 12 bytes but for its protocol, and the layout. The inner packet's is known from its headers.
 */
static __always_inline void write_udp(void *start, const struct hl_hop *hop, const struct client *client,
				      const struct stamp *stamp, __u16 source_port, __u32 udp_length)
{
	__be16 protocol = client->is_v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	__be64 word = bpf_cpu_to_be64(stamp->word);
	__be32 tag = bpf_htonl(stamp->tag);
	/* Layout and flags, 0, stamper. */
	__be32 option = bpf_htonl(HL_LAYOUT << 28 | (__u32)stamp->flags << 24 | stamp->stamper);
	__be16 length = bpf_htons(udp_length);
	__be16 port = bpf_htons(source_port);
	__u16 check;
	__u64 sum;

	sum = (__u64)hop->outer_sum + 2 * (__u64)length + port + protocol + option + (word & 0xffffffff) +
	      (word >> 32) + tag + client->inner_sum;
	check = checksum_of(sum);
	/* 0 would say that there is no checksum, and the receiver would not look at the inner one either. */
	if (unlikely(!check))
		check = 0xffff;
	*(__u32 *)start = port | (__u32)bpf_htons(HL_GENEVE_PORT) << 16;
	*(__u32 *)(start + 4) = length | (__u32)check << 16;
	*(__u32 *)(start + 8) = GENEVE_OPTION_WORDS | GENEVE_CRITICAL << 8 | (__u32)protocol << 16;
	*(__u32 *)(start + 12) = bpf_htonl(stamp->vni << 8);
	*(__u32 *)(start + 16) = bpf_htonl((__u32)HL_OPTION_CLASS << 16 | HL_OPTION_TYPE << 8 | 4);
	*(__u32 *)(start + 20) = option;
	*(__u64 *)(start + 24) = word;
	*(__u32 *)(start + 32) = tag;
}

static __always_inline void write_mac(void *data, const struct hl_hop *hop, __be16 protocol)
{
	const __u32 *macs = (const __u32 *)hop;

	*(__u32 *)data = macs[0];
	*(__u32 *)(data + 4) = macs[1];
	*(__u32 *)(data + 8) = macs[2];
	*(__u16 *)(data + 12) = protocol;
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
		write_mac(data, hop, bpf_htons(ETH_P_IP));
		ip = data + sizeof(struct ethhdr);
		*(__u32 *)ip = 0x45 | (__u32)wire_length << 16;
		*(__u32 *)(ip + 4) = bpf_htonl(0x4000);		/* do not fragment */
		*(__u32 *)(ip + 8) = 64 | IPPROTO_UDP << 8 |
				     (__u32)checksum_of((__u64)hop->ip_sum + wire_length) << 16;
		*(__u32 *)(ip + 12) = hop->source[0];
		*(__u32 *)(ip + 16) = hop->destination[0];
		write_udp(ip + sizeof(struct iphdr), hop, client, stamp, source_port, udp_length);
	} else {
		if (unlikely((mtu && udp_length + sizeof(struct ipv6hdr) > mtu) || udp_length > 0xffff))
			return TOO_BIG;
		if (old_outer != HL_OUTER_V6 && bpf_xdp_adjust_head(ctx, old_outer - HL_OUTER_V6))
			return NO_HEADROOM;
		data = (void *)(long)ctx->data;
		if (data + sizeof(struct ethhdr) + HL_OUTER_V6 > (void *)(long)ctx->data_end)
			return NO_HEADROOM;
		write_mac(data, hop, bpf_htons(ETH_P_IPV6));
		ip = data + sizeof(struct ethhdr);
		*(__u32 *)ip = bpf_htonl(0x60000000);
		*(__u32 *)(ip + 4) = bpf_htonl(udp_length << 16 | IPPROTO_UDP << 8 | 64);
		__builtin_memcpy((__u32 *)(ip + 8), hop->source, 16);
		__builtin_memcpy((__u32 *)(ip + 24), hop->destination, 16);
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
