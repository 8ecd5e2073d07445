/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Whose an IPv4 address is: include behind the maps of a role. */
#ifndef HITLESS_ADDRESS_H
#define HITLESS_ADDRESS_H

/* Whose an IPv4 address is; false: not ours. */
static __always_inline bool find4(__be32 *destination, struct hl_address *address)
{
	__u32 place = (*destination * 0x9e3779b1u) >> 22;
	__u64 word = READ_ONCE(near4[place & (HL_NEAR - 1)]);
	struct hl_address *far;

	if ((__u32)word == *destination && word >> 32) {
		address->kind = word >> 32 & 3;
		address->cluster = word >> 34;
		return true;
	}
	far = bpf_map_lookup_elem(&addresses4, destination);
	if (!far)
		return false;
	*address = *far;
	return true;
}

#endif
