/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/pod_links.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>

bool pod_links_has_addr(const struct pod_links *links, const struct addr *a)
{
	for (size_t i = 0; i < links->n_addrs; i++) {
		if (addr_ip_equal(&links->addrs[i], a))
			return true;
	}
	return false;
}

static const struct host_link *find_link(const struct pod_links *links, const struct host_link *l)
{
	for (size_t i = 0; i < links->n_links; i++) {
		const struct host_link *k = &links->links[i];

		if (k->ifindex == l->ifindex &&
		    (k->ifindex != 0 ||
		     (strcmp(k->name, l->name) == 0 && strcmp(k->kind, l->kind) == 0)))
			return k;
	}
	return NULL;
}

bool pod_links_has_link(const struct pod_links *links, const struct host_link *l)
{
	return find_link(links, l) != NULL;
}

static bool is_open(const struct host_link *l, uint64_t now_ms)
{
	return l->open_until_ms > now_ms;
}

bool pod_links_are_open(const struct pod_links *links, uint64_t now_ms)
{
	for (size_t i = 0; i < links->n_links; i++) {
		if (is_open(&links->links[i], now_ms))
			return true;
	}
	return false;
}

bool pod_links_are_more(const struct pod_links *links, const struct pod_links *before)
{
	for (size_t i = 0; i < links->n_links; i++) {
		const struct host_link *k = find_link(before, &links->links[i]);

		if (!k || memcmp(k->mac, links->links[i].mac, sizeof(k->mac)) != 0)
			return true;
	}
	for (size_t i = 0; i < links->n_addrs; i++) {
		if (!pod_links_has_addr(before, &links->addrs[i]))
			return true;
	}
	return false;
}

static bool is_there(const struct pod_links *seen, const struct host_link *l)
{
	char name[IF_NAMESIZE];

	return l->ifindex ? if_indextoname(l->ifindex, name) != NULL : pod_links_has_link(seen, l);
}

static void keep_link(const struct host_link *known, const struct pod_links *seen, uint64_t now_ms,
		      struct host_link *ret)
{
	const struct host_link *now = find_link(seen, known);

	*ret = *known;
	if (now && is_open(known, now_ms))
		memcpy(ret->mac, now->mac, sizeof(ret->mac));
}

/* The known links that are there, then the others that were seen. */
static int join_links(const struct pod_links *known, const struct pod_links *seen, uint64_t now_ms,
		      struct pod_links *ret)
{
	for (size_t i = 0; i < known->n_links; i++) {
		if (is_there(seen, &known->links[i]))
			keep_link(&known->links[i], seen, now_ms, &ret->links[ret->n_links++]);
	}
	for (size_t i = 0; i < seen->n_links; i++) {
		struct host_link *l = &ret->links[ret->n_links];

		if (pod_links_has_link(known, &seen->links[i]))
			continue;
		if (ret->n_links == HOST_LINK_MAX_LINKS)
			return -E2BIG;
		*l = seen->links[i];
		if (known->n_links > 0 && l->ifindex != 0)
			l->open_until_ms = now_ms + POD_LINK_OPEN_MS;
		ret->n_links++;
	}
	return 0;
}

static bool lost_link(const struct pod_links *known, const struct pod_links *now)
{
	for (size_t i = 0; i < known->n_links; i++) {
		if (!pod_links_has_link(now, &known->links[i]))
			return true;
	}
	return false;
}

static int add_addr(struct pod_links *ret, const struct addr *a)
{
	if (pod_links_has_addr(ret, a))
		return 0;
	if (ret->n_addrs == HOST_LINK_MAX_ADDRS)
		return -E2BIG;
	ret->addrs[ret->n_addrs++] = *a;
	return 0;
}

static struct host_link *get_link(struct pod_links *links, const struct host_link *l)
{
	const struct host_link *found = find_link(links, l);

	return found ? &links->links[found - links->links] : NULL;
}

/* Every link has a link-local address by itself. */
static void has_addr(struct host_link *l, const struct addr *a, uint64_t now_ms)
{
	if (!addr_is_link_local(a) && l->open_until_ms > now_ms + POD_LINK_DONE_MS)
		l->open_until_ms = now_ms + POD_LINK_DONE_MS;
}

/* `ret` has its links already. */
static int join_addrs(const struct pod_links *known, const struct pod_links *seen,
		      const size_t on[], uint64_t now_ms, struct pod_links *ret)
{
	bool first = known->n_links == 0, lost = lost_link(known, ret);
	int r = 0;

	for (size_t i = 0; i < known->n_addrs && r == 0; i++) {
		if (!lost || pod_links_has_addr(seen, &known->addrs[i]))
			r = add_addr(ret, &known->addrs[i]);
	}
	for (size_t i = 0; i < seen->n_addrs && r == 0; i++) {
		struct host_link *l = get_link(ret, &seen->links[on[i]]);

		if (!l || (!first && !is_open(l, now_ms)))
			continue;
		r = add_addr(ret, &seen->addrs[i]);
		has_addr(l, &seen->addrs[i], now_ms);
	}
	return r;
}

int pod_links_join(const struct pod_links *known, const struct pod_links *seen, const size_t on[],
		   uint64_t now_ms, struct pod_links *ret)
{
	int r;

	*ret = (struct pod_links){0};
	r = join_links(known, seen, now_ms, ret);
	return r < 0 ? r : join_addrs(known, seen, on, now_ms, ret);
}
