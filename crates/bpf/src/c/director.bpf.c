// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The director: a client's packet to one of our addresses goes, encapsulated, to the first guest of its bucket's row
 * that this node does not believe dead. No state per flow. docs/verdicts.md lists what happens to every packet.
 */
#include "maps_director.h"

#include "address.h"
#include "geneve.h"
#include "parse.h"
#include "row.h"
#include "sip.h"

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
	case PARSED_ICMP:
		return count(COUNT_pass_icmp, XDP_PASS);
	case PARSED_ICMP_ERROR:
		return count(COUNT_drop_icmp_error, XDP_DROP);
	case PARSED_TRUNCATED:
		return count(COUNT_drop_truncated, XDP_DROP);
	case PARSED_EXTENSION:
		return count(COUNT_drop_extension, XDP_DROP);
	case PARSED_FRAGMENT:
		return count(COUNT_drop_fragment, XDP_DROP);
	case PARSED_PROTOCOL:
		return count(COUNT_drop_protocol, XDP_DROP);
	default:
		return count(COUNT_drop_malformed, XDP_DROP);
	}
}

static __always_inline int direct(struct xdp_md *ctx, const struct whose *whose,
				  const struct client *client, __u64 hash)
{
	struct hl_cluster *cluster = &clusters[whose->cluster & (HL_VIRTUAL_CLUSTERS - 1)];
	__u32 bucket = hash & 0xffff;
	__u32 index = whose->cluster, head, hop_index;
	struct hl_rows *table;
	struct stamp stamp;
	struct hl_hop *hop;
	__u64 guest_word;
	__u32 ifindex;

	if (unlikely(whose->kind == HL_EGRESS))
		bucket = (bpf_ntohs(client->ports >> 16) & 0x3ff) << 6;
	table = bpf_map_lookup_elem(&rows, &index);
	if (unlikely(!table))
		return count(COUNT_drop_no_row, XDP_DROP);
	stamp.word = READ_ONCE(table->word[bucket & (HL_BUCKETS - 1)]);
	/*
	 * Room for the usual outer header, before it is known: the row is seldom in the first cache, and this does not
	 * need it.
	 */
	if (bpf_xdp_adjust_head(ctx, -HL_OUTER_V4))
		return count(COUNT_drop_no_headroom, XDP_DROP);
	if (unlikely(READ_ONCE(cluster->dead_marks))) {
		__u64 ordered = dead_last(stamp.word, cluster->dead, 0);

		if (ordered != stamp.word)
			count(COUNT_also_dead_last, 0);
		stamp.word = ordered;
	}
	head = slot_at(stamp.word, 0);
	if (unlikely(!head))
		return count(COUNT_drop_no_row, XDP_DROP);
	index = whose->cluster << 12 | head;
	guest_word = READ_ONCE(guests[index & (HL_VIRTUAL_CLUSTERS * HL_SLOTS - 1)]);
	hop_index = guest_word & HL_GUEST_HOP_MASK;
	if (unlikely(!hop_index))
		return count(COUNT_drop_no_guest, XDP_DROP);
	hop = &hops[hop_index & (HL_HOPS - 1)];

	stamp.vni = cluster->vni;
	stamp.tag = hash >> 32;
	stamp.stamper = cluster->director;
	stamp.flags = 0;
	switch (encapsulate(ctx, hop, client, &stamp, source_port_of(hash), HL_OUTER_V4)) {
	case TOO_BIG:
		return count(COUNT_drop_too_big, XDP_DROP);
	case NO_HEADROOM:
		return count(COUNT_drop_no_headroom, XDP_DROP);
	default:
		break;
	}
	if (unlikely(guest_word & HL_GUEST_WATCHED)) {
		__u64 *time = bpf_map_lookup_elem(&last_sent, &index);

		if (time)
			WRITE_ONCE(*time, bpf_ktime_get_boot_ns());
	}
	ifindex = hop->ifindex;
	count(COUNT_directed, 0);
	if (!ifindex || ifindex == ctx->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect(ifindex, 0);
}

/* Geneve that is not for one of our addresses: it goes to a guest, by way of this node's stack. */
static __always_inline int admit_geneve(struct hl_in6 *source)
{
	__u32 *place = bpf_map_lookup_elem(&members, source);

	if (!place || *place != HL_MEMBER_ELSEWHERE)
		return count(COUNT_drop_geneve_outsider, XDP_DROP);
	return count(COUNT_pass_geneve, XDP_PASS);
}

static __always_inline int pass_others4(struct iphdr *ip, void *end)
{
	struct udphdr *udp = (void *)ip + ip->ihl * 4;
	struct hl_in6 source = { { 0, 0, bpf_htonl(0xffff), ip->saddr } };

	/* A later fragment has no ports; without its first, which has, it comes to nothing. */
	if (ip->protocol == IPPROTO_UDP && !(ip->frag_off & bpf_htons(0x1fff)) &&
	    (void *)(udp + 1) <= end && udp->dest == bpf_htons(HL_GENEVE_PORT))
		return admit_geneve(&source);
	return count(COUNT_pass_not_ours, XDP_PASS);
}

static __always_inline int pass_others6(struct ipv6hdr *ip, void *end)
{
	struct udphdr *udp = (void *)(ip + 1);
	struct hl_in6 source;

	/* Behind extension headers no ingress takes it. */
	if (ip->nexthdr == IPPROTO_UDP && (void *)(udp + 1) <= end &&
	    udp->dest == bpf_htons(HL_GENEVE_PORT)) {
		__builtin_memcpy(&source, &ip->saddr, 16);
		return admit_geneve(&source);
	}
	return count(COUNT_pass_not_ours, XDP_PASS);
}

static __always_inline int director4(struct xdp_md *ctx, void *data, void *end)
{
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct client client;
	enum parsed parsed;
	struct whose whose;
	__u64 hash;

	if (unlikely((void *)(ip + 1) > end))
		return count(COUNT_drop_truncated, XDP_DROP);
	if (!find4(&ip->daddr, &whose))
		return pass_others4(ip, end);
	parsed = parse4(ip, end, &client);
	if (unlikely(parsed != PARSED_TCP))
		return refuse(parsed);
	hash = flow_hash4(whose.state, client.addresses[0], client.ports);
	return direct(ctx, &whose, &client, hash);
}

static __always_inline int director6(struct xdp_md *ctx, void *data, void *end)
{
	struct ipv6hdr *ip = data + sizeof(struct ethhdr);
	struct client client;
	enum parsed parsed;
	struct whose whose;
	__u64 hash;

	if (unlikely((void *)(ip + 1) > end))
		return count(COUNT_drop_truncated, XDP_DROP);
	if (!find6(&ip->daddr, &whose))
		return pass_others6(ip, end);
	parsed = parse6(ctx, ip, end, sizeof(struct ethhdr), &client);
	if (unlikely(parsed != PARSED_TCP))
		return refuse(parsed);
	hash = flow_hash6(whose.state, client.addresses, client.ports);
	return direct(ctx, &whose, &client, hash);
}

HL_PROGRAM
int director(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__be16 protocol;

	if (unlikely(data + sizeof(struct ethhdr) > end))
		return count(COUNT_drop_truncated, XDP_DROP);
	/* Not by struct ethhdr, which is packed and so read byte by byte. */
	protocol = *(__be16 *)(data + 12);
	if (likely(protocol == bpf_htons(ETH_P_IP)))
		return director4(ctx, data, end);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return director6(ctx, data, end);
	if (protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD))
		return count(COUNT_pass_vlan, XDP_PASS);
	return count(COUNT_pass_other, XDP_PASS);
}

static __always_inline int count_port(__u32 which, int action)
{
	__u64 *counter = bpf_map_lookup_elem(&port_counters, &which);

	if (counter)
		(*counter)++;
	return action;
}

/* What a guest may send as Geneve: on to a member, from its own address, for its own virtual cluster. */
static __always_inline int admit_forwarded(struct xdp_md *ctx, struct hl_in6 *source,
					   struct hl_in6 *destination, struct udphdr *udp, void *end)
{
	struct geneve *geneve = (void *)(udp + 1);
	__u32 ifindex = ctx->ingress_ifindex;
	struct hl_port *port = bpf_map_lookup_elem(&ports, &ifindex);

	if (!port)
		return count_port(PORT_COUNT_drop_unknown_port, XDP_DROP);
	if (source->word[0] != port->address.word[0] || source->word[1] != port->address.word[1] ||
	    source->word[2] != port->address.word[2] || source->word[3] != port->address.word[3])
		return count_port(PORT_COUNT_drop_source, XDP_DROP);
	if (!bpf_map_lookup_elem(&members, destination))
		return count_port(PORT_COUNT_drop_destination, XDP_DROP);
	if ((void *)(geneve + 1) > end)
		return count_port(PORT_COUNT_drop_truncated, XDP_DROP);
	if (geneve->version_options != GENEVE_OPTION_WORDS || geneve->flags & GENEVE_CONTROL ||
	    geneve->option_class != bpf_htons(HL_OPTION_CLASS) ||
	    geneve->option_type != HL_OPTION_TYPE || !udp->check)
		return count_port(PORT_COUNT_drop_geneve, XDP_DROP);
	if (bpf_ntohl(geneve->vni_reserved) >> 8 != port->number)
		return count_port(PORT_COUNT_drop_cluster, XDP_DROP);
	return count_port(PORT_COUNT_pass_forwarded, XDP_PASS);
}

/* The node's side of a guest's interface: passes all but Geneve that is not re-forwarding. */
HL_PROGRAM
int guest_port(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct hl_in6 source = {}, destination = {};
	struct ethhdr *eth = data;
	struct udphdr *udp;

	if ((void *)(eth + 1) > end)
		return count_port(PORT_COUNT_drop_truncated, XDP_DROP);
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end)
			return count_port(PORT_COUNT_drop_truncated, XDP_DROP);
		udp = (void *)ip + ip->ihl * 4;
		if (ip->protocol != IPPROTO_UDP || ip->frag_off & bpf_htons(0x1fff))
			return count_port(PORT_COUNT_pass_other, XDP_PASS);
		if ((void *)(udp + 1) > end)
			return count_port(PORT_COUNT_drop_truncated, XDP_DROP);
		if (udp->dest != bpf_htons(HL_GENEVE_PORT))
			return count_port(PORT_COUNT_pass_other, XDP_PASS);
		if (ip->ihl != 5 || ip->frag_off & bpf_htons(IP_MORE_OR_OFFSET))
			return count_port(PORT_COUNT_drop_geneve, XDP_DROP);
		source.word[2] = destination.word[2] = bpf_htonl(0xffff);
		source.word[3] = ip->saddr;
		destination.word[3] = ip->daddr;
		return admit_forwarded(ctx, &source, &destination, udp, end);
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end)
			return count_port(PORT_COUNT_drop_truncated, XDP_DROP);
		if (ip->nexthdr != IPPROTO_UDP)
			return count_port(PORT_COUNT_pass_other, XDP_PASS);
		udp = (void *)(ip + 1);
		if ((void *)(udp + 1) > end)
			return count_port(PORT_COUNT_drop_truncated, XDP_DROP);
		if (udp->dest != bpf_htons(HL_GENEVE_PORT))
			return count_port(PORT_COUNT_pass_other, XDP_PASS);
		__builtin_memcpy(&source, &ip->saddr, 16);
		__builtin_memcpy(&destination, &ip->daddr, 16);
		return admit_forwarded(ctx, &source, &destination, udp, end);
	}
	if (eth->h_proto == bpf_htons(ETH_P_8021Q) || eth->h_proto == bpf_htons(ETH_P_8021AD))
		return count_port(PORT_COUNT_pass_vlan, XDP_PASS);
	return count_port(PORT_COUNT_pass_other, XDP_PASS);
}
