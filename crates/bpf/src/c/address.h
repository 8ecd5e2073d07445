/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Whose an address is: include behind the maps of a role. */
#ifndef HITLESS_ADDRESS_H
#define HITLESS_ADDRESS_H

/* An address of ours. The state lies in the tables. */
struct whose {
	__u32 cluster;
	__u32 kind;
	const __u64 *state;
};

/* Whose an IPv4 address is; false: not ours. */
static __always_inline bool find4(const __be32 *destination, struct whose *whose)
{
	__u32 place = (*destination * 0x9e3779b1u) >> 22;
	struct hl_near *near = &near4[place & (HL_NEAR - 1)];
	__u64 word = READ_ONCE(near->word);
	struct hl_address *far;

	if (likely((__u32)word == *destination && word >> 32)) {
		whose->kind = word >> 32 & 3;
		whose->cluster = word >> 34;
		whose->state = near->state;
		return true;
	}
	far = bpf_map_lookup_elem(&addresses4, destination);
	if (!far)
		return false;
	whose->kind = far->kind;
	whose->cluster = far->cluster;
	whose->state = far->state;
	return true;
}

static __always_inline bool find6(const struct in6_addr *destination, struct whose *whose)
{
	struct hl_address *far = bpf_map_lookup_elem(&addresses6, destination);

	if (!far)
		return false;
	whose->kind = far->kind;
	whose->cluster = far->cluster;
	whose->state = far->state;
	return true;
}

#endif
