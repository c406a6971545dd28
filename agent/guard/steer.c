/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/steer.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netlink/route/route.h>
#include <netlink/route/rule.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "base/owned.h"
#include "guard/route_nl.h"

/* Who made rule and route, as `ip rule` and `ip route` show it ("proto 81"); below RTPROT_* of the
 * routing daemons (186 and up), above those of the kernel's own tools. What does not carry it is
 * not ours.
 */
#define STEER_PROTOCOL 81

#ifndef NETLINK_GET_STRICT_CHK
#define NETLINK_GET_STRICT_CHK 12 /* Linux 4.20 */
#endif

/* What of ours is in the kernel, of one family; and whether somebody is in the way. */
struct present {
	const struct steer_config *config;
	unsigned rules, routes;
	bool taken;
};

static void put_rule(struct rtnl_rule **rule)
{
	rtnl_rule_put(*rule);
}

static void put_route(struct rtnl_route **route)
{
	rtnl_route_put(*route);
}

static void put_addr(struct nl_addr **addr)
{
	nl_addr_put(*addr);
}

/* ---- what we would have ---- */

static struct rtnl_rule *make_rule(const struct steer_config *config, int family)
{
	struct rtnl_rule *rule = rtnl_rule_alloc();

	if (!rule)
		return NULL;
	rtnl_rule_set_family(rule, family);
	rtnl_rule_set_prio(rule, config->priority);
	rtnl_rule_set_mark(rule, config->mark);
	rtnl_rule_set_mask(rule, config->mark);
	rtnl_rule_set_table(rule, config->table);
	rtnl_rule_set_action(rule, FR_ACT_TO_TBL);
	rtnl_rule_set_protocol(rule, STEER_PROTOCOL);
	return rule;
}

static int set_default(struct rtnl_route *route, int family)
{
	static const uint8_t zero[16];
	OWNED(put_addr)
	struct nl_addr *any = nl_addr_build(family, zero, family == AF_INET ? 4 : 16);

	if (!any)
		return -ENOMEM;
	nl_addr_set_prefixlen(any, 0);
	return rtnl_route_set_dst(route, any) < 0 ? -ENOMEM : 0;
}

static int set_lo(struct rtnl_route *route)
{
	struct rtnl_nexthop *hop = rtnl_route_nh_alloc();

	if (!hop)
		return -ENOMEM;
	rtnl_route_nh_set_ifindex(hop, 1); /* every namespace's lo */
	rtnl_route_add_nexthop(route, hop);
	return 0;
}

static int make_route(const struct steer_config *config, int family, struct rtnl_route **ret)
{
	OWNED(put_route) struct rtnl_route *route = rtnl_route_alloc();

	if (!route)
		return -ENOMEM;
	rtnl_route_set_family(route, (uint8_t)family);
	rtnl_route_set_table(route, config->table);
	rtnl_route_set_scope(route, family == AF_INET ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE);
	rtnl_route_set_protocol(route, STEER_PROTOCOL);
	rtnl_route_set_type(route, RTN_LOCAL);
	if (set_default(route, family) < 0 || set_lo(route) < 0)
		return -ENOMEM;
	*ret = TAKE_PTR(route);
	return 0;
}

/* ---- what is there ---- */

/* A rule of the kernel's list; libnl keeps its own reading of them to itself. */
struct seen_rule {
	uint32_t priority, mark, mask, table;
	uint8_t action, protocol;
	bool more; /* more particular than ours is */
};

static uint32_t u32_of(struct nlattr *attr, uint32_t otherwise)
{
	return attr && nla_len(attr) == 4 ? nla_get_u32(attr) : otherwise;
}

static bool is_particular(const struct fib_rule_hdr *h, struct nlattr *tb[])
{
	static const int attrs[] = {FRA_DST,      FRA_SRC,       FRA_IIFNAME,     FRA_GOTO,
				    FRA_FLOW,     FRA_TUN_ID,    FRA_OIFNAME,     FRA_L3MDEV,
				    FRA_IP_PROTO, FRA_UID_RANGE, FRA_SPORT_RANGE, FRA_DPORT_RANGE};

	for (size_t i = 0; i < ARRAY_SIZE(attrs); i++) {
		if (tb[attrs[i]])
			return true;
	}
	return h->tos != 0 || h->flags & FIB_RULE_INVERT ||
	       u32_of(tb[FRA_SUPPRESS_PREFIXLEN], ~0U) != ~0U ||
	       u32_of(tb[FRA_SUPPRESS_IFGROUP], ~0U) != ~0U;
}

static bool parse_rule(struct nlmsghdr *nlh, struct seen_rule *ret)
{
	const struct fib_rule_hdr *h = nlmsg_data(nlh);
	struct nlattr *tb[FRA_MAX + 1];

	if (nlmsg_parse(nlh, sizeof(*h), tb, FRA_MAX, NULL) < 0)
		return false;
	*ret = (struct seen_rule){
		.priority = u32_of(tb[FRA_PRIORITY], 0),
		.mark = u32_of(tb[FRA_FWMARK], 0),
		.mask = u32_of(tb[FRA_FWMASK], 0),
		.table = u32_of(tb[FRA_TABLE], h->table),
		.action = h->action,
		.protocol = tb[FRA_PROTOCOL] ? nla_get_u8(tb[FRA_PROTOCOL]) : 0,
		.more = is_particular(h, tb),
	};
	return true;
}

static bool is_ours(const struct steer_config *config, const struct seen_rule *rule)
{
	return rule->protocol == STEER_PROTOCOL && rule->priority == config->priority &&
	       rule->mark == config->mark && rule->mask == config->mark &&
	       rule->table == config->table && rule->action == FR_ACT_TO_TBL && !rule->more;
}

/* Would it send what we marked elsewhere, or what is not ours to our table? */
static bool is_in_the_way(const struct steer_config *config, const struct seen_rule *rule)
{
	return rule->priority == config->priority || rule->table == config->table ||
	       (rule->mark != 0 && (config->mark & rule->mask) == rule->mark);
}

static int on_rule(void *ctx, struct nlmsghdr *h)
{
	struct present *p = ctx;
	struct seen_rule rule;

	if (h->nlmsg_type != RTM_NEWRULE)
		return 0;
	if (!parse_rule(h, &rule))
		return -EBADMSG;
	if (is_ours(p->config, &rule))
		p->rules++;
	else if (is_in_the_way(p->config, &rule))
		p->taken = true;
	return 0;
}

static int on_route(void *ctx, struct nlmsghdr *h)
{
	OWNED(put_route) struct rtnl_route *route = NULL;
	struct present *p = ctx;
	struct rtnl_nexthop *hop;

	if (h->nlmsg_type != RTM_NEWROUTE || rtnl_route_parse(h, &route) < 0 ||
	    rtnl_route_get_table(route) != p->config->table)
		return 0;
	hop = rtnl_route_nexthop_n(route, 0);
	if (rtnl_route_get_protocol(route) == STEER_PROTOCOL &&
	    rtnl_route_get_type(route) == RTN_LOCAL && hop && rtnl_route_nh_get_ifindex(hop) == 1 &&
	    rtnl_route_get_nnexthops(route) == 1 && rtnl_route_get_dst(route) &&
	    nl_addr_get_prefixlen(rtnl_route_get_dst(route)) == 0)
		p->routes++;
	else
		p->taken = true;
	return 0;
}

static int list_rules(struct nl_sock *sk, int family, struct present *p)
{
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETRULE, NLM_F_DUMP);
	struct fib_rule_hdr all = {.family = (uint8_t)family};

	if (!msg || nlmsg_append(msg, &all, sizeof(all), NLMSG_ALIGNTO) < 0) {
		nlmsg_free(msg);
		return -ENOMEM;
	}
	return route_nl_read(sk, msg, on_rule, p);
}

/* The kernel sends our table alone where it knows strict checking; otherwise all of them, and
 * on_route() picks.
 */
static int list_routes(struct nl_sock *sk, int family, struct present *p)
{
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETROUTE, NLM_F_DUMP);
	struct rtmsg all = {.rtm_family = (uint8_t)family};
	int r;

	if (!msg || nlmsg_append(msg, &all, sizeof(all), NLMSG_ALIGNTO) < 0 ||
	    nla_put_u32(msg, RTA_TABLE, p->config->table) < 0) {
		nlmsg_free(msg);
		return -ENOMEM;
	}
	r = route_nl_read(sk, msg, on_route, p);
	return r == -ENOENT ? 0 : r; /* no such table yet */
}

static int look(struct nl_sock *sk, const struct steer_config *config, int family,
		struct present *ret)
{
	struct present p = {.config = config};
	int r;

	r = list_rules(sk, family, &p);
	if (r == 0)
		r = list_routes(sk, family, &p);
	if (r == 0)
		*ret = p;
	return r;
}

/* ---- both families ---- */

/* False without IPv6 in the kernel, and where it is disabled on lo: then there is no [::1] to
 * deliver to.
 */
static bool has_v6(void)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	OWNED_FD int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0;
}

/* Calls `act` for IPv4, and for IPv6 where there is one; the sum, or the first that failed. */
static int each_family(const struct steer_config *config,
		       int (*act)(struct nl_sock *sk, const struct steer_config *config,
				  int family))
{
	OWNED(route_nl_close) struct nl_sock *sk = NULL;
	int r, v6 = 0;

	r = route_nl_open(&sk);
	if (r < 0)
		return r;
	setsockopt(nl_socket_get_fd(sk), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &(int){1},
		   sizeof(int)); /* older kernels list more */
	r = act(sk, config, AF_INET);
	if (r >= 0 && has_v6())
		v6 = act(sk, config, AF_INET6);
	return r < 0 || v6 < 0 ? (r < 0 ? r : v6) : r + v6;
}

static int add_rule(struct nl_sock *sk, const struct steer_config *config, int family)
{
	OWNED(put_rule) struct rtnl_rule *rule = make_rule(config, family);
	struct nl_msg *msg = NULL;
	int r;

	if (!rule || rtnl_rule_build_add_request(rule, NLM_F_CREATE | NLM_F_EXCL, &msg) < 0)
		return -ENOMEM;
	r = route_nl_change(sk, msg);
	return r == -EEXIST ? 0 : r;
}

static int add_route(struct nl_sock *sk, const struct steer_config *config, int family)
{
	OWNED(put_route) struct rtnl_route *route = NULL;
	struct nl_msg *msg = NULL;
	int r;

	r = make_route(config, family, &route);
	if (r < 0)
		return r;
	if (rtnl_route_build_add_request(route, NLM_F_CREATE | NLM_F_EXCL, &msg) < 0)
		return -ENOMEM;
	return route_nl_change(sk, msg);
}

/* The route first: a rule that leads to an empty table would send marked packets on. */
static int apply(struct nl_sock *sk, const struct steer_config *config, int family)
{
	struct present p;
	int r;

	r = look(sk, config, family, &p);
	if (r < 0)
		return r;
	if (p.taken)
		return -EEXIST;
	if (p.routes == 0)
		r = add_route(sk, config, family);
	if (r == 0 && p.rules == 0)
		r = add_rule(sk, config, family);
	return r < 0 ? r : p.rules == 0 || p.routes == 0;
}

static int verify(struct nl_sock *sk, const struct steer_config *config, int family)
{
	struct present p;
	int r = look(sk, config, family, &p);

	if (r < 0)
		return r;
	return p.rules == 1 && p.routes == 1 && !p.taken ? 0 : -ESTALE;
}

static int remove_rule(struct nl_sock *sk, const struct steer_config *config, int family)
{
	OWNED(put_rule) struct rtnl_rule *rule = make_rule(config, family);
	struct nl_msg *msg = NULL;

	if (!rule || rtnl_rule_build_delete_request(rule, 0, &msg) < 0)
		return -ENOMEM;
	return route_nl_change(sk, msg);
}

static int remove_route(struct nl_sock *sk, const struct steer_config *config, int family)
{
	OWNED(put_route) struct rtnl_route *route = NULL;
	struct nl_msg *msg = NULL;
	int r;

	r = make_route(config, family, &route);
	if (r < 0)
		return r;
	if (rtnl_route_build_del_request(route, 0, &msg) < 0)
		return -ENOMEM;
	r = route_nl_change(sk, msg);
	return r == -ESRCH ? 0 : r;
}

/* The kernel deletes by what the request names, and a rule of somebody else's that has more to it
 * could answer to that: only what was seen to be ours is asked for.
 */
static int remove_all(struct nl_sock *sk, const struct steer_config *config, int family)
{
	struct present p;
	int r = look(sk, config, family, &p);

	for (unsigned i = 0; r == 0 && i < p.rules; i++)
		r = remove_rule(sk, config, family);
	for (unsigned i = 0; r == 0 && i < p.routes; i++)
		r = remove_route(sk, config, family);
	return r;
}

static bool is_usable(const struct steer_config *config)
{
	return config->mark != 0 && config->priority != 0 && config->table != RT_TABLE_UNSPEC &&
	       (config->table < RT_TABLE_DEFAULT || config->table > RT_TABLE_LOCAL);
}

int steer_apply(const struct steer_config *config)
{
	int r;

	if (!is_usable(config))
		return -EINVAL;
	r = each_family(config, apply);
	return r > 0 ? 1 : r;
}

int steer_verify(const struct steer_config *config)
{
	return is_usable(config) ? each_family(config, verify) : -EINVAL;
}

int steer_remove(const struct steer_config *config)
{
	return is_usable(config) ? each_family(config, remove_all) : -EINVAL;
}

/* ---- listeners ---- */

static int listen_on(const struct sockaddr *sa, socklen_t len, int level, int transparent)
{
	OWNED_FD int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0 ||
	    setsockopt(fd, level, transparent, &(int){1}, sizeof(int)) < 0)
		return -errno;
	if (sa->sa_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){1}, sizeof(int)) < 0)
		return -errno;
	if (bind(fd, sa, len) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int steer_listen(uint16_t port, int ret_fds[2])
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
				   .sin6_port = htons(port),
				   .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	OWNED_FD int v4 = -1;
	int v6 = -1;

	v4 = listen_on((struct sockaddr *)&in, sizeof(in), IPPROTO_IP, IP_TRANSPARENT);
	if (v4 < 0)
		return v4;
	/* Asked first: a transparent socket may be bound to what is not there, too. */
	if (has_v6()) {
		v6 = listen_on((struct sockaddr *)&in6, sizeof(in6), IPPROTO_IPV6,
			       IPV6_TRANSPARENT);
		if (v6 < 0)
			return v6;
	}
	ret_fds[0] = TAKE_FD(v4);
	ret_fds[1] = v6;
	return 0;
}
