/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "guard/forward.h"
#include "pod/origins.h"
#include "pod/pods_own.h"

static void on_pod_changed(void *ctx)
{
	struct pod *pod = ctx;

	pod->dirty = true;
	pods_soon(pod->pods);
}

static void on_node_changed(void *ctx)
{
	struct pods *pods = ctx;

	pods->node_dirty = true;
	pods_soon(pods);
}

int around_listen(struct pods *pods, struct pod *pod, int netns_fd)
{
	bool rules = pod->state.backend != REDIRECT_EBPF;
	struct sentinel_hooks hooks = {
		.ctx = pod,
		.on_links_changed = pods->guard ? on_pod_changed : NULL,
		.on_rules_changed = rules ? on_pod_changed : NULL,
		.on_refused = rules ? refusals_on_pod : NULL,
	};
	int r;

	if (pod->sentinel && pod->hears_rules == rules)
		return 0;
	sentinel_free(pod->sentinel);
	pod->sentinel = NULL;
	pod->hears_rules = rules;
	r = sentinel_new(&pod->sentinel, pods->loop, netns_fd, PLAN_NFLOG_GROUP, &hooks);
	if (r < 0 && !rules)
		log_warn(r,
			 "pod '%s/%s': cannot hear of interfaces that it is given later: they are "
			 "found within ten seconds",
			 pod->state.pod.ns, pod->state.pod.name);
	else if (rules && (r < 0 || !sentinel_hears_refusals(pod->sentinel)))
		log_warn(r,
			 "pod '%s/%s': what its rules refuse is counted, but cannot be logged: "
			 "somebody else listens to NFLOG group %u in it",
			 pod->state.pod.ns, pod->state.pod.name, PLAN_NFLOG_GROUP);
	return r;
}

static int own_netns(void)
{
	return netns_open("/proc/thread-self/ns/net");
}

/* A former agent's table stays as it is until its pods are known again. */
static bool forward_is_there(void)
{
	uint64_t packets, bytes;

	return forward_counts(&packets, &bytes) == 0;
}

static int open_guard(struct pods *pods, const struct pods_config *config)
{
	struct guard_hooks hooks = {.ctx = pods, .on_event = refusals_on_guard};
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
	r = forward_is_there() ? 0 : around_apply_forward(pods);
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
		.on_refused = refusals_on_node,
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
	struct hostnet_hooks hooks = {.ctx = pods, .on_event = refusals_on_hostnet};

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
	int r = refusals_open(pods);

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
