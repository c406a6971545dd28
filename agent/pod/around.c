/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "guard/forward.h"
#include "pod/nflog.h"
#include "pod/origins.h"
#include "pod/pods_own.h"

#define SAY_MAX    4096  /* refusals remembered, so that each is said once */
#define SAY_FOR_MS 60000 /* within this time */
#define SAY_LINES  120   /* of one pod within that time: it chooses the destinations */

/* ---- refusals ---- */

struct said_key {
	uint64_t pod; /* serial */
	uint8_t dst[16];
	uint16_t dport;
	uint8_t proto, why;
};

static bool may_say(struct pods *pods, struct pod *pod)
{
	uint64_t now = loop_now_ms(pods->loop);

	if (!pod)
		return true; /* of pods that are gone: rare, and bounded by `said` */
	if (pod->lines_full_ms == 0 || now - pod->lines_full_ms >= SAY_FOR_MS) {
		pod->lines_full_ms = now;
		pod->lines = SAY_LINES;
	}
	if (pod->lines == 0)
		return false;
	pod->lines--;
	return true;
}

/* Counts each, and says each once a minute for a pod, destination and protocol. */
static void report(struct pods *pods, struct pod *pod, struct pods_refusal *refusal, uint8_t proto)
{
	struct said_key key;
	uint64_t times;

	if (!pods->hooks.refused)
		return;
	memset(&key, 0, sizeof(key)); /* padding too: it is compared as bytes */
	key.pod = pod ? pod->serial : 0;
	memcpy(key.dst, refusal->dst.ip, 16);
	key.dport = refusal->dst.port;
	key.proto = proto;
	key.why = (uint8_t)refusal->reason;
	refusal->source = pod ? pod->id : NULL;
	refusal->say =
		recent_is_new(pods->said, &key, sizeof(key), loop_now_ms(pods->loop), &times) &&
		may_say(pods, pod);
	pods->hooks.refused(pods->hooks.ctx, refusal);
}

static struct addr addr_of(const uint8_t ip[16], __be16 port)
{
	struct addr a = {.port = ntohs(port)};

	memcpy(a.ip, ip, 16);
	return a;
}

static const char *proto_str(uint8_t proto, uint16_t dport, char buf[static 32])
{
	if (proto == GUARD_PROTO_ARP)
		return "ARP";
	if (proto == GUARD_PROTO_ETHER)
		return "ethernet";
	if (proto == GUARD_PROTO_OTHER)
		return "other";
	return nflog_protocol_str(proto, dport, buf);
}

/* What steering refuses because it is not TCP is no attempt to get around anything. */
static enum reason reason_of(const struct guard_event *e)
{
	switch ((enum guard_why)e->why) {
	case GUARD_WHY_PROTOCOL:
		return REASON_PROTOCOL_REFUSED;
	case GUARD_WHY_NO_LISTENER:
		return REASON_GATEWAY_UNAVAILABLE;
	case GUARD_WHY_FLOWS_FULL:
		return REASON_LIMIT_EXCEEDED;
	default:
		return REASON_BYPASS_ATTEMPT;
	}
}

static void on_guard_event(void *ctx, const struct guard_event *e)
{
	struct pods *pods = ctx;
	char word[32];
	struct pods_refusal refusal = {
		.src = addr_of(e->src, e->sport),
		.dst = addr_of(e->dst, e->dport),
		.protocol = proto_str(e->proto, ntohs(e->dport), word),
		.detail = guard_why_str(e->why),
		.reason = reason_of(e),
		.count = 1 + (uint64_t)e->suppressed,
	};

	report(pods, pods_find_ifindex(pods, e->ifindex), &refusal, e->proto);
}

static void on_hostnet_event(void *ctx, const struct hostnet_event *e)
{
	struct pods *pods = ctx;
	char word[32];
	struct pods_refusal refusal = {
		.dst = e->dst,
		.protocol = nflog_protocol_str(e->proto, e->dst.port, word),
		.detail = e->table_full ? "table_full" : "outside",
		.reason = e->table_full             ? REASON_LIMIT_EXCEEDED
			  : e->proto == IPPROTO_TCP ? REASON_BYPASS_ATTEMPT
						    : REASON_PROTOCOL_REFUSED,
		.count = 1 + (uint64_t)e->suppressed,
	};

	report(pods, pods_find_cgroup(pods, e->cgroup), &refusal, e->proto);
}

static void report_packet(struct pods *pods, struct pod *pod, const struct refused_packet *packet,
			  const char *detail)
{
	char word[32];
	struct pods_refusal refusal = {
		.src = packet->src,
		.dst = packet->dst,
		.protocol = nflog_protocol_str(packet->proto, packet->dst.port, word),
		.detail = detail,
		.reason = nflog_reason(packet),
		.count = 1,
	};

	report(pods, pod, &refusal, packet->proto);
}

static void on_pod_refused(void *ctx, const struct refused_packet *packet)
{
	struct pod *pod = ctx;

	report_packet(pod->pods, pod, packet, "refused_in_pod");
}

static void on_pod_rules(void *ctx)
{
	struct pod *pod = ctx;

	pod->dirty = true;
	pods_soon(pod->pods);
}

static struct pod *find_addr(const struct pods *pods, const struct addr *a)
{
	for (struct pod *p = pods->list; p; p = p->next) {
		for (size_t i = 0; i < p->state.links.n_addrs; i++) {
			if (addr_ip_equal(&p->state.links.addrs[i], a))
				return p;
		}
	}
	return NULL;
}

static void on_node_refused(void *ctx, const struct refused_packet *packet)
{
	struct pods *pods = ctx;

	report_packet(pods, find_addr(pods, &packet->src), packet, "refused_by_node");
}

static void on_node_changed(void *ctx)
{
	struct pods *pods = ctx;

	pods->node_dirty = true;
	pods_soon(pods);
}

int around_listen(struct pods *pods, struct pod *pod, int netns_fd)
{
	struct sentinel_hooks hooks = {
		.ctx = pod, .on_rules_changed = on_pod_rules, .on_refused = on_pod_refused};

	int r;

	if (pod->sentinel)
		return 0;
	r = sentinel_new(&pod->sentinel, pods->loop, netns_fd, PLAN_NFLOG_GROUP, &hooks);
	if (r < 0 || !sentinel_hears_refusals(pod->sentinel))
		log_warn(r,
			 "pod '%s/%s': what its rules refuse is counted, but cannot be logged: "
			 "somebody else listens to NFLOG group %u in it",
			 pod->state.pod.ns, pod->state.pod.name, PLAN_NFLOG_GROUP);
	return r;
}

/* ---- one pod ---- */

static bool is_link_local(const struct addr *a)
{
	return a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80;
}

/* Every pod may have the same link-local ones, and no node forwards those. */
static size_t routed_addrs(const struct pod *pod, struct addr ret[static HOST_LINK_MAX_ADDRS])
{
	const struct pod_links *links = &pod->state.links;
	size_t n = 0;

	for (size_t i = 0; i < links->n_addrs; i++) {
		if (!is_link_local(&links->addrs[i]))
			ret[n++] = links->addrs[i];
	}
	return n;
}

static struct guard_pod_at at(const struct pods *pods, const struct pod *pod, size_t link,
			      bool steer)
{
	return (struct guard_pod_at){
		.ifindex = pod->state.links.links[link].ifindex,
		.steer = steer,
		.dhcp = pods->dhcp,
		.addrs = pod->state.links.addrs,
		.n_addrs = pod->state.links.n_addrs,
	};
}

static int add_forward(struct pods *pods, const struct pod *pod, char error[static ENROL_ERROR_MAX])
{
	struct addr addrs[HOST_LINK_MAX_ADDRS];
	size_t n = routed_addrs(pod, addrs);
	int r;

	if (!pods->forward)
		return 0;
	r = forward_add(addrs, n);
	if (r == -ENOENT) { /* somebody took the table away: all of it is put back */
		pods->node_dirty = true;
		pods_soon(pods);
		r = forward_apply(&pods->plan, addrs, n);
	}
	if (r < 0)
		snprintf(error, ENROL_ERROR_MAX,
			 "cannot put its addresses under the node's second guard: %s",
			 strerrordesc_np(-r));
	return r;
}

int around_add(struct pods *pods, struct pod *pod, bool steer, char error[static ENROL_ERROR_MAX])
{
	int r;

	if (!pods->guard)
		return 0;
	for (size_t i = 0; i < pod->state.links.n_links; i++) {
		struct guard_pod_at g = at(pods, pod, i, steer);

		if (g.ifindex == 0)
			continue; /* guard: optional, or it would not have come this far */
		r = guard_add(pods->guard, &g, error);
		if (r < 0 && (pods->guard_required || steer))
			return r;
		if (r < 0)
			log_warn(0, "pod '%s/%s': no guard around it (guard: optional): %s",
				 pod->state.pod.ns, pod->state.pod.name, error);
	}
	return add_forward(pods, pod, error);
}

int around_verify(struct pods *pods, const struct pod *pod)
{
	bool steer = pod->state.backend == REDIRECT_EBPF;

	if (pod->state.by_cgroup)
		return hostnet_verify(pods->hostnet, pod->state.netns);
	for (size_t i = 0; pods->guard && i < pod->state.links.n_links; i++) {
		struct guard_pod_at g = at(pods, pod, i, steer);
		int r = g.ifindex ? guard_verify(pods->guard, &g) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

void around_remove(struct pods *pods, struct pod *pod)
{
	struct addr addrs[HOST_LINK_MAX_ADDRS];
	size_t n = routed_addrs(pod, addrs);

	sentinel_free(pod->sentinel);
	pod->sentinel = NULL;
	if (pod->state.by_cgroup && pods->hostnet)
		hostnet_remove(pods->hostnet, pod->state.ino);
	/* An address may be another pod's by now: a pod that is made anew can get the same. */
	for (size_t i = 0; pods->forward && i < n; i++) {
		struct pod *other = find_addr(pods, &addrs[i]);

		if (!other || other == pod)
			forward_remove(&addrs[i], 1);
	}
	for (size_t i = 0; pods->guard && i < pod->state.links.n_links; i++) {
		uint32_t ifindex = pod->state.links.links[i].ifindex;
		struct pod *other = ifindex ? pods_find_ifindex(pods, ifindex) : NULL;

		if (ifindex && (!other || other == pod))
			guard_remove(pods->guard, ifindex);
	}
}

const char *around_name(const struct pods *pods, const struct pod *pod)
{
	if (pod->state.by_cgroup)
		return "cgroup";
	if (!pods->guard || around_verify((struct pods *)(uintptr_t)pods, pod) < 0)
		return "none";
	for (size_t i = 0; i < pod->state.links.n_links; i++) {
		if (pod->state.links.links[i].ifindex == 0)
			return "none";
	}
	return pod->state.links.n_links ? guard_name(pods->guard) : "none";
}

/* ---- all of them ---- */

static size_t all_addrs(const struct pods *pods, struct addr **ret)
{
	struct addr *v = calloc(pods->n * HOST_LINK_MAX_ADDRS + 1, sizeof(*v));
	size_t n = 0;

	for (struct pod *p = pods->list; v && p; p = p->next)
		n += routed_addrs(p, v + n);
	*ret = v;
	return n;
}

static int apply_forward(struct pods *pods)
{
	OWNED_MEM struct addr *addrs = NULL;
	size_t n = all_addrs(pods, &addrs);

	return addrs ? forward_apply(&pods->plan, addrs, n) : -ENOMEM;
}

/* A former agent's table stays as it is until its pods are known again. */
static bool forward_is_there(void)
{
	uint64_t packets, bytes;

	return forward_counts(&packets, &bytes) == 0;
}

static int verify_forward(struct pods *pods)
{
	OWNED_MEM struct addr *addrs = NULL;
	size_t n = all_addrs(pods, &addrs);

	return addrs ? forward_verify(&pods->plan, addrs, n) : -ENOMEM;
}

void around_settle(struct pods *pods)
{
	OWNED_MEM uint32_t *links = calloc(pods->n * HOST_LINK_MAX_LINKS + 1, sizeof(*links));
	OWNED_MEM uint64_t *cgroups = calloc(pods->n + 1, sizeof(*cgroups));
	size_t n_links = 0, n_cgroups = 0;

	if (!links || !cgroups)
		return;
	for (struct pod *p = pods->list; p; p = p->next) {
		for (size_t i = 0; i < p->state.links.n_links; i++)
			links[n_links++] = p->state.links.links[i].ifindex;
		if (p->state.by_cgroup)
			cgroups[n_cgroups++] = p->state.ino;
	}
	if (pods->guard && !pods->strangers)
		guard_keep_only(pods->guard, links, n_links);
	if (pods->hostnet && !pods->strangers)
		hostnet_keep_only(pods->hostnet, cgroups, n_cgroups);
	if (pods->forward) {
		int r = apply_forward(pods);

		if (r < 0)
			log_err(r, "cannot put the node's second guard in place");
	}
}

int around_set_cluster(struct pods *pods)
{
	int r = pods->guard ? guard_set_cluster(pods->guard, &pods->plan) : 0;

	if (r < 0)
		log_err(r, "the guard keeps the old cluster networks");
	if (pods->hostnet && hostnet_set_cluster(pods->hostnet, &pods->plan) < 0)
		r = log_err(-EIO, "pods on the host's network keep the old cluster networks");
	if (pods->forward) {
		int f = apply_forward(pods);

		if (f < 0)
			r = log_err(f, "the node's second guard keeps the old cluster networks");
	}
	return r;
}

static void repaired(struct pods *pods, const char *what, int r)
{
	if (r < 0) {
		log_err(r, "cannot put the node's %s back", what);
		return;
	}
	pods->repairs++;
	log_warn(0, "the node's %s not as planned and has been put back", what);
}

void around_repair(struct pods *pods)
{
	int r;

	if (pods->forward && verify_forward(pods) == -ESTALE)
		repaired(pods, "second guard was", apply_forward(pods));
	if (pods->steers) {
		r = steer_apply(&pods->steer);
		if (r != 0)
			repaired(pods, "route for steered packets was", r);
	}
}

/* ---- counting ---- */

void pods_stats(const struct pods *pods, struct pods_stats *ret)
{
	uint64_t packets = 0, bytes;

	if (pods->forward && forward_counts(&packets, &bytes) < 0)
		packets = 0;
	*ret = (struct pods_stats){.repairs = pods->repairs, .forward_dropped = packets};
}

struct each_dropped {
	struct pods *pods;
	void (*each)(void *ctx, const struct pods_dropped *d);
	void *ctx;
};

static void on_count(void *ctx, const struct guard_count_key *key, const struct guard_count *count)
{
	const struct each_dropped *to = ctx;
	const struct pod *pod = pods_find_ifindex(to->pods, key->ifindex);
	char word[32];
	struct pods_dropped d = {
		.ns = pod ? pod->state.pod.ns : "",
		.pod = pod ? pod->state.pod.name : "",
		.protocol = proto_str(key->proto, 0, word),
		.why = guard_why_str(key->why),
		.packets = count->packets,
		.bytes = count->bytes,
	};

	to->each(to->ctx, &d);
}

void pods_each_dropped(struct pods *pods, void (*each)(void *ctx, const struct pods_dropped *d),
		       void *ctx)
{
	struct each_dropped to = {pods, each, ctx};
	int r = pods->guard ? guard_counts(pods->guard, on_count, &to) : 0;

	if (r < 0)
		log_debug("cannot read the guard's counters: %s", strerrordesc_np(-r));
}

/* ---- opening ---- */

static int own_netns(void)
{
	return netns_open("/proc/thread-self/ns/net");
}

static int open_guard(struct pods *pods, const struct pods_config *config)
{
	struct guard_hooks hooks = {.ctx = pods, .on_event = on_guard_event};
	int r;

	if (!config->guard)
		return 0;
	pods->guard_required = config->guard_required;
	pods->dhcp = config->dhcp;
	r = guard_open(&pods->guard, pods->loop, config->guard, &pods->plan, &hooks);
	if (r < 0 && config->guard_required)
		return log_err(0, "no guard can be put around pods: set guard: optional to do "
				  "without, and a root process in a pod can get around the rules"),
		       r;
	if (r < 0)
		log_warn(0,
			 "no guard stands around pods (guard: optional): a root process in a pod "
			 "can get around the rules");
	r = forward_is_there() ? 0 : apply_forward(pods);
	if (r < 0 && config->guard_required)
		return log_err(r, "the node's second guard (nf_tables, forward) cannot be made");
	if (r < 0)
		log_warn(r, "the node's second guard cannot be made (guard: optional), ignoring");
	pods->forward = r == 0;
	return 0;
}

static int open_node_sentinel(struct pods *pods)
{
	struct sentinel_hooks hooks = {
		.ctx = pods,
		.on_rules_changed = on_node_changed,
		.on_links_changed = on_node_changed,
		.on_refused = on_node_refused,
	};
	OWNED_FD int own = own_netns();

	if (!pods->guard)
		return 0;
	return own < 0 ? own
		       : sentinel_new(&pods->node, pods->loop, own, FORWARD_NFLOG_GROUP, &hooks);
}

static void open_hostnet(struct pods *pods, const struct pods_config *config)
{
	struct hostnet_config hc = {.pin_dir = config->guard->pin_dir,
				    .capture_port = PLAN_CAPTURE_PORT};
	struct hostnet_hooks hooks = {.ctx = pods, .on_event = on_hostnet_event};

	if (hostnet_open(&pods->hostnet, pods->loop, &hc, &pods->plan, &hooks) < 0)
		pods->hostnet = NULL;
	origins_use_hostnet(pods->origins, pods->hostnet);
}

static void close_both(int fds[2])
{
	owned_close(&fds[0]);
	owned_close(&fds[1]);
}

/* What the ebpf back end needs of the node, and what pods on the host's network do. */
static int open_shared(struct pods *pods, const struct pods_config *config)
{
	int fds[2] = {-1, -1}, r;

	if (!config->guard || !config->steer || !pods->hooks.listen_shared)
		return -EOPNOTSUPP;
	r = origins_new(&pods->origins, PLAN_CAPTURE_PORT);
	if (r < 0)
		return r;
	r = steer_listen(PLAN_CAPTURE_PORT, fds);
	if (r < 0)
		return log_warn(r, "cannot listen on 127.0.0.1:%u in the node's namespace",
				PLAN_CAPTURE_PORT);
	for (size_t i = 0; i < ARRAY_SIZE(fds) && r >= 0; i++) {
		if (fds[i] >= 0 && pods->guard && guard_can_steer(pods->guard))
			r = guard_steer_to(pods->guard, fds[i]);
	}
	if (r < 0) {
		close_both(fds);
		return log_warn(r, "the guard cannot steer to the listener that pods share");
	}
	open_hostnet(pods, config);
	r = pods->hooks.listen_shared(pods->hooks.ctx, pods->origins, fds, &pods->shared);
	return r < 0 ? log_warn(r, "the proxy cannot take the listener that pods share"), r : 0;
}

static int open_ebpf(struct pods *pods, const struct pods_config *config)
{
	int r = open_shared(pods, config);

	if (r < 0)
		return r;
	if (!pods->guard || !guard_can_steer(pods->guard))
		return -EOPNOTSUPP;
	pods->steer = *config->steer;
	r = steer_apply(&pods->steer);
	if (r < 0)
		return log_warn(r,
				"cannot make rule %u and table %u for steered packets (mark %#x): "
				"redirect.rulePriority, routeTable and mark choose others",
				pods->steer.priority, pods->steer.table, pods->steer.mark),
		       r;
	pods->steers = true;
	return 0;
}

static int probe_way(struct pods *pods, const struct pods_config *config, enum redirect_backend way)
{
	switch (way) {
	case REDIRECT_EBPF:
		return open_ebpf(pods, config);
	case REDIRECT_NFTABLES:
		return redirect_nft.probe();
	case REDIRECT_IPTABLES:
		return redirect_ipt.probe();
	case REDIRECT_AUTO:
	case REDIRECT_BACKEND_N_:
		break;
	}
	return -EOPNOTSUPP;
}

/* `auto` keeps all that work, in order: a pod that the first cannot capture is tried with the next.
 */
static int find_ways(struct pods *pods, const struct pods_config *config)
{
	enum redirect_backend want = config->backend;

	for (unsigned way = REDIRECT_EBPF; way < REDIRECT_BACKEND_N_; way++) {
		int r;

		if (want != REDIRECT_AUTO && want != way) {
			/* Pods on the host's network need the listener whatever the back end. */
			if (way == REDIRECT_EBPF)
				open_shared(pods, config);
			continue;
		}
		/* Asked only when nothing before it works: its probe starts processes. */
		if (way == REDIRECT_IPTABLES && pods->n_ways > 0 && want == REDIRECT_AUTO &&
		    pods->ways[pods->n_ways - 1] == REDIRECT_NFTABLES)
			continue;
		r = probe_way(pods, config, way);
		if (r == 0)
			pods->ways[pods->n_ways++] = way;
		else
			log_info("redirect backend '%s' does not work here: %s",
				 redirect_backend_str(way), strerrordesc_np(-r));
	}
	if (pods->n_ways == 0)
		return log_err(-EOPNOTSUPP, "redirect backend '%s' does not work here",
			       redirect_backend_str(want));
	log_info("redirect backend: '%s'%s", redirect_backend_str(pods->ways[0]),
		 want == REDIRECT_AUTO ? ", the first that works here" : "");
	return 0;
}

int around_open(struct pods *pods, const struct pods_config *config)
{
	int r = recent_new(&pods->said, SAY_MAX, SAY_FOR_MS);

	if (r < 0)
		return log_err(r, "cannot prepare for pods");
	r = open_guard(pods, config);
	if (r == 0)
		r = find_ways(pods, config);
	if (r < 0)
		return r;
	r = open_node_sentinel(pods);
	if (r < 0)
		log_warn(r, "cannot listen to changes of the node's rules: they are looked at from "
			    "time to time");
	return 0;
}

void around_close(struct pods *pods)
{
	sentinel_free(pods->node);
	if (pods->shared)
		pods->hooks.unlisten(pods->hooks.ctx, pods->shared);
	guard_close(pods->guard);
	recent_free(pods->said);
}
