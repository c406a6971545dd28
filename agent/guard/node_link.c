/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/node_link.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <stdbool.h>
#include <string.h>

#include "base/owned.h"
#include "guard/route_nl.h"

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

int node_link_read(uint32_t ifindex, struct node_link *ret)
{
	struct ifinfomsg i = {.ifi_family = AF_UNSPEC, .ifi_index = (int)ifindex};
	OWNED(route_nl_close) struct nl_sock *sk = NULL;
	struct nl_msg *msg;
	int r = route_nl_open(&sk);

	if (r < 0)
		return r;
	*ret = (struct node_link){0};
	msg = nlmsg_alloc_simple(RTM_GETLINK, 0);
	if (!msg || nlmsg_append(msg, &i, sizeof(i), NLMSG_ALIGNTO) < 0) {
		nlmsg_free(msg);
		return -ENOMEM;
	}
	return route_nl_read(sk, msg, on_link, ret);
}
