// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#include "maps_ingress.h"

SEC("xdp")
int ingress(struct xdp_md *ctx)
{
	return XDP_PASS;
}

struct bpf_iter__tcp;

SEC("iter/tcp")
int count_live(struct bpf_iter__tcp *ctx)
{
	return 0;
}
