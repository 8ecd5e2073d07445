// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A veth loses what its peer transmits by XDP_TX unless it has a program itself: this one passes everything. */
#include "common.h"

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}
