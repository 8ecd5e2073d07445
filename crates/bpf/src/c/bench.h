/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the benchmark wraps around a program. A test run does not restore the packet between repetitions, and a
 * program that encapsulates would from the second one on see its own output: so each repetition first restores it,
 * with the next flow in it. Headers are stored in the units in which the programs load them: a load of two smaller
 * stores would stall as no packet from a driver does.
 */
#ifndef HITLESS_BENCH_H
#define HITLESS_BENCH_H

#include "common.h"
#include "geneve.h"
#include "sip.h"

/* Set by the harness before a run. */
__u32 flow_mask;		/* flows - 1, a power of two less one */
__u8 tcp_flags;
__u64 vip4_word;		/* 0 and the VIP: addresses word of an IPv4 header, without the source */
__u64 vip6_words[2];
__u64 bench_state[4];		/* the flow hash behind the VIP */
__u64 bench_word;		/* row in network order */

static __u32 flow_number;

/* All flows in turn, in an order without locality. */
static __always_inline __u32 next_flow(void)
{
	flow_number = (flow_number * 1664525 + 1013904223) & flow_mask;
	return flow_number;
}

static __always_inline __u64 addresses4_of(__u32 flow)
{
	return vip4_word | bpf_htonl(0x0a000000 | (flow & 0xffff));
}

static __always_inline __u32 ports_of(__u32 flow)
{
	return bpf_htons(1024 + (flow >> 16)) | (__u32)bpf_htons(443) << 16;
}

/* Makes the frame `wanted` bytes long by moving its head. */
static __always_inline bool resize(struct xdp_md *ctx, __u32 wanted)
{
	__u32 length = ctx->data_end - ctx->data;

	return length == wanted || !bpf_xdp_adjust_head(ctx, (int)(length - wanted));
}

#define IP_AT 14
#define FRAME4 54
#define FRAME6 74
#define FRAME_ENCAPSULATED (FRAME4 + HL_OUTER_V4)

static __always_inline void store_mac(void *frame, __be16 protocol)
{
	*(volatile __u32 *)frame = 0x02020202;
	*(volatile __u16 *)(frame + 4) = 0x0202;
	*(volatile __u32 *)(frame + 6) = 0x02020202;
	*(volatile __u16 *)(frame + 10) = 0x0402;
	*(volatile __u16 *)(frame + 12) = protocol;
}

static __always_inline void store_tcp(void *tcp, __u32 ports)
{
	*(volatile __u32 *)tcp = ports;
	*(volatile __u8 *)(tcp + 13) = tcp_flags;
}

static __always_inline bool restore4(struct xdp_md *ctx)
{
	__u32 flow = next_flow();
	void *frame;

	if (!resize(ctx, FRAME4))
		return false;
	frame = (void *)(long)ctx->data;
	if (frame + FRAME4 > (void *)(long)ctx->data_end)
		return false;
	store_mac(frame, bpf_htons(ETH_P_IP));
	*(volatile __u64 *)(frame + IP_AT + 12) = addresses4_of(flow);
	store_tcp(frame + IP_AT + 20, ports_of(flow));
	return true;
}

static __always_inline bool restore6(struct xdp_md *ctx)
{
	__u32 flow = next_flow();
	volatile __u64 *addresses;
	void *frame;

	if (!resize(ctx, FRAME6))
		return false;
	frame = (void *)(long)ctx->data;
	if (frame + FRAME6 > (void *)(long)ctx->data_end)
		return false;
	store_mac(frame, bpf_htons(ETH_P_IPV6));
	addresses = frame + IP_AT + 8;
	addresses[0] = 0xb80d0120;
	addresses[1] = flow & 0xffff;
	addresses[2] = vip6_words[0];
	addresses[3] = vip6_words[1];
	store_tcp(frame + IP_AT + 40, ports_of(flow));
	return true;
}

/*
 * An encapsulated packet, whose unchanging bytes lie before the head already. The inner packet's Ethernet header was
 * written over the option's end: from the stamper on it is made anew.
 */
static __always_inline bool restore_encapsulated(struct xdp_md *ctx)
{
	__u32 flow = next_flow();
	__u64 addresses = addresses4_of(flow);
	__u32 ports = ports_of(flow);
	void *frame, *option;
	__u64 hash;

	hash = flow_hash4(bench_state, addresses, ports);
	if (!resize(ctx, FRAME_ENCAPSULATED))
		return false;
	frame = (void *)(long)ctx->data;
	if (frame + FRAME_ENCAPSULATED > (void *)(long)ctx->data_end)
		return false;
	option = frame + IP_AT + sizeof(struct iphdr) + sizeof(struct udphdr) + 8;
	*(volatile __u64 *)option = GENEVE_OPTION | (__u64)(HL_LAYOUT << 4) << 32 | (__u64)bpf_htons(1) << 48;
	*(volatile __u64 *)(option + 8) = bench_word;
	*(volatile __u32 *)(option + 16) = bpf_htonl(hash >> 32);
	*(volatile __u64 *)(frame + IP_AT + HL_OUTER_V4 + 12) = addresses;
	store_tcp(frame + IP_AT + HL_OUTER_V4 + 20, ports);
	return true;
}

/* Does nothing, in as long as a function that gets the context takes. */
static __noinline int nothing(struct xdp_md *ctx)
{
	return ctx->data == ctx->data_end ? XDP_DROP : XDP_TX;
}

/* Moves the head as an encapsulation does: its price twice, here and when the packet is restored. */
static __noinline int move_head(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, -HL_OUTER_V4) ? XDP_DROP : XDP_TX;
}

static __noinline int cut_head(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, HL_OUTER_V4) ? XDP_DROP : XDP_TX;
}

#define BENCH(name, restore, program)			\
	SEC("xdp") int name(struct xdp_md *ctx)		\
	{						\
		return restore(ctx) ? program(ctx) : XDP_ABORTED;	\
	}

#endif
