/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The flow hash: SipHash-1-3 over the words that ADR 0001 lists. Core's flow.rs must agree for ever.
 *
 * What is hashed begins with the destination, which is always an address of ours: so the state behind it is made once,
 * when the address is set, and lies in the address's entry. It is kept with that half of the next round done which needs
 * no data.
 */
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

/* The first word behind the destination: v0 and v1 are half a round ahead. */
static __always_inline void sip_resume(struct sip *s, const __u64 *state, __u64 word)
{
	__u64 v1 = state[1];

	s->v3 = state[3] ^ word;
	s->v2 = state[2] + s->v3;
	s->v3 = rotl(s->v3, 16) ^ s->v2;
	s->v2 += v1;
	s->v0 = state[0] + s->v3;
	s->v1 = rotl(v1, 17) ^ s->v2;
	s->v3 = rotl(s->v3, 21) ^ s->v0;
	s->v2 = rotl(s->v2, 32);
	s->v0 ^= word;
}

static __always_inline void sip_word(struct sip *s, __u64 word)
{
	s->v3 ^= word;
	sip_round(s);
	s->v0 ^= word;
}

static __always_inline __u64 sip_finish(struct sip *s)
{
	s->v2 ^= 0xff;
	sip_round(s);
	sip_round(s);
	sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* The source as it stands in the header, the ports as they stand in TCP's. */
static __always_inline __u64 flow_hash4(const __u64 *state, __u32 source, __u32 ports)
{
	struct sip s;

	sip_resume(&s, state, (__u64)ports << 32 | source);
	return sip_finish(&s);
}

/* The source, 16 bytes as they stand in the header. */
static __always_inline __u64 flow_hash6(const __u64 *state, const __u64 *source, __u32 ports)
{
	struct sip s;

	sip_resume(&s, state, source[0]);
	sip_word(&s, source[1]);
	sip_word(&s, ports);
	return sip_finish(&s);
}

#endif
