// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The director and a floor under the benchmark's wrapper. */
#define HL_PROGRAM __noinline
#include "director.bpf.c"

#include "bench.h"

/* As many words as a virtual cluster has buckets. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HL_BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} floor_words SEC(".maps");

static __always_inline __u32 rol32(__u32 x, int bits)
{
	return (x << bits) | (x >> (32 - bits));
}

/* Jenkins' hash of three words, the cheapest of its kind that the kernel uses. */
static __always_inline __u32 jhash3(__u32 a, __u32 b, __u32 c)
{
	a += 0xdeadbeef;
	b += 0xdeadbeef;
	c += 0xdeadbeef;
	c ^= b;
	c -= rol32(b, 14);
	a ^= c;
	a -= rol32(c, 11);
	b ^= a;
	b -= rol32(a, 25);
	c ^= b;
	c -= rol32(b, 16);
	a ^= c;
	a -= rol32(c, 4);
	b ^= a;
	b -= rol32(a, 14);
	c ^= b;
	c -= rol32(b, 24);
	return c;
}

/* The least that any director does: parse, hash, look an array up, transmit to where the packet came from. */
static __noinline int least(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	__u32 bucket, high;
	__u16 low;
	__u64 *row;

	if (data + FRAME4 > end || *(__be16 *)(data + 12) != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_TCP ||
	    ip->ihl != 5)
		return XDP_PASS;
	bucket = jhash3(ip->saddr, ip->daddr, *(__u32 *)(ip + 1)) & 0xffff;
	row = bpf_map_lookup_elem(&floor_words, &bucket);
	if (!row || *row)
		return XDP_DROP;
	high = *(__u32 *)data;
	low = *(__u16 *)(data + 4);
	*(__u32 *)data = *(__u32 *)(data + 6);
	*(__u16 *)(data + 4) = *(__u16 *)(data + 10);
	*(__u32 *)(data + 6) = high;
	*(__u16 *)(data + 10) = low;
	return XDP_TX;
}

BENCH(bench_nothing, restore4, nothing)
BENCH(bench_move_head, restore4, move_head)
BENCH(bench_least, restore4, least)
BENCH(bench_director4, restore4, director)
BENCH(bench_nothing6, restore6, nothing)
BENCH(bench_director6, restore6, director)
