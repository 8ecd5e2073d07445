/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The few fields of the kernel's sockets that we read. Offsets are found when the object is loaded (CO-RE). */
#ifndef HITLESS_KERNEL_H
#define HITLESS_KERNEL_H

#include "common.h"

#include <bpf/bpf_core_read.h>

#define FAMILY_INET 2
#define FAMILY_INET6 10

/* Numbers of states that a socket look-up or an iterator shows. */
#define STATE_FIN_WAIT2 5
#define STATE_TIME_WAIT 6
#define STATE_CLOSE 7
#define STATE_LISTEN 10
#define STATE_NEW_SYN_RECV 12

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct in6_addr___kernel {
	union {
		__u32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	struct in6_addr___kernel skc_v6_daddr;
	struct in6_addr___kernel skc_v6_rcv_saddr;
	__u32 skc_tw_snd_nxt;
};

struct sock {
	struct sock_common __sk_common;
};

struct request_sock {
	struct sock_common __req_common;
};

struct inet_request_sock {
	struct request_sock req;
};

struct tcp_request_sock {
	struct inet_request_sock req;
	__u32 snt_isn;
};

struct inet_timewait_sock {
	struct sock_common __tw_common;
	unsigned char tw_substate;
};

struct tcp_timewait_sock {
	struct inet_timewait_sock tw_sk;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
} __attribute__((aligned(8)));

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
	__u32 uid;
} __attribute__((aligned(8)));

#pragma clang attribute pop

#endif
