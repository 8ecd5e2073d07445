// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The ingress without its look-up, under the benchmark's wrapper; and the two that the end-to-end figure is beside. */
#define HL_PROGRAM __noinline
#define HL_BENCH_WITHOUT_LOOK_UP
#include "ingress.bpf.c"

#include "bench.h"

BENCH(bench_nothing, restore_encapsulated, nothing)
BENCH(bench_cut_head, restore_encapsulated, cut_head)
BENCH(bench_ingress, restore_encapsulated, ingress)

/* All of the ingress but the look-up, on an interface. */
SEC("xdp") int bench_without_look_up(struct xdp_md *ctx)
{
	return ingress(ctx);
}

/* The least that takes an encapsulation off: no tag, no row, no check of what it says. */
SEC("xdp") int bench_decapsulate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > end || *(__be16 *)(data + 12) != bpf_htons(ETH_P_IP) ||
	    ip->protocol != IPPROTO_UDP || udp->dest != bpf_htons(HL_GENEVE_PORT))
		return XDP_PASS;
	return strip(ctx, HL_OUTER_V4, false, COUNT_delivered);
}
