/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The flow hash: SipHash-1-3 over the bytes that ADR 0001 lists. Core's flow.rs must agree for ever. */
#ifndef HITLESS_SIP_H
#define HITLESS_SIP_H

#include "common.h"

struct sip {
	__u64 v0, v1, v2, v3;
};

static __always_inline __u64 rotl(__u64 x, int bits)
{
	return (x << bits) | (x >> (64 - bits));
}

static __always_inline void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v2 += s->v3;
	s->v1 = rotl(s->v1, 13) ^ s->v0;
	s->v3 = rotl(s->v3, 16) ^ s->v2;
	s->v0 = rotl(s->v0, 32);
	s->v2 += s->v1;
	s->v0 += s->v3;
	s->v1 = rotl(s->v1, 17) ^ s->v2;
	s->v3 = rotl(s->v3, 21) ^ s->v0;
	s->v2 = rotl(s->v2, 32);
}

static __always_inline void sip_init(struct sip *s, const __u64 *key)
{
	s->v0 = key[0] ^ 0x736f6d6570736575ULL;
	s->v1 = key[1] ^ 0x646f72616e646f6dULL;
	s->v2 = key[0] ^ 0x6c7967656e657261ULL;
	s->v3 = key[1] ^ 0x7465646279746573ULL;
}

static __always_inline void sip_word(struct sip *s, __u64 word)
{
	s->v3 ^= word;
	sip_round(s);
	s->v0 ^= word;
}

static __always_inline __u64 sip_finish(struct sip *s, __u64 length)
{
	sip_word(s, length << 56);
	s->v2 ^= 0xff;
	sip_round(s);
	sip_round(s);
	sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* Source and destination, 8 bytes as they stand in the header; ports as they stand in TCP's. */
static __always_inline __u64 flow_hash4(const __u64 *key, __u64 addresses, __u32 ports, __u8 protocol)
{
	struct sip s;

	sip_init(&s, key);
	sip_word(&s, addresses);
	sip_word(&s, (__u64)ports | (__u64)protocol << 32 | 4ULL << 40);
	return sip_finish(&s, 16);
}

/* Source and destination, 32 bytes as they stand in the header. */
static __always_inline __u64 flow_hash6(const __u64 *key, const __u64 *addresses, __u32 ports,
					__u8 protocol)
{
	struct sip s;

	sip_init(&s, key);
	sip_word(&s, addresses[0]);
	sip_word(&s, addresses[1]);
	sip_word(&s, addresses[2]);
	sip_word(&s, addresses[3]);
	sip_word(&s, (__u64)ports | (__u64)protocol << 32 | 6ULL << 40);
	return sip_finish(&s, 40);
}

#endif
