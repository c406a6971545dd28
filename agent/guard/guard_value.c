/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <string.h>

#include "base/owned.h"
#include "guard/guard_ebpf.h"
#include "guard/route_nl.h"

struct node_link {
	uint8_t mac[6];  /* zero where it has none of that length */
	uint32_t bridge; /* of which it is a port, or 0 */
};

static bool is_bridge_port(struct nlattr *info)
{
	struct nlattr *tb[IFLA_INFO_MAX + 1];

	return info && nla_parse_nested(tb, IFLA_INFO_MAX, info, NULL) == 0 &&
	       tb[IFLA_INFO_SLAVE_KIND] && nla_strcmp(tb[IFLA_INFO_SLAVE_KIND], "bridge") == 0;
}

static int on_link(void *ctx, struct nlmsghdr *h)
{
	struct nlattr *tb[IFLA_MAX + 1];
	struct node_link *link = ctx;

	if (h->nlmsg_type != RTM_NEWLINK)
		return 0;
	if (nlmsg_parse(h, sizeof(struct ifinfomsg), tb, IFLA_MAX, NULL) < 0)
		return -EBADMSG;
	if (tb[IFLA_ADDRESS] && nla_len(tb[IFLA_ADDRESS]) == sizeof(link->mac))
		memcpy(link->mac, nla_data(tb[IFLA_ADDRESS]), sizeof(link->mac));
	if (tb[IFLA_MASTER] && is_bridge_port(tb[IFLA_LINKINFO]))
		link->bridge = nla_get_u32(tb[IFLA_MASTER]);
	return 0;
}

static int read_link(struct nl_sock *sk, uint32_t ifindex, struct node_link *ret)
{
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETLINK, 0);
	struct ifinfomsg i = {.ifi_family = AF_UNSPEC, .ifi_index = (int)ifindex};

	*ret = (struct node_link){0};
	if (!msg || nlmsg_append(msg, &i, sizeof(i), NLMSG_ALIGNTO) < 0) {
		nlmsg_free(msg);
		return -ENOMEM;
	}
	return route_nl_read(sk, msg, on_link, ret);
}

int guard_pod_value(const struct guard_pod_at *pod, unsigned buckets, struct guard_pod *ret)
{
	OWNED(route_nl_close) struct nl_sock *sk = NULL;
	struct node_link end = {0}, upper;
	int r;

	r = route_nl_open(&sk);
	if (r == 0)
		r = read_link(sk, pod->ifindex, &end);
	upper = end;
	if (r == 0 && end.bridge)
		r = read_link(sk, end.bridge, &upper);
	if (r < 0)
		return r;
	*ret = (struct guard_pod){
		.flags = (pod->steer ? GUARD_POD_STEER : 0) | (pod->dhcp ? GUARD_POD_DHCP : 0),
		.buckets = buckets,
		.upper = end.bridge ? end.bridge : pod->ifindex,
	};
	memcpy(ret->mac, end.mac, sizeof(ret->mac));
	memcpy(ret->upper_mac, upper.mac, sizeof(ret->upper_mac));
	return 0;
}
