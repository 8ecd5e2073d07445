/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What every program includes: kernel types, helpers, byte order, the ABI. */
#ifndef HITLESS_COMMON_H
#define HITLESS_COMMON_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

/* The tables' words are read once each: a second read could see a newer one. */
#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))

/* Programs by default; the benchmark includes their sources and calls them as functions. */
#ifndef HL_PROGRAM
#define HL_PROGRAM SEC("xdp")
#endif

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#endif
