// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The ingress of a guest: decides for every packet of its virtual cluster whether its own kernel gets it or the next
 * guest of the row. The decisions are those of core's steer.rs, in its order and words. docs/verdicts.md lists them.
 */
#include "maps_ingress.h"

#include "address.h"
#include "geneve.h"
#include "kernel.h"
#include "live.h"
#include "parse.h"
#include "row.h"
#include "sip.h"

/* How much less than all a late packet may acknowledge: more than what is on its way of usual connections. */
#define HL_LATE_BYTES (1 << 18)

/* What our kernel holds of the flow. */
enum held {
	HELD_NOTHING,
	HELD_LISTENER,
	HELD_HALF_OPEN_OURS,	/* the packet acknowledges our initial sequence number */
	HELD_HALF_OPEN_OTHER,
	HELD_ESTABLISHED,
	HELD_TIME_WAIT_OURS,	/* the packet acknowledges the end of the connection that was */
	HELD_TIME_WAIT_OTHER,
	HELD_COOKIE,
};

/* A packet of ours on its way through. Holds no pointers: it is passed to functions that are verified by themselves. */
struct passage {
	struct client client;
	__u64 hash;
	__u64 row;		/* our own */
	__u64 word;		/* the packet's, 0 if plain */
	__be16 stamper;
	__u16 flags;
	__u32 outer;		/* bytes of encapsulation that it has: 0, 56 or 76 */
	enum held held;
};

static __always_inline int count(__u32 which, int action)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);

	if (counter)
		(*counter)++;
	return action;
}

static __always_inline int refuse(enum parsed why)
{
	switch (why) {
	case PARSED_ICMP_ERROR:
		return count(COUNT_drop_icmp_error, XDP_DROP);
	case PARSED_TRUNCATED:
		return count(COUNT_drop_truncated, XDP_DROP);
	case PARSED_EXTENSION:
		return count(COUNT_drop_extension, XDP_DROP);
	case PARSED_FRAGMENT:
		return count(COUNT_drop_fragment, XDP_DROP);
	case PARSED_ICMP:
	case PARSED_PROTOCOL:
		return count(COUNT_drop_protocol, XDP_DROP);
	default:
		return count(COUNT_drop_malformed, XDP_DROP);
	}
}

/* To the stack, without the encapsulation. */
static __always_inline int strip(struct xdp_md *ctx, __u32 outer, bool is_v6, __u32 counter)
{
	void *data = (void *)(long)ctx->data;
	__u64 first;
	__u32 last;

	if (!outer)
		return count(counter, XDP_PASS);
	if (data + sizeof(struct ethhdr) > (void *)(long)ctx->data_end)
		return count(COUNT_drop_truncated, XDP_DROP);
	/* Not by struct ethhdr, which is packed and so read byte by byte. */
	first = *(__u64 *)data;
	last = *(__u32 *)(data + 8);
	if (bpf_xdp_adjust_head(ctx, outer))
		return count(COUNT_drop_truncated, XDP_DROP);
	data = (void *)(long)ctx->data;
	if (data + sizeof(struct ethhdr) > (void *)(long)ctx->data_end)
		return count(COUNT_drop_truncated, XDP_DROP);
	*(__u64 *)data = first;
	*(__u32 *)(data + 8) = last;
	*(__be16 *)(data + 12) = is_v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	return count(counter, XDP_PASS);
}

__noinline int hand_up(struct xdp_md *ctx, const struct passage *p, __u32 counter)
{
	if (!p)
		return XDP_ABORTED;
	return strip(ctx, p->outer, p->client.is_v6, counter);
}

/* To the guest `slot`, with the word, flags and stamper of `stamp`. */
__noinline int forward(struct xdp_md *ctx, const struct passage *p, const struct stamp *new, __u32 slot,
		       __u32 counter)
{
	struct hl_hop *hop;
	struct stamp stamp;
	__u32 hop_index;

	if (unlikely(!p || !new))
		return count(COUNT_drop_no_peer, XDP_DROP);
	hop_index = READ_ONCE(guests[slot & (HL_SLOTS - 1)]) & HL_GUEST_HOP_MASK;
	if (unlikely(!hop_index))
		return count(COUNT_drop_no_peer, XDP_DROP);
	hop = &hops[hop_index & (HL_PEER_HOPS - 1)];
	stamp = *new;
	switch (encapsulate(ctx, hop, &p->client, &stamp, source_port_of(p->hash), p->outer)) {
	case TOO_BIG:
		return count(COUNT_drop_too_big, XDP_DROP);
	case NO_HEADROOM:
		return count(COUNT_drop_no_headroom, XDP_DROP);
	default:
		return count(counter, XDP_TX);
	}
}

static __always_inline bool listens(enum held held)
{
	return held == HELD_LISTENER || held == HELD_COOKIE || held == HELD_TIME_WAIT_OURS ||
	       held == HELD_TIME_WAIT_OTHER;
}

static __always_inline bool is_known(__u8 segment, enum held held)
{
	switch (held) {
	case HELD_ESTABLISHED:
		return true;
	case HELD_TIME_WAIT_OURS:
		/* A SYN may open a connection, so it is judged like one that meets a listener. */
		return segment == SEGMENT_ACK;
	case HELD_HALF_OPEN_OURS:
		return segment != SEGMENT_BARE;
	case HELD_HALF_OPEN_OTHER:
		return segment == SEGMENT_SYN;
	case HELD_COOKIE:
		return segment == SEGMENT_ACK;
	default:
		return false;
	}
}

/* Nobody is left to ask. The stack answers only if it is sure that nobody knows the packet. */
static __always_inline int last_hop(struct xdp_md *ctx, const struct passage *p,
				    const struct hl_self *us, __u64 word, __u16 flags)
{
	__u8 segment = p->client.segment;

	if (segment == SEGMENT_BARE)
		return hand_up(ctx, p, COUNT_delivered);
	if (segment == SEGMENT_ACK &&
	    (p->held == HELD_HALF_OPEN_OTHER || p->held == HELD_HALF_OPEN_OURS))
		return count(COUNT_wrong_number, XDP_DROP);
	if (flags & HL_NO_ANSWER)
		return count(COUNT_no_answer, XDP_DROP);
	if (!(p->row & ROW_GUESTS) || !is_same_sequence(word, p->row))
		return count(COUNT_older_row, XDP_DROP);
	if (bpf_ktime_get_boot_ns() >= READ_ONCE(us->lease_until_ns))
		return count(COUNT_no_lease, XDP_DROP);
	if (segment == SEGMENT_SYN && listens(p->held))
		return count(COUNT_not_listed, XDP_DROP);
	return hand_up(ctx, p, segment == SEGMENT_SYN ? COUNT_refused : COUNT_answered);
}

/* The packet's word is not older than our row: it decides who is asked next. */
static __always_inline int along(struct xdp_md *ctx, const struct passage *p, const struct hl_self *us)
{
	int position = position_of(p->word, us->slot);
	__u16 flags = p->flags;
	struct stamp stamp;
	__u32 next;

	if (unlikely(position < 0))
		return count(COUNT_not_named, XDP_DROP);
	if (p->client.segment == SEGMENT_SYN && listens(p->held) &&
	    position_of(p->row, us->slot) >= 0)
		return hand_up(ctx, p, COUNT_accepted);
	next = position < ROW_SLOTS - 1 ? slot_at(p->word, position + 1) : 0;
	if (!next)
		return last_hop(ctx, p, us, p->word, flags);
	if (!(p->row & ROW_GUESTS) || is_newer(p->word, p->row))
		flags |= HL_NO_ANSWER;
	stamp = (struct stamp){ .word = p->word, .vni = us->vni, .tag = p->hash >> 32,
				.stamper = p->stamper, .flags = flags };
	return forward(ctx, p, &stamp, next, COUNT_forwarded);
}

/* Our row is newer than the packet's word, or the packet has none: we stamp it. */
static __always_inline int restamp(struct xdp_md *ctx, const struct passage *p, const struct hl_self *us)
{
	bool is_syn = p->client.segment == SEGMENT_SYN;
	__u32 slot = us->slot;
	__u64 word = is_syn ? p->row : without(p->row, slot);
	struct stamp stamp;
	__u32 next;

	if (READ_ONCE(us->dead_marks))
		word = dead_last(word, us->dead, slot);
	next = slot_at(word, 0);
	if (is_syn && next == slot) {
		if (listens(p->held))
			return hand_up(ctx, p, COUNT_accepted);
		next = slot_at(word, 1);
	}
	if (!next)
		return last_hop(ctx, p, us, p->row, 0);
	stamp = (struct stamp){ .word = word, .vni = us->vni, .tag = p->hash >> 32,
				.stamper = 0, .flags = p->flags & HL_AS_NEW };
	return forward(ctx, p, &stamp, next, COUNT_restamped);
}

/* A packet with this director's stamp came in. */
static __always_inline void note_stamper(__be16 stamper)
{
	if (unlikely(!READ_ONCE(stampers[stamper])))
		WRITE_ONCE(stampers[stamper], 1);
}

static __always_inline void note_stale(__be16 stamper)
{
	__sync_fetch_and_add(&stale[stamper], 1);
}

__noinline int steer(struct xdp_md *ctx, const struct passage *p)
{
	const struct hl_self *us = &me;
	bool is_older;

	if (!p)
		return XDP_ABORTED;
	if (is_known(p->client.segment, p->held)) {
		if (p->held == HELD_COOKIE)
			count(COUNT_also_cookie, 0);
		return hand_up(ctx, p, COUNT_delivered);
	}
	if ((p->held == HELD_HALF_OPEN_OTHER || p->held == HELD_TIME_WAIT_OTHER) && p->client.segment == SEGMENT_ACK)
		count(COUNT_also_mismatch, 0);
	if (!p->outer) {
		if (!(p->row & ROW_GUESTS))
			return count(COUNT_no_row, XDP_DROP);
		return restamp(ctx, p, us);
	}
	is_older = p->row & ROW_GUESTS && is_newer(p->row, p->word);
	if (!is_older)
		return along(ctx, p, us);
	if (p->stamper)
		note_stale(p->stamper);
	return restamp(ctx, p, us);
}

/* Whether the packet's ACK answers a SYN cookie of this listener's. */
static __always_inline bool is_cookie(struct xdp_md *ctx, const struct passage *p, struct bpf_sock *sk)
{
	void *end = (void *)(long)ctx->data_end;
	void *ip = (void *)(long)ctx->data + sizeof(struct ethhdr);
	__u32 tcp_offset = p->client.tcp_offset;
	struct tcphdr *tcp;

	if (p->outer == HL_OUTER_V4)
		ip += HL_OUTER_V4;
	else if (p->outer == HL_OUTER_V6)
		ip += HL_OUTER_V6;
	if (tcp_offset > sizeof(struct ipv6hdr) + HL_EXTENSION_BYTES_MAX)
		return false;
	tcp = ip + tcp_offset;
	if ((void *)(tcp + 1) > end)
		return false;
	if (p->client.is_v6) {
		struct ipv6hdr *ip6 = ip;

		return (void *)(ip6 + 1) <= end &&
		       !bpf_tcp_check_syncookie(sk, ip6, sizeof(*ip6), tcp, sizeof(*tcp));
	} else {
		struct iphdr *ip4 = ip;

		return (void *)(ip4 + 1) <= end &&
		       !bpf_tcp_check_syncookie(sk, ip4, sizeof(*ip4), tcp, sizeof(*tcp));
	}
}

/* What our kernel holds of the packet's flow: an enum held. */
__noinline int look_up(struct xdp_md *ctx, const struct passage *p)
{
	const struct client *client;
	struct bpf_sock_tuple tuple = {};
	enum held held = HELD_ESTABLISHED;
	struct tcp_timewait_sock *tw;
	struct tcp_request_sock *request;
	struct bpf_sock *sk;
	bool is_orphan;

	if (!p)
		return HELD_NOTHING;
	client = &p->client;
	if (client->is_v6) {
		__builtin_memcpy(&tuple.ipv6, client->addresses, 32);
		*(__u32 *)&tuple.ipv6.sport = client->ports;
		sk = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	} else {
		*(__u64 *)&tuple.ipv4 = client->addresses[0];
		*(__u32 *)&tuple.ipv4.sport = client->ports;
		sk = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return HELD_NOTHING;
	switch (sk->state) {
	case STATE_LISTEN:
		held = HELD_LISTENER;
		if (client->segment == SEGMENT_ACK && is_cookie(ctx, p, sk))
			held = HELD_COOKIE;
		break;
	case STATE_NEW_SYN_RECV:
		request = bpf_skc_to_tcp_request_sock(sk);
		held = HELD_HALF_OPEN_OTHER;
		if (request && client->segment == SEGMENT_ACK &&
		    bpf_ntohl(client->acknowledged) == request->snt_isn + 1)
			held = HELD_HALF_OPEN_OURS;
		break;
	case STATE_TIME_WAIT:
		/*
		 * The client may have used its port again, for a connection that another guest has: that one's packets
		 * acknowledge other numbers. Late packets of the old one acknowledge its end, or a little less. An orphan
		 * in FIN_WAIT2 looks like this too, and is a connection as long as its client may still end it.
		 */
		tw = bpf_skc_to_tcp_timewait_sock(sk);
		is_orphan = tw && tw->tw_sk.tw_substate == STATE_FIN_WAIT2;
		if (is_orphan && client->segment != SEGMENT_ACK)
			break;
		held = HELD_TIME_WAIT_OTHER;
		if (tw && client->segment == SEGMENT_ACK &&
		    tw->tw_sk.__tw_common.skc_tw_snd_nxt - bpf_ntohl(client->acknowledged) < HL_LATE_BYTES)
			held = is_orphan ? HELD_ESTABLISHED : HELD_TIME_WAIT_OURS;
		break;
	case STATE_CLOSE:
		held = HELD_NOTHING;
		break;
	default:
		break;
	}
	bpf_sk_release(sk);
	return held;
}

/* The packet is one of ours and its tag, if it has one, is right. */
static __always_inline int admit(struct xdp_md *ctx, struct passage *p, const struct whose *whose)
{
	__u32 bucket = p->hash & 0xffff;

	if (unlikely(whose->kind == HL_EGRESS))
		bucket = (bpf_ntohs(p->client.ports >> 16) & 0x3ff) << 6;
	p->row = READ_ONCE(rows[bucket & (HL_BUCKETS - 1)]);
#ifdef HL_BENCH_WITHOUT_LOOK_UP
	p->held = HELD_ESTABLISHED;
#else
	p->held = look_up(ctx, p);
#endif
	/* Nearly every packet; the others pay for a call. */
	if (likely(p->held == HELD_ESTABLISHED))
		return strip(ctx, p->outer, p->client.is_v6, COUNT_delivered);
	return steer(ctx, p);
}

/* A client's packet, `outer` bytes behind the Ethernet header; if it has an encapsulation, `tag` is its. */
static __always_inline int take4(struct xdp_md *ctx, struct passage *p, void *data, void *end,
				 __u32 outer, __u32 inner_length, __u32 tag)
{
	struct iphdr *ip = data + sizeof(struct ethhdr) + outer;
	struct whose whose;
	enum parsed parsed;

	if (unlikely((void *)(ip + 1) > end))
		return count(COUNT_drop_truncated, XDP_DROP);
	if (unlikely(outer && bpf_ntohs(ip->tot_len) != inner_length))
		return count(COUNT_drop_length, XDP_DROP);
	if (!find4(&ip->daddr, &whose))
		return outer ? count(COUNT_drop_inner_destination, XDP_DROP)
			     : count(COUNT_pass_not_ours, XDP_PASS);
	parsed = parse4(ip, end, &p->client);
	if (unlikely(parsed != PARSED_TCP)) {
		if (!outer && parsed == PARSED_ICMP)
			return count(COUNT_pass_icmp, XDP_PASS);
		return refuse(parsed);
	}
	p->hash = flow_hash4(whose.state, p->client.addresses[0], p->client.ports);
	if (unlikely(outer && p->hash >> 32 != tag))
		return count(COUNT_drop_tag, XDP_DROP);
	/* Only who knows the key has stamped. */
	if (likely(outer))
		note_stamper(p->stamper);
	return admit(ctx, p, &whose);
}

static __always_inline int take6(struct xdp_md *ctx, struct passage *p, void *data, void *end,
				 __u32 outer, __u32 inner_length, __u32 tag)
{
	struct ipv6hdr *ip = data + sizeof(struct ethhdr) + outer;
	struct whose whose;
	enum parsed parsed;

	if (unlikely((void *)(ip + 1) > end))
		return count(COUNT_drop_truncated, XDP_DROP);
	if (unlikely(outer && bpf_ntohs(ip->payload_len) + sizeof(*ip) != inner_length))
		return count(COUNT_drop_length, XDP_DROP);
	if (!find6(&ip->daddr, &whose))
		return outer ? count(COUNT_drop_inner_destination, XDP_DROP)
			     : count(COUNT_pass_not_ours, XDP_PASS);
	parsed = parse6(ctx, ip, end, sizeof(struct ethhdr) + outer, &p->client);
	if (unlikely(parsed != PARSED_TCP)) {
		if (!outer && parsed == PARSED_ICMP)
			return count(COUNT_pass_icmp, XDP_PASS);
		return refuse(parsed);
	}
	p->hash = flow_hash6(whose.state, p->client.addresses, p->client.ports);
	if (unlikely(outer && p->hash >> 32 != tag))
		return count(COUNT_drop_tag, XDP_DROP);
	/* Only who knows the key has stamped. */
	if (likely(outer))
		note_stamper(p->stamper);
	return admit(ctx, p, &whose);
}

/* UDP to the port of Geneve. `outer` is 56 or 76, `room` what the outer IP header says is behind it. */
static __always_inline int take_geneve(struct xdp_md *ctx, struct passage *p, const struct hl_self *us,
				 void *data, void *end,
				       struct udphdr *udp, __u32 outer, __u32 room)
{
	struct geneve *geneve = (void *)(udp + 1);
	__u32 udp_length = bpf_ntohs(udp->len);
	__u32 inner_length, tag;

	if (unlikely((void *)(geneve + 1) > end))
		return count(COUNT_drop_truncated, XDP_DROP);
	/* Without a checksum the kernel may take the inner one for checked. */
	if (unlikely(!udp->check || udp_length != room || udp_length < sizeof(*udp) + sizeof(*geneve)))
		return count(COUNT_drop_outer, XDP_DROP);
	if (unlikely((__u64)udp_length > (__u64)(end - (void *)udp)))
		return count(COUNT_drop_truncated, XDP_DROP);
	if (unlikely(geneve->version_options != GENEVE_OPTION_WORDS ||
		     (geneve->flags & (GENEVE_CONTROL | GENEVE_CRITICAL)) != GENEVE_CRITICAL))
		return count(COUNT_drop_geneve, XDP_DROP);
	if (unlikely((geneve->vni_reserved & bpf_htonl(0xffffff00)) != us->vni))
		return count(COUNT_drop_cluster, XDP_DROP);
	if (unlikely(geneve->option_class != bpf_htons(HL_OPTION_CLASS) ||
		     geneve->option_type != HL_OPTION_TYPE || geneve->option_length != 4))
		return count(COUNT_drop_option, XDP_DROP);
	if (unlikely(geneve->layout_flags >> 4 != HL_LAYOUT))
		return count(COUNT_drop_layout, XDP_DROP);
	p->flags = geneve->layout_flags & 0xf;
	if (unlikely(p->flags & ~(HL_NO_ANSWER | HL_AS_NEW) || geneve->zero))
		return count(COUNT_drop_option, XDP_DROP);
	p->word = bpf_be64_to_cpu(*(__be64 *)geneve->word);
	if (unlikely(!is_row(p->word)))
		return count(COUNT_drop_row, XDP_DROP);
	p->stamper = geneve->stamper;
	p->outer = outer;
	tag = bpf_ntohl(geneve->tag);
	inner_length = udp_length - sizeof(*udp) - sizeof(*geneve);
	if (geneve->protocol == bpf_htons(ETH_P_IP))
		return take4(ctx, p, data, end, outer, inner_length, tag);
	if (geneve->protocol == bpf_htons(ETH_P_IPV6))
		return take6(ctx, p, data, end, outer, inner_length, tag);
	return count(COUNT_drop_geneve, XDP_DROP);
}

/* States of a connection that is open or closing; half-open, listening, TIME_WAIT and closed ones are judged apart. */
#define STATES_KNOWN (1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11)

/* Whether our kernel has such a connection. */
static __always_inline bool has_connection(struct xdp_md *ctx, __u64 addresses, __u32 ports)
{
#ifdef HL_BENCH_WITHOUT_LOOK_UP
	return true;
#else
	struct bpf_sock_tuple tuple;
	struct bpf_sock *sk;
	bool is_known;

	*(__u64 *)&tuple.ipv4 = addresses;
	*(__u32 *)&tuple.ipv4.sport = ports;
	sk = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	is_known = STATES_KNOWN >> (sk->state & 31) & 1;
	bpf_sk_release(sk);
	return is_known;
#endif
}

#define NOT_USUAL (-1)

/* What counts of the 8 bytes behind an IPv4 header's second: length, fragment bits, protocol. */
#define IP_LENGTH 0xffffULL
#define IP_KIND ((__u64)bpf_htons(IP_MORE_OR_OFFSET) << 32 | 0xffULL << 56)

/*
 * Nearly every packet: IPv4 in IPv4, no options, no flags, no SYN, of a connection that we have. What is not so in every
 * respect is NOT_USUAL, whatever it is, and goes the general way from its beginning. It needs no row.
 */
static __always_inline int take_usual(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *ip = data + sizeof(struct ethhdr);
	void *udp = ip + sizeof(struct iphdr);
	void *geneve = udp + sizeof(struct udphdr);
	void *inner = geneve + sizeof(struct geneve);
	void *tcp = inner + sizeof(struct iphdr);
	void *end = (void *)(long)ctx->data_end;
	__u64 kind, option, hash, word, first, second;
	__u32 length, header, ports, place;
	struct hl_near *near;

	if (tcp + sizeof(struct tcphdr) > end || *(__be16 *)(data + 12) != bpf_htons(ETH_P_IP))
		return NOT_USUAL;
	kind = *(__u64 *)(inner + 2);
	length = bpf_ntohs(kind);
	if (*(__u8 *)inner != 0x45 || (kind & IP_KIND) != (__u64)IPPROTO_TCP << 56 ||
	    length < sizeof(struct iphdr) + sizeof(struct tcphdr) || (__u64)length > (__u64)(end - inner))
		return NOT_USUAL;
	if (*(__u8 *)ip != 0x45 ||
	    (*(__u64 *)(ip + 2) & (IP_LENGTH | IP_KIND)) !=
		    (bpf_htons(length + HL_OUTER_V4) | (__u64)IPPROTO_UDP << 56) ||
	    *(__be16 *)(udp + 2) != bpf_htons(HL_GENEVE_PORT) || !*(__be16 *)(udp + 6) ||
	    *(__be16 *)(udp + 4) != bpf_htons(length + HL_OUTER_V4 - (__u32)sizeof(struct iphdr)))
		return NOT_USUAL;
	option = *(__u64 *)(geneve + 8);
	if (*(__u32 *)geneve != GENEVE_START4 ||
	    option << 16 != (GENEVE_OPTION | (__u64)(HL_LAYOUT << 4) << 32) << 16)
		return NOT_USUAL;
	header = *(__u8 *)(tcp + 12) >> 2 & 0x3c;
	if (header - (__u32)sizeof(struct tcphdr) >
		    length - (__u32)(sizeof(struct iphdr) + sizeof(struct tcphdr)) ||
	    (*(__u8 *)(tcp + 13) & 0x12) != 0x10)
		return NOT_USUAL;
	place = (*(__be32 *)(inner + 16) * 0x9e3779b1u) >> 22;
	near = &near4[place & (HL_NEAR - 1)];
	/* Else the compiler makes the pointer anew for every word. */
	barrier_var(near);
	word = READ_ONCE(near->word);
	if ((__u32)word != *(__be32 *)(inner + 16) || !(word >> 32) ||
	    *(__be32 *)(geneve + 4) != (__be32)near->vni)
		return NOT_USUAL;
	ports = *(__u32 *)tcp;
	hash = flow_hash4(near->state, *(__be32 *)(inner + 12), ports);
	if (hash >> 32 != bpf_ntohl(*(__be32 *)(geneve + 24)) ||
	    !has_connection(ctx, *(__u64 *)(inner + 12), ports))
		return NOT_USUAL;
	note_stamper(option >> 48);
	/* The Ethernet header, which has the right type already, moves up. */
	first = *(__u64 *)data;
	second = *(__u64 *)(data + 6);
	if (bpf_xdp_adjust_head(ctx, HL_OUTER_V4))
		return NOT_USUAL;
	data = (void *)(long)ctx->data;
	if (data + sizeof(struct ethhdr) > (void *)(long)ctx->data_end)
		return count(COUNT_drop_truncated, XDP_DROP);
	*(__u64 *)data = first;
	*(__u64 *)(data + 6) = second;
	return count(COUNT_delivered, XDP_PASS);
}

/* A packet of any kind. */
static __noinline int take_any(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	const struct hl_self *us = &me;
	struct passage p = {};
	__be16 protocol;

	if (unlikely(data + sizeof(struct ethhdr) > end))
		return count(COUNT_drop_truncated, XDP_DROP);
	protocol = *(__be16 *)(data + 12);
	if (likely(protocol == bpf_htons(ETH_P_IP))) {
		struct iphdr *ip = data + sizeof(struct ethhdr);
		struct udphdr *udp = (void *)(ip + 1);

		if (unlikely((void *)(ip + 1) > end))
			return count(COUNT_drop_truncated, XDP_DROP);
		if (likely(ip->protocol == IPPROTO_UDP && ip->ihl == 5 && ip->version == 4 &&
			   !(ip->frag_off & bpf_htons(IP_MORE_OR_OFFSET)) &&
			   (void *)(udp + 1) <= end && udp->dest == bpf_htons(HL_GENEVE_PORT)))
			return take_geneve(ctx, &p, us, data, end, udp, HL_OUTER_V4,
					   bpf_ntohs(ip->tot_len) - sizeof(*ip));
		return take4(ctx, &p, data, end, 0, 0, 0);
	}
	if (protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + sizeof(struct ethhdr);
		struct udphdr *udp = (void *)(ip + 1);

		if (unlikely((void *)(ip + 1) > end))
			return count(COUNT_drop_truncated, XDP_DROP);
		if (likely(ip->nexthdr == IPPROTO_UDP && (void *)(udp + 1) <= end &&
			   udp->dest == bpf_htons(HL_GENEVE_PORT)))
			return take_geneve(ctx, &p, us, data, end, udp, HL_OUTER_V6,
					   bpf_ntohs(ip->payload_len));
		return take6(ctx, &p, data, end, 0, 0, 0);
	}
	if (protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD))
		return count(COUNT_pass_vlan, XDP_PASS);
	return count(COUNT_pass_other, XDP_PASS);
}

HL_PROGRAM
int ingress(struct xdp_md *ctx)
{
	int action = take_usual(ctx);

	return likely(action != NOT_USUAL) ? action : take_any(ctx);
}
