/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/host_link.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <netlink/attr.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/netns.h"
#include "base/owned.h"
#include "guard/route_nl.h"

#define SEEN_LINKS 256 /* looked at in a pod before we give up: it may make as many as it likes */
#define SEEN_ADDRS 1024
#define ATTEMPTS   3 /* a list that changed while it was read is read again */
#define NO_NSID    (-1)

#ifndef RTEXT_FILTER_SKIP_STATS
#define RTEXT_FILTER_SKIP_STATS (1 << 3)
#endif

/* One link as the kernel lists it. */
struct link {
	char name[16], kind[16];
	uint8_t mac[6];
	uint32_t ifindex;
	uint16_t type;   /* ARPHRD_* */
	uint32_t peer;   /* IFLA_LINK; 0 where there is none */
	int32_t peer_ns; /* IFLA_LINK_NETNSID; NO_NSID: the peer is in the link's own namespace */
};

/* Links that lead out, and what is told of them. */
struct reading {
	struct pod_links *ret;
	struct link links[HOST_LINK_MAX_LINKS]; /* as ret->links */
	size_t on[HOST_LINK_MAX_ADDRS];         /* as ret->addrs: which link has it */
	unsigned seen_links, seen_addrs;
	int32_t home; /* what the pod's namespace calls the calling thread's; NO_NSID: nothing */
};

__attribute__((format(printf, 3, 4))) static int fail(int r, char error[static HOST_LINK_ERROR_MAX],
						      const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, HOST_LINK_ERROR_MAX, format, args);
	va_end(args);
	return r;
}

static int too_many(char error[static HOST_LINK_ERROR_MAX])
{
	return fail(-E2BIG, error,
		    "the pod has more than %d interfaces that lead out, or more than %d addresses "
		    "on them: give it fewer",
		    HOST_LINK_MAX_LINKS, HOST_LINK_MAX_ADDRS);
}

static int fail_errno(int r, char error[static HOST_LINK_ERROR_MAX], const char *what)
{
	return fail(r, error, "cannot %s: %s", what, strerrordesc_np(-r));
}

/* ---- links ---- */

static void copy_text(char *to, size_t size, struct nlattr *from)
{
	if (from)
		nla_strlcpy(to, from, size);
}

/* The pod's own choice, of whatever bytes; it is for people and for the state's JSON. */
static void make_printable(char *name)
{
	for (; *name; name++) {
		if (*name <= ' ' || *name > '~')
			*name = '?';
	}
}

static void read_kind(struct nlattr *info, char kind[static 16])
{
	struct nlattr *tb[IFLA_INFO_MAX + 1];

	if (info && nla_parse_nested(tb, IFLA_INFO_MAX, info, NULL) == 0)
		copy_text(kind, 16, tb[IFLA_INFO_KIND]);
}

static int parse_link(struct nlmsghdr *h, struct link *ret)
{
	static struct nla_policy policy[IFLA_MAX + 1] = {
		[IFLA_IFNAME] = {.type = NLA_STRING},
		[IFLA_LINK] = {.type = NLA_U32},
		[IFLA_LINK_NETNSID] = {.type = NLA_U32},
		[IFLA_LINKINFO] = {.type = NLA_NESTED},
	};
	struct nlattr *tb[IFLA_MAX + 1];
	struct ifinfomsg *i = nlmsg_data(h);

	if (nlmsg_parse(h, sizeof(*i), tb, IFLA_MAX, policy) < 0)
		return -EBADMSG;
	*ret = (struct link){
		.ifindex = (uint32_t)i->ifi_index, .type = i->ifi_type, .peer_ns = NO_NSID};
	copy_text(ret->name, sizeof(ret->name), tb[IFLA_IFNAME]);
	make_printable(ret->name);
	read_kind(tb[IFLA_LINKINFO], ret->kind);
	if (tb[IFLA_ADDRESS] && nla_len(tb[IFLA_ADDRESS]) == sizeof(ret->mac))
		memcpy(ret->mac, nla_data(tb[IFLA_ADDRESS]), sizeof(ret->mac));
	if (tb[IFLA_LINK])
		ret->peer = nla_get_u32(tb[IFLA_LINK]);
	if (tb[IFLA_LINK_NETNSID])
		ret->peer_ns = (int32_t)nla_get_u32(tb[IFLA_LINK_NETNSID]);
	return 0;
}

/* These send by other links of their own namespace, or nowhere. Those of tunnels appear by
 * themselves in every namespace once the module is loaded (net.core.fb_tunnels_only_for_init_net).
 */
static bool stays_inside(const struct link *l)
{
	static const char *const kinds[] = {
		"bridge", "dummy", "ifb",   "bond",   "team",      "vlan",      "vxlan", "geneve",
		"ipip",   "sit",   "gre",   "gretap", "erspan",    "ip6tnl",    "vti",   "vti6",
		"ip6gre", "vrf",   "nlmon", "lo",     "ip6gretap", "ip6erspan",
	};

	if (l->type == ARPHRD_LOOPBACK)
		return true;
	if (l->peer_ns != NO_NSID)
		return false;
	if (l->peer != 0 && l->kind[0] != '\0') /* a pair, or on top of a link, in here */
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (strcmp(l->kind, kinds[i]) == 0)
			return true;
	}
	return false;
}

static int on_link(void *ctx, struct nlmsghdr *h)
{
	struct reading *reading = ctx;
	struct pod_links *ret = reading->ret;
	struct link l;
	int r;

	if (h->nlmsg_type != RTM_NEWLINK)
		return 0;
	if (++reading->seen_links > SEEN_LINKS)
		return -E2BIG;
	r = parse_link(h, &l);
	if (r < 0 || stays_inside(&l))
		return r;
	if (ret->n_links == HOST_LINK_MAX_LINKS)
		return -E2BIG;
	reading->links[ret->n_links] = l;
	memcpy(ret->links[ret->n_links].name, l.name, sizeof(l.name));
	memcpy(ret->links[ret->n_links].kind, l.kind, sizeof(l.kind));
	memcpy(ret->links[ret->n_links].mac, l.mac, sizeof(l.mac));
	ret->n_links++;
	return 0;
}

static int list_links(struct nl_sock *sk, int (*each)(void *ctx, struct nlmsghdr *h), void *ctx)
{
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETLINK, NLM_F_DUMP);
	struct ifinfomsg all = {.ifi_family = AF_UNSPEC};

	if (!msg || nlmsg_append(msg, &all, sizeof(all), NLMSG_ALIGNTO) < 0 ||
	    nla_put_u32(msg, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS) < 0) {
		nlmsg_free(msg);
		return -ENOMEM;
	}
	return route_nl_read(sk, msg, each, ctx);
}

/* ---- addresses ---- */

/* The links' number when it is none of them. */
static size_t find_listed(const struct reading *reading, uint32_t ifindex)
{
	size_t i = 0;

	while (i < reading->ret->n_links && reading->links[i].ifindex != ifindex)
		i++;
	return i;
}

static bool read_ip(struct nlattr *attr, uint8_t family, struct addr *ret)
{
	*ret = (struct addr){.ip = {[10] = 0xff, [11] = 0xff}};
	if (attr && family == AF_INET && nla_len(attr) == 4)
		return memcpy(ret->ip + 12, nla_data(attr), 4);
	if (attr && family == AF_INET6 && nla_len(attr) == 16)
		return memcpy(ret->ip, nla_data(attr), 16);
	return false;
}

static int on_addr(void *ctx, struct nlmsghdr *h)
{
	struct reading *reading = ctx;
	struct ifaddrmsg *i = nlmsg_data(h);
	struct nlattr *tb[IFA_MAX + 1];
	struct addr a;
	size_t link;

	if (h->nlmsg_type != RTM_NEWADDR)
		return 0;
	if (++reading->seen_addrs > SEEN_ADDRS)
		return -E2BIG;
	if (nlmsg_parse(h, sizeof(*i), tb, IFA_MAX, NULL) < 0)
		return -EBADMSG;
	link = find_listed(reading, i->ifa_index);
	if (link == reading->ret->n_links)
		return 0;
	/* With IPv4, and point to point, IFA_ADDRESS is the other end's. */
	if (!read_ip(tb[IFA_LOCAL] ? tb[IFA_LOCAL] : tb[IFA_ADDRESS], i->ifa_family, &a))
		return 0;
	if (reading->ret->n_addrs == HOST_LINK_MAX_ADDRS)
		return -E2BIG;
	reading->on[reading->ret->n_addrs] = link;
	reading->ret->addrs[reading->ret->n_addrs++] = a;
	return 0;
}

static int list_addrs(struct nl_sock *sk, struct reading *reading)
{
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETADDR, NLM_F_DUMP);
	struct ifaddrmsg all = {.ifa_family = AF_UNSPEC};

	if (!msg || nlmsg_append(msg, &all, sizeof(all), NLMSG_ALIGNTO) < 0) {
		nlmsg_free(msg);
		return -ENOMEM;
	}
	return route_nl_read(sk, msg, on_addr, reading);
}

/* ---- peers ---- */

static int on_nsid(void *ctx, struct nlmsghdr *h)
{
	struct nlattr *tb[NETNSA_MAX + 1];

	if (h->nlmsg_type == RTM_NEWNSID &&
	    nlmsg_parse(h, sizeof(struct rtgenmsg), tb, NETNSA_MAX, NULL) == 0 && tb[NETNSA_NSID])
		*(int32_t *)ctx = (int32_t)nla_get_u32(tb[NETNSA_NSID]);
	return 0;
}

/* By which number the socket's namespace knows the one behind `fd`. The kernel gives it one when it
 * lists a link with a peer there.
 */
static int ask_nsid(struct nl_sock *sk, int fd, int32_t *ret)
{
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETNSID, 0);
	struct rtgenmsg any = {.rtgen_family = AF_UNSPEC};

	*ret = NO_NSID;
	if (!msg || nlmsg_append(msg, &any, sizeof(any), NLMSG_ALIGNTO) < 0 ||
	    nla_put_u32(msg, NETNSA_FD, (uint32_t)fd) < 0) {
		nlmsg_free(msg);
		return -ENOMEM;
	}
	return route_nl_read(sk, msg, on_nsid, ret);
}

struct back {
	const struct link *pod_link;
	bool points_back;
};

static int on_peer(void *ctx, struct nlmsghdr *h)
{
	struct back *back = ctx;
	struct link l;

	if (h->nlmsg_type == RTM_NEWLINK && parse_link(h, &l) == 0)
		back->points_back = l.ifindex == back->pod_link->peer &&
				    l.peer == back->pod_link->ifindex && l.peer_ns != NO_NSID &&
				    strcmp(l.kind, back->pod_link->kind) == 0;
	return 0;
}

/* The peer's own word for it too: an interface may have gone, and its number been given away, since
 * the pod's were listed.
 */
static bool peer_points_back(struct nl_sock *sk, const struct link *pod_link)
{
	struct back back = {.pod_link = pod_link};
	struct ifinfomsg i = {.ifi_family = AF_UNSPEC, .ifi_index = (int)pod_link->peer};
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETLINK, 0);

	if (!msg || nlmsg_append(msg, &i, sizeof(i), NLMSG_ALIGNTO) < 0) {
		nlmsg_free(msg);
		return false;
	}
	return route_nl_read(sk, msg, on_peer, &back) == 0 && back.points_back;
}

/* A link on top of a device in the node's namespace (macvlan, ipvlan, a VLAN) has that device as
 * IFLA_LINK: it is nobody's alone.
 */
static bool has_peer(const struct link *l)
{
	return strcmp(l->kind, "veth") == 0 || strcmp(l->kind, "netkit") == 0;
}

static int find_peers(struct reading *reading, char error[static HOST_LINK_ERROR_MAX])
{
	OWNED(route_nl_close) struct nl_sock *sk = NULL;
	int r = route_nl_open(&sk);

	if (r < 0)
		return fail_errno(r, error, "open a netlink socket");
	for (size_t i = 0; i < reading->ret->n_links; i++) {
		const struct link *l = &reading->links[i];

		if (has_peer(l) && l->peer != 0 && l->peer_ns != NO_NSID &&
		    l->peer_ns == reading->home && peer_points_back(sk, l))
			reading->ret->links[i].ifindex = l->peer;
	}
	return 0;
}

/* ---- all of it ---- */

static int list_all(struct nl_sock *sk, int home, struct reading *reading)
{
	int r;

	*reading->ret = (struct pod_links){0};
	reading->seen_links = reading->seen_addrs = 0;
	r = list_links(sk, on_link, reading);
	if (r == 0)
		r = list_addrs(sk, reading);
	if (r == 0)
		r = ask_nsid(sk, home, &reading->home);
	return r;
}

static int read_inside(int netns_fd, struct reading *reading,
		       char error[static HOST_LINK_ERROR_MAX])
{
	OWNED(netns_leave) int home = -1;
	int r;

	r = netns_enter(netns_fd, &home);
	if (r < 0)
		return fail(r, error, "cannot enter the pod's network namespace: %s%s",
			    strerrordesc_np(-r),
			    r == -EINVAL ? " (it is none: check the path)" : "");
	for (int i = 0; i < ATTEMPTS; i++) {
		OWNED(route_nl_close) struct nl_sock *sk = NULL;

		r = route_nl_open(&sk);
		if (r == 0)
			r = list_all(sk, home, reading);
		if (r != -EAGAIN)
			break;
	}
	return r == -E2BIG ? too_many(error)
			   : (r < 0 ? fail_errno(r, error, "list the pod's interfaces") : 0);
}

/* ---- from outside ---- */

struct outside {
	const struct pod_links *known;
	struct pod_links *ret; /* the known ones and, of the namespace `nsid`, the others */
	uint64_t now_ms;
	int32_t nsid;
	bool full;
};

static int on_host_end(void *ctx, struct nlmsghdr *h)
{
	struct outside *o = ctx;
	struct host_link fresh = {0};
	struct link l;
	int r;

	if (h->nlmsg_type != RTM_NEWLINK)
		return 0;
	r = parse_link(h, &l);
	if (r < 0 || o->nsid == NO_NSID || l.peer_ns != o->nsid || !has_peer(&l))
		return r;
	fresh.ifindex = l.ifindex;
	fresh.open_until_ms = o->now_ms + POD_LINK_OPEN_MS;
	if (pod_links_has_link(o->known, &fresh))
		return 0;
	if (o->ret->n_links == HOST_LINK_MAX_LINKS) {
		o->full = true;
		return 0;
	}
	memcpy(fresh.name, l.name, sizeof(fresh.name));
	memcpy(fresh.kind, l.kind, sizeof(fresh.kind));
	o->ret->links[o->ret->n_links++] = fresh;
	return 0;
}

/* What a pod makes in its namespace can be more than we read, or change while we do. Its links with
 * an end out here can be seen from here: those that are new get no address, so that nothing passes.
 * `r` and `error` are of the reading inside, and stay where there is none.
 */
static int read_outside(int r, int netns_fd, const struct pod_links *known, uint64_t now_ms,
			struct pod_links *ret, char error[static HOST_LINK_ERROR_MAX])
{
	struct pod_links joined = *known;
	struct outside o = {.known = known, .ret = &joined, .now_ms = now_ms, .nsid = NO_NSID};
	OWNED(route_nl_close) struct nl_sock *sk = NULL;

	/* Twice: the kernel gives the namespace its number when it lists a link with a peer there.
	 */
	if (route_nl_open(&sk) < 0 || list_links(sk, on_host_end, &o) < 0 ||
	    ask_nsid(sk, netns_fd, &o.nsid) < 0 || list_links(sk, on_host_end, &o) < 0)
		return r;
	if (o.full)
		return too_many(error);
	if (joined.n_links == known->n_links)
		return r;
	*ret = joined;
	return 0;
}

static int read_both(int netns_fd, const struct pod_links *known, uint64_t now_ms,
		     struct pod_links *ret, char error[static HOST_LINK_ERROR_MAX])
{
	struct pod_links links = {0}, joined = {0};
	struct reading reading = {.ret = &links, .home = NO_NSID};
	int r;

	r = read_inside(netns_fd, &reading, error);
	if (r < 0)
		return r;
	if (links.n_links == 0)
		return fail(-ENODEV, error,
			    "the pod has no interface but 'lo': enrol it after its network was set "
			    "up (sluice comes last in the CNI chain)");
	r = find_peers(&reading, error);
	if (r < 0)
		return r;
	r = pod_links_join(known, &links, reading.on, now_ms, &joined);
	if (r < 0)
		return too_many(error);
	*ret = joined;
	return 0;
}

int pod_links_read(int netns_fd, const struct pod_links *known, uint64_t now_ms,
		   struct pod_links *ret, char error[static HOST_LINK_ERROR_MAX])
{
	int r = read_both(netns_fd, known, now_ms, ret, error);

	return r < 0 && known->n_links > 0 ? read_outside(r, netns_fd, known, now_ms, ret, error)
					   : r;
}
