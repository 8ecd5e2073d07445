// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#include "maps_director.h"

SEC("xdp")
int director(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int guest_port(struct xdp_md *ctx)
{
	return XDP_PASS;
}
