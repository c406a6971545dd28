/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "guard/forward.h"
#include "pod/origins.h"
#include "pod/pods_own.h"

/* ---- one pod ---- */

/* Every pod may have the same link-local ones, and no node forwards those. */
static size_t routed_addrs(const struct pod *pod, struct addr ret[static HOST_LINK_MAX_ADDRS])
{
	const struct pod_links *links = &pod->state.links;
	size_t n = 0;

	for (size_t i = 0; i < links->n_addrs; i++) {
		if (!addr_is_link_local(&links->addrs[i]))
			ret[n++] = links->addrs[i];
	}
	return n;
}

static struct guard_pod_at at(const struct pods *pods, const struct pod *pod, size_t link,
			      bool steer)
{
	const struct host_link *l = &pod->state.links.links[link];
	struct guard_pod_at ret = {
		.ifindex = l->ifindex,
		.steer = steer,
		.dhcp = pods->dhcp,
		.addrs = pod->state.links.addrs,
		.n_addrs = pod->state.links.n_addrs,
	};

	memcpy(ret.mac, l->mac, sizeof(ret.mac));
	return ret;
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
		return pods->hostnet ? hostnet_verify(pods->hostnet, pod->state.netns)
				     : -EOPNOTSUPP;
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
		struct pod *other = pods_find_addr(pods, &addrs[i]);

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

int around_apply_forward(struct pods *pods)
{
	OWNED_MEM struct addr *addrs = NULL;
	size_t n = all_addrs(pods, &addrs);

	return addrs ? forward_apply(&pods->plan, addrs, n) : -ENOMEM;
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
		int r = around_apply_forward(pods);

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
		int f = around_apply_forward(pods);

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
		repaired(pods, "second guard was", around_apply_forward(pods));
	if (pods->steers) {
		r = steer_apply(&pods->steer);
		if (r != 0)
			repaired(pods, "route for steered packets was", r);
	}
}
