/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/ipt_nets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"

/* ---- addresses: big-endian numbers of 16 bytes; bit 0 is the lowest ---- */

static bool bit_is_set(const uint8_t ip[16], unsigned bit)
{
	return ip[15 - bit / 8] >> bit % 8 & 1;
}

static void set_bit(uint8_t ip[16], unsigned bit)
{
	ip[15 - bit / 8] |= (uint8_t)(1U << bit % 8);
}

/* Zero behind the first `bits` bits. */
static void mask_to(uint8_t ip[16], unsigned bits)
{
	for (unsigned bit = 0; bit < 128 - bits; bit++)
		ip[15 - bit / 8] &= (uint8_t) ~(1U << bit % 8);
}

/* False when there is no next one. */
static bool increment(uint8_t ip[16])
{
	for (int i = 15; i >= 0; i--) {
		if (++ip[i] != 0)
			return true;
	}
	return false;
}

/* How many of the first bits two addresses share. */
static unsigned common_bits(const uint8_t a[16], const uint8_t b[16])
{
	unsigned n = 0;

	while (n < 128 && bit_is_set(a, 127 - n) == bit_is_set(b, 127 - n))
		n++;
	return n;
}

/* ---- ranges to networks ---- */

struct list {
	struct cidr *v;
	size_t n, room;
};

static int push(struct list *list, const struct cidr *net)
{
	if (list->n == list->room) {
		size_t room = list->room ? list->room * 2 : 32;
		struct cidr *v = reallocarray(list->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		list->v = v;
		list->room = room;
	}
	list->v[list->n++] = *net;
	return 0;
}

/* The largest network that begins at `from` and ends at `to` or before; *ret_last is its end. */
static struct cidr largest(const uint8_t from[16], const uint8_t to[16], uint8_t ret_last[16])
{
	struct cidr net = {.bits = 128};

	memcpy(net.ip, from, 16);
	memcpy(ret_last, from, 16);
	while (net.bits > 0) {
		uint8_t last[16];

		memcpy(last, ret_last, 16);
		set_bit(last, 128U - net.bits);
		if (bit_is_set(from, 128U - net.bits) || memcmp(last, to, 16) > 0)
			break;
		memcpy(ret_last, last, 16);
		net.bits--;
	}
	return net;
}

static int push_range(struct list *list, const struct plan_range *range)
{
	uint8_t from[16], last[16];

	memcpy(from, range->from, 16);
	for (;;) {
		struct cidr net = largest(from, range->to, last);
		int r = push(list, &net);

		if (r < 0)
			return r;
		memcpy(from, last, 16);
		if (memcmp(last, range->to, 16) >= 0 || !increment(from))
			return 0;
	}
}

/* Is there one address between the two? *ret_hole is it. */
static bool has_hole(const struct plan_range *low, const struct plan_range *high,
		     struct cidr *ret_hole)
{
	struct cidr hole = {.bits = 128};
	uint8_t next[16];

	memcpy(hole.ip, low->to, 16);
	if (!increment(hole.ip))
		return false;
	memcpy(next, hole.ip, 16);
	if (!increment(next) || memcmp(next, high->from, 16) != 0)
		return false;
	*ret_hole = hole;
	return true;
}

static size_t count_holes(const struct plan_range *ranges, size_t n)
{
	struct cidr ignored;
	size_t holes = 0;

	for (size_t i = 1; i < n; i++)
		holes += has_hole(&ranges[i - 1], &ranges[i], &ignored);
	return holes;
}

int ipt_nets_make(const struct plan_range *ranges, size_t n, struct ipt_nets *ret)
{
	bool few = count_holes(ranges, n) <= IPT_HOLES_MAX;
	struct ipt_nets nets = {0};
	struct list list = {0};
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		struct plan_range range = ranges[i];

		while (few && i + 1 < n &&
		       has_hole(&range, &ranges[i + 1], &nets.holes[nets.n_holes])) {
			nets.n_holes++;
			memcpy(range.to, ranges[++i].to, 16);
		}
		r = push_range(&list, &range);
	}
	if (r < 0) {
		free(list.v);
		return r;
	}
	nets.v = list.v;
	nets.n = list.n;
	*ret = nets;
	return 0;
}

void ipt_nets_done(struct ipt_nets *nets)
{
	free(nets->v);
	*nets = (struct ipt_nets){0};
}

/* ---- groups ---- */

struct groups {
	const struct ipt_nets *nets;
	size_t max;
	struct ipt_group *v; /* room for one per network */
	size_t n;
};

static struct cidr cover(const struct cidr *first, const struct cidr *last)
{
	struct cidr net = *first;
	unsigned bits = common_bits(first->ip, last->ip);

	if (bits < net.bits)
		net.bits = (uint8_t)bits;
	mask_to(net.ip, net.bits);
	return net;
}

/* Too many are cut in two at the first bit in which they differ: both halves have a network of
 * their own then. As deep as an address has bits.
 */
static void cut(struct groups *g, size_t first, size_t n)
{
	const struct cidr *v = g->nets->v + first;
	struct cidr all = cover(&v[0], &v[n - 1]);
	size_t half = 0;

	if (n <= g->max) {
		g->v[g->n++] = (struct ipt_group){all, first, n};
		return;
	}
	while (!bit_is_set(v[half].ip, 127U - all.bits))
		half++;
	cut(g, first, half);
	cut(g, first + half, n - half);
}

int ipt_nets_group(const struct ipt_nets *nets, size_t max, struct ipt_group **ret)
{
	struct groups g = {.nets = nets, .max = max};

	g.v = calloc(nets->n, sizeof(*g.v));
	if (!g.v)
		return -ENOMEM;
	cut(&g, 0, nets->n);
	*ret = g.v;
	return (int)g.n;
}
