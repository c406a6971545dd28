/* SPDX-License-Identifier: Apache-2.0 */

/* The guard where eBPF is refused: chains of nf_tables on the host end of each pod's interface.
 * They stay when the agent ends. When an interface goes, older kernels take its chains away; newer
 * ones (6.16) keep them for the next interface of that name: list() tells all that is left, and
 * add() clears away what was there for a namesake.
 */
#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/set.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "guard/guard_ops.h"
#include "guard/netdev_nft.h"
#include "guard/nft_count.h"
#include "guard/node_link.h"
#include "redirect/nft_netlink.h"
#include "redirect/nft_transact.h"
#include "redirect/plan.h"

#define TRIES 5 /* to ask while others change rules */

struct guard_netdev {
	struct mnl_socket
		*nl; /* kept: closing one after a deletion waits for an RCU grace period */
	bool egress;
	unsigned flows;
	struct plan plan; /* the cluster's networks alone */
};

static int explain(char error[static GUARD_ERROR_MAX], int r, const char *what)
{
	snprintf(error, GUARD_ERROR_MAX, "%s: %s", what, strerrordesc_np(-r));
	return r;
}

static int not_here(char error[static GUARD_ERROR_MAX], int r)
{
	explain(error, r, "nf_tables has no netdev ingress chains here");
	return r == -ENOMEM ? r : -EOPNOTSUPP;
}

/* ---- what is there ---- */

/* A chain or set of a pod, ours or a former agent's. */
struct object {
	uint32_t ifindex;
	bool is_chain;
	char name[NETDEV_NAME_MAX];
	char device[IFNAMSIZ]; /* of a chain; "" when it stands nowhere any more */
};

struct objects {
	struct object *v;
	size_t n;
	int r;
};

static void objects_done(struct objects *o)
{
	free(o->v);
}

static void add_object(struct objects *o, const char *name, bool is_chain, const char *device)
{
	uint32_t ifindex = netdev_ifindex(name);
	struct object *v;

	if (ifindex == 0 || strlen(name) >= NETDEV_NAME_MAX || o->r < 0)
		return;
	v = reallocarray(o->v, o->n + 1, sizeof(*v));
	if (!v) {
		o->r = -ENOMEM;
		return;
	}
	o->v = v;
	v[o->n] = (struct object){.ifindex = ifindex, .is_chain = is_chain};
	snprintf(v[o->n].name, sizeof(v->name), "%s", name);
	snprintf(v[o->n].device, sizeof(v->device), "%s", device);
	o->n++;
}

static int on_chain(const struct nlmsghdr *h, void *data)
{
	struct nftnl_chain *c = nftnl_chain_alloc();
	const char *device = NULL;

	if (!c)
		return MNL_CB_ERROR;
	if (nftnl_chain_nlmsg_parse(h, c) == 0 &&
	    strcmp(nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE), NETDEV_TABLE) == 0) {
		device = nftnl_chain_get_str(c, NFTNL_CHAIN_DEV);
		add_object(data, nftnl_chain_get_str(c, NFTNL_CHAIN_NAME), true, device ?: "");
	}
	nftnl_chain_free(c);
	return MNL_CB_OK;
}

static int on_set(const struct nlmsghdr *h, void *data)
{
	struct nftnl_set *s = nftnl_set_alloc();

	if (!s)
		return MNL_CB_ERROR;
	if (nftnl_set_nlmsg_parse(h, s) == 0 &&
	    strcmp(nftnl_set_get_str(s, NFTNL_SET_TABLE), NETDEV_TABLE) == 0)
		add_object(data, nftnl_set_get_str(s, NFTNL_SET_NAME), false, "");
	nftnl_set_free(s);
	return MNL_CB_OK;
}

static int ask(uint16_t type, mnl_cb_t on_object, struct objects *o)
{
	OWNED(nft_socket_close) struct mnl_socket *nl = NULL;
	struct nft_question q = {.family = NFPROTO_NETDEV, .type = type, .table = NETDEV_TABLE};
	int r = nft_socket_open(&nl);

	if (r == 0)
		r = nft_ask(nl, &q, on_object, o);
	return r == -ENOENT ? 0 : r; /* no such table */
}

/* Chains first: a set is deleted after the rules that look into it. */
static int collect(struct objects *ret)
{
	int r = -EINTR;

	for (int i = 0; i < TRIES && r == -EINTR; i++) {
		ret->n = 0;
		r = ask(NFT_MSG_GETCHAIN, on_chain, ret);
		if (r == 0)
			r = ask(NFT_MSG_GETSET, on_set, ret);
	}
	return r ?: ret->r;
}

/* ---- changing ---- */

static int transact(struct guard_netdev *g, const struct nft_make *m)
{
	int r = m->r;

	if (r == 0 && m->steps->n == 0)
		return 0;
	if (r == 0 && !g->nl)
		r = nft_socket_open(&g->nl);
	if (r < 0)
		return r;
	r = nft_transact_on(g->nl, m->steps);
	if (r < 0) { /* answers may be left in it */
		nft_socket_close(&g->nl);
		g->nl = NULL;
	}
	return r;
}

static void delete_objects(struct nft_make *m, const struct objects *o, uint32_t ifindex,
			   bool sets_too)
{
	for (size_t i = 0; i < o->n; i++) {
		if (o->v[i].ifindex != ifindex)
			continue;
		if (o->v[i].is_chain)
			nft_delete_chain(m, o->v[i].name);
		else if (sets_too)
			nft_delete_set(m, o->v[i].name);
	}
}

static int remove_pod(struct guard_netdev *g, const struct objects *o, uint32_t ifindex)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	struct nft_make m = netdev_begin(&steps);

	delete_objects(&m, o, ifindex, true);
	return transact(g, &m);
}

/* Chains of interfaces that are gone, and had the name that this one has. */
static int remove_namesakes(struct guard_netdev *g, const struct objects *o,
			    const struct netdev_pod *pod)
{
	for (size_t i = 0; i < o->n; i++) {
		int r;

		if (o->v[i].ifindex == pod->ifindex || strcmp(o->v[i].device, pod->device) != 0)
			continue;
		r = remove_pod(g, o, o->v[i].ifindex);
		if (r < 0 && r != -ENOENT) /* it may have had two chains */
			return r;
	}
	return 0;
}

static int ensure_base(struct guard_netdev *g)
{
	OWNED(nft_steps_done) struct nft_steps want = {0}, steps = {0};
	struct nft_make m = netdev_begin(&want);
	int r;

	netdev_want_base(&m, &g->plan);
	r = m.r ?: nft_verify_part(&want);
	if (r != -ESTALE)
		return r;
	m = netdev_begin(&steps);
	netdev_make_base(&m, &g->plan);
	return transact(g, &m);
}

static int verify_pod(struct guard_netdev *g, const struct netdev_pod *pod)
{
	OWNED(nft_steps_done) struct nft_steps want = {0};
	struct nft_make m = netdev_begin(&want);

	netdev_want_base(&m, &g->plan);
	netdev_want_pod(&m, pod);
	return m.r ?: nft_verify_part(&want);
}

/* In one transaction, in which the new chains stand at the interface before the old ones go. */
static int replace_pod(struct guard_netdev *g, const struct objects *o,
		       const struct netdev_pod *pod, bool sets_too)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	struct nft_make m = netdev_begin(&steps);

	delete_objects(&m, o, pod->ifindex, sets_too);
	netdev_make_pod(&m, pod);
	return transact(g, &m);
}

static bool has(const struct objects *o, uint32_t ifindex)
{
	for (size_t i = 0; i < o->n; i++) {
		if (o->v[i].ifindex == ifindex)
			return true;
	}
	return false;
}

/* Keeps the flows of live connections where it can: they are in sets of the shape that is wanted
 * unless another agent, or another `flows`, made them.
 */
static int put_pod(struct guard_netdev *g, const struct objects *o, const struct netdev_pod *pod)
{
	int r;

	if (!has(o, pod->ifindex))
		return replace_pod(g, o, pod, false);
	r = verify_pod(g, pod);
	if (r != -ESTALE)
		return r;
	r = replace_pod(g, o, pod, false);
	if (r == 0)
		r = verify_pod(g, pod);
	return r < 0 ? replace_pod(g, o, pod, true) : 0;
}

/* ---- the operations ---- */

/* `device` is where the name goes. -ENODEV, -errno. */
static int describe(const struct guard_netdev *g, const struct guard_pod_at *pod,
		    char device[static IFNAMSIZ], struct netdev_pod *ret)
{
	struct node_link end;
	int r;

	if (!if_indextoname(pod->ifindex, device))
		return -ENODEV;
	r = node_link_read(pod->ifindex, &end);
	if (r < 0)
		return r;
	*ret = (struct netdev_pod){.ifindex = pod->ifindex,
				   .device = device,
				   .dhcp = pod->dhcp,
				   .egress = g->egress,
				   .flows = g->flows,
				   .addrs = pod->addrs,
				   .n_addrs = pod->n_addrs};
	if (end.bridge) /* which learns where a link address is; nobody else does */
		memcpy(ret->mac, pod->mac, sizeof(ret->mac));
	return 0;
}

static int netdev_add(void *self, const struct guard_pod_at *at, char error[static GUARD_ERROR_MAX])
{
	OWNED(objects_done) struct objects objects = {0};
	struct guard_netdev *g = self;
	char device[IFNAMSIZ];
	struct netdev_pod pod;
	int r;

	if (at->steer)
		return explain(error, -EOPNOTSUPP, "nf_tables cannot steer a pod's connections");
	r = describe(g, at, device, &pod);
	if (r < 0)
		return explain(error, r, "cannot find the interface");
	r = collect(&objects);
	if (r == 0)
		r = ensure_base(g);
	if (r == 0)
		r = put_pod(g, &objects, &pod);
	if (r == 0)
		r = remove_namesakes(g, &objects, &pod);
	return r < 0 ? explain(error, r, "nf_tables refuses the guard's chains") : 0;
}

static int netdev_verify(void *self, const struct guard_pod_at *at)
{
	struct guard_netdev *g = self;
	char device[IFNAMSIZ];
	struct netdev_pod pod;

	if (at->steer || describe(g, at, device, &pod) < 0)
		return -ESTALE;
	return verify_pod(g, &pod);
}

static int netdev_remove(void *self, uint32_t ifindex)
{
	int r = -ENOENT;

	/* The kernel may take chains away, with their interface, between the two. */
	for (int i = 0; i < TRIES && r == -ENOENT; i++) {
		OWNED(objects_done) struct objects objects = {0};

		r = collect(&objects);
		if (r == 0)
			r = remove_pod(self, &objects, ifindex);
	}
	return r;
}

static int netdev_list(void *self, void (*each)(void *ctx, uint32_t ifindex), void *ctx)
{
	OWNED(objects_done) struct objects objects = {0};
	int r = collect(&objects);

	(void)self;
	if (r < 0)
		return r;
	for (size_t i = 0; i < objects.n; i++) {
		struct objects before = {.v = objects.v, .n = i};

		if (!has(&before, objects.v[i].ifindex))
			each(ctx, objects.v[i].ifindex);
	}
	return 0;
}

/* ---- the cluster's networks ---- */

static int copy_ranges(const struct plan_range *v, size_t n, struct plan_range **ret)
{
	*ret = calloc(n + 1, sizeof(*v));
	if (!*ret)
		return -ENOMEM;
	if (n)
		memcpy(*ret, v, n * sizeof(*v));
	return 0;
}

static int copy_networks(const struct plan *plan, struct plan *ret)
{
	OWNED(plan_done) struct plan copy = {.n_v4 = plan->n_v4, .n_v6 = plan->n_v6};

	if (copy_ranges(plan->v4, plan->n_v4, &copy.v4) < 0 ||
	    copy_ranges(plan->v6, plan->n_v6, &copy.v6) < 0)
		return -ENOMEM;
	*ret = copy;
	copy = (struct plan){0};
	return 0;
}

static int netdev_set_cluster(void *self, const struct plan *plan)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	OWNED(plan_done) struct plan copy = {0};
	struct nft_make m = netdev_begin(&steps);
	struct guard_netdev *g = self;
	struct plan old = g->plan;
	int r = copy_networks(plan, &copy);

	if (r < 0)
		return r;
	netdev_make_base(&m, &copy);
	r = transact(g, &m);
	if (r < 0)
		return r;
	g->plan = copy;
	copy = old;
	return 0;
}

/* ---- counting ---- */

struct tally {
	struct guard_count_key key;
	struct guard_count count;
};

struct tallies {
	struct tally *v;
	size_t n;
	int r;
};

static struct tally *find_tally(struct tallies *t, const struct guard_count_key *key)
{
	struct tally *v;

	for (size_t i = t->n; i-- > 0;) {
		if (t->v[i].key.ifindex != key->ifindex)
			break; /* a pod's rules come one after the other */
		if (t->v[i].key.proto == key->proto && t->v[i].key.why == key->why)
			return &t->v[i];
	}
	v = reallocarray(t->v, t->n + 1, sizeof(*v));
	if (!v) {
		t->r = -ENOMEM;
		return NULL;
	}
	t->v = v;
	v[t->n] = (struct tally){.key = *key};
	return &v[t->n++];
}

static void on_counted(void *ctx, const struct nft_counted *rule)
{
	struct guard_count_key key = {.ifindex = netdev_ifindex(rule->chain)};
	struct tallies *t = ctx;
	struct tally *tally;

	if (rule->packets == 0 || key.ifindex == 0 || !netdev_read_comment(rule->comment, &key))
		return;
	tally = find_tally(t, &key);
	if (!tally)
		return;
	tally->count.packets += rule->packets;
	tally->count.bytes += rule->bytes;
}

static int netdev_counts(void *self,
			 void (*each)(void *ctx, const struct guard_count_key *key,
				      const struct guard_count *count),
			 void *ctx)
{
	struct tallies t = {0};
	int r = -EINTR;

	(void)self;
	for (int i = 0; i < TRIES && r == -EINTR; i++) {
		t.n = 0;
		r = nft_count_rules(NFPROTO_NETDEV, NETDEV_TABLE, on_counted, &t);
	}
	r = r ?: t.r;
	for (size_t i = 0; i < t.n && r == 0; i++)
		each(ctx, &t.v[i].key, &t.v[i].count);
	free(t.v);
	return r;
}

/* ---- opening and closing ---- */

static void netdev_close(void *self)
{
	struct guard_netdev *g = self;

	if (!g)
		return;
	nft_socket_close(&g->nl);
	plan_done(&g->plan);
	free(g);
}

static void close_it(struct guard_netdev **g)
{
	netdev_close(*g);
}

static int guard_new(const struct guard_config *config, const struct plan *plan,
		     struct guard_netdev **ret)
{
	OWNED(close_it) struct guard_netdev *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		return -ENOMEM;
	g->egress = true;
	g->flows = config->flows_per_pod ?: 1;
	r = copy_networks(plan, &g->plan);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(g);
	return 0;
}

/* In a namespace made for it, on a thread of its own: `lo` stands for a pod's interface. */
struct probe {
	const struct guard_config *config;
	const struct plan *plan;
	bool egress;
	int r; /* of making it all */
};

static int probe_here(const struct probe *probe)
{
	OWNED(close_it) struct guard_netdev *g = NULL;
	char error[GUARD_ERROR_MAX];
	struct guard_pod_at lo = {.ifindex = 1};
	int r = guard_new(probe->config, probe->plan, &g);

	if (r < 0)
		return r;
	g->egress = probe->egress;
	r = netdev_add(g, &lo, error);
	return r < 0 ? r : netdev_verify(g, &lo);
}

static void *probe_thread(void *arg)
{
	struct probe *probe = arg;

	probe->r = unshare(CLONE_NEWNET) < 0 ? -errno : probe_here(probe);
	return NULL;
}

static int probe_with(struct probe *probe, bool egress)
{
	pthread_t thread;
	int r;

	probe->egress = egress;
	r = pthread_create(&thread, NULL, probe_thread, probe);
	if (r != 0)
		return -r;
	pthread_join(thread, NULL);
	return probe->r;
}

static int netdev_open(void **ret, struct loop *loop, const struct guard_config *config,
		       const struct plan *plan, const struct guard_hooks *hooks,
		       char error[static GUARD_ERROR_MAX])
{
	OWNED(close_it) struct guard_netdev *g = NULL;
	struct probe probe = {.config = config, .plan = plan};
	int r = probe_with(&probe, true);

	(void)loop;
	(void)hooks;
	if (r < 0 && r != -ENOMEM) /* Linux 5.16 has the egress hook */
		r = probe_with(&probe, false);
	if (r < 0)
		return not_here(error, r);
	r = guard_new(config, plan, &g);
	if (r == 0) {
		g->egress = probe.egress;
		r = ensure_base(g);
	}
	if (r < 0)
		return explain(error, r, "cannot make the table `netdev " NETDEV_TABLE "`");
	*ret = TAKE_PTR(g);
	return 0;
}

static int netdev_uninstall(const struct guard_config *config)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	struct nft_make m = netdev_begin(&steps);
	int r = nft_table_exists(NFPROTO_NETDEV, NETDEV_TABLE);

	(void)config;
	if (r <= 0)
		return r;
	nft_make_table(&m, NFT_MSG_DELTABLE, 0);
	r = m.r ?: nft_transact(&steps);
	return r == -ENOENT ? 0 : r;
}

const struct guard_ops guard_netdev = {
	.can_steer = false,
	.open = netdev_open,
	.add = netdev_add,
	.verify = netdev_verify,
	.remove = netdev_remove,
	.list = netdev_list,
	.set_cluster = netdev_set_cluster,
	.counts = netdev_counts,
	.close = netdev_close,
	.uninstall = netdev_uninstall,
};
