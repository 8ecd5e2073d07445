/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The encapsulation of ADR 0001: written here, read in ingress.bpf.c. */
#ifndef HITLESS_GENEVE_H
#define HITLESS_GENEVE_H

#include "common.h"
#include "parse.h"

/* Geneve's header with our one option. */
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
	__be64 word;
	__be32 tag;
} __attribute__((packed));

#define GENEVE_OPTION_WORDS 5
#define GENEVE_CONTROL 0x80
#define GENEVE_CRITICAL 0x40

_Static_assert(sizeof(struct geneve) == 28, "8 bytes of header, 20 of option");
_Static_assert(sizeof(struct iphdr) + sizeof(struct udphdr) + 28 == HL_OUTER_V4, "as in ADR 0001");
_Static_assert(sizeof(struct ipv6hdr) + sizeof(struct udphdr) + 28 == HL_OUTER_V6, "as in ADR 0001");

struct outer6 {
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct udphdr udp;
	struct geneve geneve;
} __attribute__((packed));

struct outer4 {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct geneve geneve;
} __attribute__((packed));

/* What goes into the option. */
struct stamp {
	__u64 word;
	__u32 vni;
	__u32 tag;
	__u16 stamper;
	__u16 flags;
};

enum encapsulated { ENCAPSULATED, TOO_BIG, NO_HEADROOM };

static __always_inline void write_inner_headers(struct udphdr *udp, struct geneve *geneve,
						const struct hl_hop *hop, const struct client *client,
						const struct stamp *stamp, __u16 source_port,
						__u32 udp_length)
{
	__be16 protocol = client->is_v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	__be32 vni = bpf_htonl(stamp->vni << 8);
	__be64 word = bpf_cpu_to_be64(stamp->word);
	__be32 tag = bpf_htonl(stamp->tag);
	__u8 layout_flags = HL_LAYOUT << 4 | stamp->flags;
	__u64 sum;

	udp->source = bpf_htons(source_port);
	udp->dest = bpf_htons(HL_GENEVE_PORT);
	udp->len = bpf_htons(udp_length);
	geneve->version_options = GENEVE_OPTION_WORDS;
	geneve->flags = GENEVE_CRITICAL;
	geneve->protocol = protocol;
	geneve->vni_reserved = vni;
	geneve->option_class = bpf_htons(HL_OPTION_CLASS);
	geneve->option_type = HL_OPTION_TYPE;
	geneve->option_length = 4;
	geneve->layout_flags = layout_flags;
	geneve->zero = 0;
	geneve->stamper = bpf_htons(stamp->stamper);
	geneve->word = word;
	geneve->tag = tag;
	sum = (__u64)hop->address_sum + bpf_htons(IPPROTO_UDP) + 2 * (__u64)bpf_htons(udp_length) +
	      bpf_htons(source_port) + bpf_htons(HL_GENEVE_PORT) +
	      bpf_htons(GENEVE_OPTION_WORDS << 8 | GENEVE_CRITICAL) + protocol + vni +
	      bpf_htons(HL_OPTION_CLASS) + bpf_htons(HL_OPTION_TYPE << 8 | 4) +
	      bpf_htons(layout_flags << 8) + bpf_htons(stamp->stamper) + (word & 0xffffffff) +
	      (word >> 32) + tag + client->inner_sum;
	sum = ~fold(sum) & 0xffff;
	/* 0 would say that there is no checksum, and the receiver would not look at the inner one either. */
	udp->check = sum ? sum : 0xffff;
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
	void *data, *end;

	if (hop->family == 4) {
		__u32 length = udp_length + sizeof(struct iphdr);
		struct outer4 *outer;
		__u64 sum;

		if (unlikely((mtu && length > mtu) || length > 0xffff))
			return TOO_BIG;
		if (old_outer != HL_OUTER_V4 && bpf_xdp_adjust_head(ctx, old_outer - HL_OUTER_V4))
			return NO_HEADROOM;
		data = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
		outer = data;
		if ((void *)(outer + 1) > end)
			return NO_HEADROOM;
		__builtin_memcpy(&outer->eth, hop->mac, 12);
		outer->eth.h_proto = bpf_htons(ETH_P_IP);
		*(__u32 *)&outer->ip = bpf_htonl(0x45000000 | length);
		*((__u32 *)&outer->ip + 1) = bpf_htonl(0x4000);
		outer->ip.ttl = 64;
		outer->ip.protocol = IPPROTO_UDP;
		sum = hop->address_sum + bpf_htons(0x4500) + bpf_htons(length) + bpf_htons(0x4000) +
		      bpf_htons(64 << 8 | IPPROTO_UDP);
		outer->ip.check = ~fold(sum);
		outer->ip.saddr = hop->source[0];
		outer->ip.daddr = hop->destination[0];
		write_inner_headers(&outer->udp, &outer->geneve, hop, client, stamp, source_port,
				    udp_length);
	} else {
		struct outer6 *outer;

		if (unlikely((mtu && udp_length + sizeof(struct ipv6hdr) > mtu) || udp_length > 0xffff))
			return TOO_BIG;
		if (old_outer != HL_OUTER_V6 && bpf_xdp_adjust_head(ctx, old_outer - HL_OUTER_V6))
			return NO_HEADROOM;
		data = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
		outer = data;
		if ((void *)(outer + 1) > end)
			return NO_HEADROOM;
		__builtin_memcpy(&outer->eth, hop->mac, 12);
		outer->eth.h_proto = bpf_htons(ETH_P_IPV6);
		*(__u32 *)&outer->ip = bpf_htonl(0x60000000);
		outer->ip.payload_len = bpf_htons(udp_length);
		outer->ip.nexthdr = IPPROTO_UDP;
		outer->ip.hop_limit = 64;
		__builtin_memcpy(&outer->ip.saddr, hop->source, 16);
		__builtin_memcpy(&outer->ip.daddr, hop->destination, 16);
		write_inner_headers(&outer->udp, &outer->geneve, hop, client, stamp, source_port,
				    udp_length);
	}
	return ENCAPSULATED;
}

/* Spreads flows over the receiver's queues: 14 bits of the hash that neither bucket nor tag uses. */
static __always_inline __u16 source_port_of(__u64 hash)
{
	return 0xc000 | ((hash >> 16) & 0x3fff);
}

#endif
