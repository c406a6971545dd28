/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/source_ip.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <string.h>

#include "base/owned.h"

static void free_socket(struct nl_sock **sock)
{
	nl_socket_free(*sock); /* NULL is fine */
}

static void free_cache(struct nl_cache **cache)
{
	nl_cache_free(*cache); /* NULL is fine */
}

/* libnl's codes end here. */
static int nl_to_errno(int nle)
{
	switch (-nle) {
	case NLE_NOMEM:
		return -ENOMEM;
	case NLE_PERM:
	case NLE_NOACCESS:
		return -EPERM;
	case NLE_AF_NOSUPPORT:
		return -EAFNOSUPPORT;
	default:
		return -EIO;
	}
}

static bool is_address(struct rtnl_addr *entry, const struct addr *a)
{
	struct nl_addr *local = rtnl_addr_get_local(entry);
	int family = addr_is_v4(a) ? AF_INET : AF_INET6;
	const uint8_t *ip = family == AF_INET ? &a->ip[12] : a->ip;
	size_t len = family == AF_INET ? 4 : 16;

	/* An address that lost duplicate address detection is listed, but not ours. */
	return local && nl_addr_get_family(local) == family && nl_addr_get_len(local) == len &&
	       memcmp(nl_addr_get_binary_addr(local), ip, len) == 0 &&
	       !(rtnl_addr_get_flags(entry) & IFA_F_DADFAILED);
}

static bool is_listed(struct nl_cache *cache, const struct addr *a)
{
	struct nl_object *o;

	for (o = nl_cache_get_first(cache); o; o = nl_cache_get_next(o))
		if (is_address((struct rtnl_addr *)o, a))
			return true;
	return false;
}

int source_ip_check(const struct addr *ips, size_t n, const struct addr **ret_missing)
{
	OWNED(free_socket) struct nl_sock *sock = NULL;
	OWNED(free_cache) struct nl_cache *cache = NULL;
	int r;

	if (n == 0)
		return 0;
	sock = nl_socket_alloc();
	if (!sock)
		return -ENOMEM;
	r = nl_connect(sock, NETLINK_ROUTE);
	if (r < 0)
		return nl_to_errno(r);
	r = rtnl_addr_alloc_cache(sock, &cache);
	if (r < 0)
		return nl_to_errno(r);

	for (size_t i = 0; i < n; i++) {
		if (!is_listed(cache, &ips[i])) {
			*ret_missing = &ips[i];
			return -EADDRNOTAVAIL;
		}
	}
	return 0;
}
