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

bool pod_links_has_link(const struct pod_links *links, const struct host_link *l)
{
	for (size_t i = 0; i < links->n_links; i++) {
		const struct host_link *k = &links->links[i];

		if (k->ifindex == l->ifindex &&
		    (k->ifindex != 0 ||
		     (strcmp(k->name, l->name) == 0 && strcmp(k->kind, l->kind) == 0)))
			return true;
	}
	return false;
}

static bool is_there(const struct pod_links *seen, const struct host_link *l)
{
	char name[IF_NAMESIZE];

	return l->ifindex ? if_indextoname(l->ifindex, name) != NULL : pod_links_has_link(seen, l);
}

/* The known links that are there, then the others that were seen. */
static int join_links(const struct pod_links *known, const struct pod_links *seen,
		      struct pod_links *ret)
{
	int news = 0;

	for (size_t i = 0; i < known->n_links; i++) {
		if (is_there(seen, &known->links[i]))
			ret->links[ret->n_links++] = known->links[i];
	}
	for (size_t i = 0; i < seen->n_links; i++) {
		if (pod_links_has_link(known, &seen->links[i]))
			continue;
		if (ret->n_links == HOST_LINK_MAX_LINKS)
			return -E2BIG;
		ret->links[ret->n_links++] = seen->links[i];
		news = 1;
	}
	return news;
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

/* `ret` has its links already. */
static int join_addrs(const struct pod_links *known, const struct pod_links *seen,
		      const size_t on[], struct pod_links *ret)
{
	bool first = known->n_links == 0, lost = lost_link(known, ret);
	int r = 0;

	for (size_t i = 0; i < known->n_addrs && r == 0; i++) {
		if (!lost || pod_links_has_addr(seen, &known->addrs[i]))
			r = add_addr(ret, &known->addrs[i]);
	}
	for (size_t i = 0; i < seen->n_addrs && r == 0; i++) {
		const struct host_link *l = &seen->links[on[i]];

		if (first || (l->ifindex != 0 && !pod_links_has_link(known, l)))
			r = add_addr(ret, &seen->addrs[i]);
	}
	return r;
}

int pod_links_join(const struct pod_links *known, const struct pod_links *seen, const size_t on[],
		   struct pod_links *ret)
{
	int news, r;

	*ret = (struct pod_links){0};
	news = join_links(known, seen, ret);
	r = news < 0 ? news : join_addrs(known, seen, on, ret);
	return r < 0 ? r : news;
}
