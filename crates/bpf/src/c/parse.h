/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Parsing of the packet that a client sent: IPv4 with options, IPv6 with extension headers, TCP. */
#ifndef HITLESS_PARSE_H
#define HITLESS_PARSE_H

#include "common.h"

#define IP_MORE_OR_OFFSET 0x3fff
#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP6_ERRORS_END 128		/* types below are errors (RFC 4443) */

#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_ESP 50
#define NEXT_AUTHENTICATION 51
#define NEXT_DESTINATION 60

enum parsed {
	PARSED_TCP,
	PARSED_ICMP,		/* no error: echo, neighbour discovery */
	PARSED_ICMP_ERROR,
	PARSED_TRUNCATED,	/* headers say more than there is */
	PARSED_MALFORMED,	/* headers contradict each other */
	PARSED_EXTENSION,	/* IPv6 extension headers that we do not follow, or too many */
	PARSED_FRAGMENT,
	PARSED_PROTOCOL,	/* neither TCP nor ICMP */
};

enum segment { SEGMENT_SYN, SEGMENT_ACK, SEGMENT_BARE };

/* A client's packet. Pointers into it do not survive a move of the packet's head; these values do. */
struct client {
	__u64 addresses[4];	/* source and destination as they stand; IPv4 in the first */
	__u32 ports;		/* both as they stand */
	__u32 acknowledged;	/* network order */
	__u32 length;		/* of the IP packet */
	__u32 tcp_offset;	/* from the IP header */
	__u64 inner_sum;	/* ones' complement sum of the whole packet if its checksums are right, not folded */
	__u8 segment;		/* enum segment */
	bool is_v6;
};

static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline enum parsed parse_tcp(void *tcp_start, void *end, __u32 room, struct client *client)
{
	struct tcphdr *tcp = tcp_start;
	__u32 header;
	__u8 flags;

	if (unlikely((void *)(tcp + 1) > end))
		return PARSED_TRUNCATED;
	/* Its length in bytes; below 20 or above the room. */
	header = ((__u8 *)tcp)[12] >> 2 & 0x3c;
	if (unlikely(header - (__u32)sizeof(*tcp) > room - (__u32)sizeof(*tcp)))
		return PARSED_MALFORMED;
	client->ports = *(__u32 *)tcp;
	client->acknowledged = tcp->ack_seq;
	flags = ((__u8 *)tcp)[13];
	if (flags & 0x10)
		client->segment = SEGMENT_ACK;
	else
		client->segment = flags & 0x02 ? SEGMENT_SYN : SEGMENT_BARE;
	return PARSED_TCP;
}

/* Why an IPv4 packet is none that parse4 takes; its fixed header is there. */
static __noinline enum parsed reason4(struct iphdr *ip, void *end)
{
	__u32 header = ip->ihl * 4;
	__u32 length = bpf_ntohs(ip->tot_len);
	__u8 *type;

	if (ip->version != 4 || header < sizeof(*ip) || length < header)
		return PARSED_MALFORMED;
	if ((__u64)length > (__u64)(end - (void *)ip))
		return PARSED_TRUNCATED;
	if (ip->frag_off & bpf_htons(IP_MORE_OR_OFFSET))
		return PARSED_FRAGMENT;
	/* Without room for its header. */
	if (ip->protocol == IPPROTO_TCP)
		return PARSED_TRUNCATED;
	if (ip->protocol != IPPROTO_ICMP)
		return PARSED_PROTOCOL;
	type = (void *)ip + header;
	if ((void *)(type + 8) > end || length < header + 8)
		return PARSED_TRUNCATED;
	return *type == ICMP_UNREACHABLE || *type == ICMP_TIME_EXCEEDED || *type == ICMP_PARAMETER ?
		       PARSED_ICMP_ERROR : PARSED_ICMP;
}

/* The caller has checked that the fixed header is there. */
static __always_inline enum parsed parse4(struct iphdr *ip, void *end, struct client *client)
{
	__u32 first = *(__u8 *)ip;
	__u32 header = (first & 0xf) * 4;
	__u32 length = bpf_ntohs(ip->tot_len);
	/* Fragment bits, hops, protocol. */
	__u32 kind = *(__u32 *)((void *)ip + 6) & (bpf_htons(IP_MORE_OR_OFFSET) | 0xff000000);

	if (unlikely(first - 0x45 > 0xf - 5 || kind != IPPROTO_TCP << 24 ||
		     length < header + (__u32)sizeof(struct tcphdr) ||
		     (__u64)length > (__u64)(end - (void *)ip)))
		return reason4(ip, end);
	client->is_v6 = false;
	client->length = length;
	client->tcp_offset = header;
	client->addresses[0] = *(__u64 *)&ip->saddr;
	/*
	 * A right header sums to nothing, and a right segment to the complement of its pseudo header. A wrong one
	 * so leads to a wrong outer checksum, as it should.
	 */
	client->inner_sum = (__u64)(__u32)~ip->saddr + (__u32)~ip->daddr +
			    (0xffff ^ bpf_htons(IPPROTO_TCP)) + (0xffff ^ bpf_htons(length - header));
	return parse_tcp((void *)ip + header, end, length - header, client);
}

/* The sum of an IPv6 packet's extension headers. Rare, so it may cost a copy. */
static __noinline __u32 extension_sum(struct xdp_md *ctx, __u32 offset, __u32 length)
{
	__u8 bytes[HL_EXTENSION_BYTES_MAX];

	if (length < 8 || length > sizeof(bytes) || length % 8)
		return 0;
	/* Zeroes do not change a sum, and a fixed size spares the verifier the proof. */
	__builtin_memset(bytes, 0, sizeof(bytes));
	if (bpf_xdp_load_bytes(ctx, offset, bytes, length))
		return 0;
	return fold((__u32)bpf_csum_diff(0, 0, (__be32 *)bytes, sizeof(bytes), 0));
}

/* The caller has checked that the fixed header is there, `offset` bytes into the frame. */
static __always_inline enum parsed parse6(struct xdp_md *ctx, struct ipv6hdr *ip, void *end,
					  __u32 offset, struct client *client)
{
	__u32 payload = bpf_ntohs(ip->payload_len);
	__u32 extensions = 0;
	__u32 segment_length;
	__u8 next = ip->nexthdr;
	__u64 sum;
	int i;

	if (unlikely(ip->version != 6))
		return PARSED_MALFORMED;
	if (unlikely((__u64)payload + sizeof(*ip) > (__u64)(end - (void *)ip)))
		return PARSED_TRUNCATED;
	if (unlikely(next != IPPROTO_TCP)) {
#pragma unroll
		for (i = 0; i < HL_EXTENSIONS_MAX; i++) {
			__u8 *extension = (void *)(ip + 1) + extensions;

			if (next != NEXT_HOP_BY_HOP && next != NEXT_DESTINATION)
				break;
			if ((void *)(extension + 8) > end)
				return PARSED_TRUNCATED;
			next = extension[0];
			extensions += (extension[1] + 1) * 8;
			if (extensions > HL_EXTENSION_BYTES_MAX)
				return PARSED_EXTENSION;
		}
		if (extensions > payload)
			return PARSED_MALFORMED;
		switch (next) {
		case IPPROTO_TCP:
			break;
		case NEXT_FRAGMENT:
			return PARSED_FRAGMENT;
		case NEXT_HOP_BY_HOP:
		case NEXT_DESTINATION:
		case NEXT_ROUTING:
		case NEXT_ESP:
		case NEXT_AUTHENTICATION:
			return PARSED_EXTENSION;
		case IPPROTO_ICMPV6: {
			__u8 *type = (void *)(ip + 1) + extensions;

			if ((void *)(type + 8) > end || payload < extensions + 8)
				return PARSED_TRUNCATED;
			return *type < ICMP6_ERRORS_END ? PARSED_ICMP_ERROR : PARSED_ICMP;
		}
		default:
			return PARSED_PROTOCOL;
		}
	}
	segment_length = payload - extensions;
	if (unlikely(segment_length < sizeof(struct tcphdr)))
		return PARSED_TRUNCATED;
	client->is_v6 = true;
	client->length = payload + sizeof(*ip);
	client->tcp_offset = sizeof(*ip) + extensions;
	client->addresses[0] = *(__u64 *)&ip->saddr;
	client->addresses[1] = *((__u64 *)&ip->saddr + 1);
	client->addresses[2] = *((__u64 *)&ip->saddr + 2);
	client->addresses[3] = *((__u64 *)&ip->saddr + 3);
	/* The header's sum less the pseudo header's: the addresses are in both, so they need no adding. */
	sum = (__u64)*(__u32 *)ip + ip->payload_len + *(__u16 *)&ip->nexthdr;
	sum += 0xffff ^ bpf_htons(segment_length);
	sum += 0xffff ^ bpf_htons(IPPROTO_TCP);
	if (unlikely(extensions))
		sum += extension_sum(ctx, offset + sizeof(*ip), extensions);
	client->inner_sum = sum;
	return parse_tcp((void *)(ip + 1) + extensions, end, segment_length, client);
}

#endif
