/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Counts what the kernel holds, by bucket: the reader is in the guest's namespace, so only its sockets are seen. */
#ifndef HITLESS_LIVE_H
#define HITLESS_LIVE_H

#include "kernel.h"
#include "maps_ingress.h"
#include "sip.h"

/* Half-open and established to LAST_ACK, orphans too; an orphan in FIN_WAIT2 is kept as a small TIME_WAIT entry. */
static __always_inline bool is_live(struct sock_common *sk)
{
	struct tcp_timewait_sock *tw;

	switch (sk->skc_state) {
	case STATE_LISTEN:
	case STATE_CLOSE:
		return false;
	case STATE_TIME_WAIT:
		tw = bpf_skc_to_tcp_timewait_sock(sk);
		return tw && tw->tw_sk.tw_substate == STATE_FIN_WAIT2;
	default:
		return true;
	}
}

SEC("iter/tcp")
int count_live(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	struct hl_address *address = 0;
	struct hl_in6 local, peer;
	__u32 key, ports, bucket;
	__u64 source6[2] = {};
	__u32 source4 = 0;
	bool is_v4 = false;
	__u64 hash;

	if (!sk || !is_live(sk))
		return 0;
	/* A flow as its client sends it: from the socket's peer to the socket. */
	ports = (__u32)sk->skc_dport | (__u32)bpf_htons(sk->skc_num) << 16;
	if (sk->skc_family == FAMILY_INET6) {
		BPF_CORE_READ_INTO(&local.word, sk, skc_v6_rcv_saddr.in6_u.u6_addr32);
		BPF_CORE_READ_INTO(&peer.word, sk, skc_v6_daddr.in6_u.u6_addr32);
		/* A listener for both families holds IPv4 connections as mapped addresses. */
		is_v4 = !local.word[0] && !local.word[1] && local.word[2] == bpf_htonl(0xffff);
		if (is_v4) {
			key = local.word[3];
			source4 = peer.word[3];
		} else {
			__builtin_memcpy(source6, &peer, 16);
			address = bpf_map_lookup_elem(&addresses6, &local);
		}
	} else if (sk->skc_family == FAMILY_INET) {
		is_v4 = true;
		/* Not by plain loads: the compiler would merge them with reads of other pointers. */
		key = BPF_CORE_READ(sk, skc_rcv_saddr);
		source4 = BPF_CORE_READ(sk, skc_daddr);
	}
	if (is_v4)
		address = bpf_map_lookup_elem(&addresses4, &key);
	if (!address)
		return 0;
	if (address->kind == HL_EGRESS) {
		bucket = (sk->skc_num & 0x3ff) << 6;
	} else {
		if (is_v4)
			hash = flow_hash4(address->state, source4, ports);
		else
			hash = flow_hash6(address->state, source6, ports);
		bucket = hash & 0xffff;
	}
	live[bucket & (HL_BUCKETS - 1)]++;
	return 0;
}

#endif
