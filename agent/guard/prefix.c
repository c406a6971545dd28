/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/prefix.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "redirect/plan.h"

/* The last address of the prefix of `bits` that starts at `ip`. */
static void last_of(const uint8_t ip[16], unsigned bits, uint8_t ret[16])
{
	memcpy(ret, ip, 16);
	for (unsigned i = bits; i < 128; i++)
		ret[i / 8] |= (uint8_t)(0x80 >> i % 8);
}

static bool bit(const uint8_t ip[16], unsigned i)
{
	return ip[i / 8] & 0x80 >> i % 8;
}

/* The largest prefix that starts at `ip` and does not go beyond `to`; at least the address itself.
 */
static unsigned largest(const uint8_t ip[16], const uint8_t to[16])
{
	uint8_t last[16];
	unsigned bits = 128;

	while (bits > 0 && !bit(ip, bits - 1)) {
		last_of(ip, bits - 1, last);
		if (memcmp(last, to, 16) > 0)
			break;
		bits--;
	}
	return bits;
}

static void increment(uint8_t ip[16])
{
	for (int i = 15; i >= 0; i--) {
		if (++ip[i] != 0)
			return;
	}
}

size_t prefix_split(const uint8_t from[16], const uint8_t to[16], struct cidr ret[PREFIX_MAX])
{
	uint8_t at[16], last[16];
	size_t n = 0;

	assert(memcmp(from, to, 16) <= 0);
	memcpy(at, from, 16);
	for (;;) {
		unsigned bits = largest(at, to);

		assert(n < PREFIX_MAX);
		memcpy(ret[n].ip, at, 16);
		ret[n++].bits = (uint8_t)bits;
		last_of(at, bits, last);
		if (memcmp(last, to, 16) == 0)
			return n;
		memcpy(at, last, 16);
		increment(at);
	}
}

int prefix_list(const struct plan_range *ranges, size_t n, struct cidr **ret, size_t *ret_n)
{
	OWNED_MEM struct cidr *v = NULL;
	size_t used = 0, room = 0;

	for (size_t i = 0; i < n; i++) {
		struct cidr part[PREFIX_MAX];
		size_t k = prefix_split(ranges[i].from, ranges[i].to, part);

		if (used + k > room) {
			struct cidr *more = realloc(v, (2 * room + k) * sizeof(*v));

			if (!more)
				return -ENOMEM;
			v = more;
			room = 2 * room + k;
		}
		memcpy(v + used, part, k * sizeof(*v));
		used += k;
	}
	*ret = TAKE_PTR(v);
	*ret_n = used;
	return 0;
}
