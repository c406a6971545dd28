/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/owned.h"
#include "pod/inside.h"
#include "pod/origins.h"
#include "pod/pods_own.h"
#include "pod/proof.h"

/* What is lost once is sent again after a second (RFC 6298 2.1). */
#define PROOF_TIMEOUT_MS 2000
#define NO_EBPF_MS       60000 /* each pod that tries would wait for the proof in vain */

_Static_assert(INSIDE_ERROR_MAX <= ENROL_ERROR_MAX, "its text is the answer");
_Static_assert(GUARD_ERROR_MAX <= ENROL_ERROR_MAX, "its text is the answer");
_Static_assert(HOST_LINK_ERROR_MAX <= ENROL_ERROR_MAX, "its text is the answer");

static const struct redirector *redirector_of(enum redirect_backend way)
{
	return way == REDIRECT_IPTABLES ? &redirect_ipt : &redirect_nft;
}

static bool has_rules_inside(enum redirect_backend way)
{
	return way == REDIRECT_NFTABLES || way == REDIRECT_IPTABLES;
}

static void stop_listening(struct pods *pods, struct pod *pod)
{
	if (pod->listening)
		pods->hooks.unlisten(pods->hooks.ctx, pod->listener);
	pod->listening = false;
}

/* ---- proving ---- */

static bool is_cluster(const struct plan *plan, const struct addr *a)
{
	const struct plan_range *v = addr_is_v4(a) ? plan->v4 : plan->v6;
	size_t n = addr_is_v4(a) ? plan->n_v4 : plan->n_v6;

	for (size_t i = 0; i < n; i++) {
		if (memcmp(a->ip, v[i].from, 16) >= 0 && memcmp(a->ip, v[i].to, 16) <= 0)
			return true;
	}
	return false;
}

static int prove_one(struct pods *pods, int netns_fd, const struct addr *dst, unsigned timeout_ms)
{
	int r;

	if (is_cluster(&pods->plan, dst))
		return -ENETUNREACH; /* it would be looked for in the cluster: nothing can be proved
				      */
	r = proof_try(netns_fd, dst, pods->proof.token, timeout_ms);
	return r == -EHOSTUNREACH && !addr_is_v4(dst) ? -ENETUNREACH : r;
}

/* One family that works is enough for a pod that has only that; none that fails may be. */
static int prove(struct pods *pods, const struct pod *pod, int netns_fd, const char *way,
		 char error[static ENROL_ERROR_MAX])
{
	/* Nothing of a CNI's can swallow what stays in the pod: there a machine is slow, no more.
	 */
	unsigned timeout_ms = strcmp(way, "ebpf") == 0 ? PROOF_TIMEOUT_MS : 2 * PROOF_TIMEOUT_MS;
	const struct addr *const dsts[] = {&pods->proof.v4, &pods->proof.v6};

	for (size_t i = 0; pods->proves && i < ARRAY_SIZE(dsts); i++) {
		int r = prove_one(pods, netns_fd, dsts[i], timeout_ms);

		if (r == 0)
			continue;
		if (r == -ENETUNREACH) {
			log_debug("pod '%s/%s': no way out to prove over IPv%c", pod->state.pod.ns,
				  pod->state.pod.name, i ? '6' : '4');
			continue;
		}
		snprintf(error, ENROL_ERROR_MAX,
			 "%s: a connection of its own over IPv%c did not reach the agent: %s%s",
			 way, i ? '6' : '4', strerrordesc_np(-r),
			 r == -ETIMEDOUT ? " (do INPUT rules of the CNI drop what is delivered to "
					   "the node?)"
					 : "");
		return r;
	}
	return 0;
}

/* ---- the ways ---- */

static int remove_rules(enum redirect_backend way, int netns_fd, char error[static ENROL_ERROR_MAX])
{
	return has_rules_inside(way) ? inside_remove(netns_fd, redirector_of(way), error) : 0;
}

/* Rules inside take what the guard would steer. sluice-init leaves them where no agent was yet:
 * which ones is not written down anywhere. Those of iptables are looked for, by some processes,
 * only when the proof says that something is in the way.
 */
static int prove_without_rules(struct pods *pods, struct pod *pod, int netns_fd,
			       char error[static ENROL_ERROR_MAX])
{
	int r = pod->state.backend == REDIRECT_IPTABLES ? -ECONNREFUSED : 0;

	if (inside_remove(netns_fd, &redirect_nft, error) < 0)
		log_debug("%s", error); /* a kernel without nf_tables has none */
	if (r == 0)
		r = prove(pods, pod, netns_fd, "ebpf", error);
	if (r != -ECONNREFUSED)
		return r;
	r = inside_remove(netns_fd, &redirect_ipt, error);
	return r < 0 ? r : prove(pods, pod, netns_fd, "ebpf", error);
}

static bool has_host_ends(const struct pod_links *links)
{
	for (size_t i = 0; i < links->n_links; i++) {
		if (links->links[i].ifindex == 0)
			return false;
	}
	return links->n_links > 0;
}

/* The guard steers. From the first step on nothing gets out, so rules of another way may go before
 * the proof, which they would take for themselves.
 */
static int hold_outside(struct pods *pods, struct pod *pod, int netns_fd,
			char error[static ENROL_ERROR_MAX])
{
	int r;

	if (!pods->steers) {
		snprintf(error, ENROL_ERROR_MAX, "ebpf: not possible on this node");
		return -EOPNOTSUPP;
	}
	if (!has_host_ends(&pod->state.links)) {
		snprintf(error, ENROL_ERROR_MAX,
			 "ebpf: it has an interface without an end in the node's namespace, so "
			 "rules inside are needed (redirect.backend: auto or nftables)");
		return -EOPNOTSUPP;
	}
	r = origins_set(pods->origins, pod->state.links.addrs, pod->state.links.n_addrs, pod->id);
	if (r < 0) {
		snprintf(error, ENROL_ERROR_MAX, "ebpf: cannot keep its addresses: %s",
			 r == -EADDRINUSE ? "another pod has one of them" : strerrordesc_np(-r));
		return r;
	}
	r = around_add(pods, pod, true, error);
	if (r == 0)
		r = prove_without_rules(pods, pod, netns_fd, error);
	if (r < 0) {
		origins_remove(pods->origins, pod->id);
		return r;
	}
	stop_listening(pods, pod);
	return 0;
}

static int take_listeners(struct pods *pods, struct pod *pod, int fds[2],
			  char error[static ENROL_ERROR_MAX])
{
	int r = pods->hooks.listen(pods->hooks.ctx, pod->id, fds, &pod->listener);

	if (r < 0) {
		snprintf(error, ENROL_ERROR_MAX, "the proxy cannot take its listeners: %s",
			 strerrordesc_np(-r));
		return r;
	}
	pod->listening = true;
	return 0;
}

/* Rules in the pod. A guard that steers goes on until they are there. */
static int hold_inside(struct pods *pods, struct pod *pod, enum redirect_backend way, int netns_fd,
		       char error[static ENROL_ERROR_MAX])
{
	bool steered = pod->state.backend == REDIRECT_EBPF;
	const struct redirector *how = redirector_of(way);
	int fds[2] = {-1, -1}, r = 0;

	if (!steered)
		r = around_add(pods, pod, false, error);
	if (r < 0) {
		char ignored[INSIDE_ERROR_MAX];

		inside_close(netns_fd, how, &pods->plan, ignored);
		return r;
	}
	stop_listening(pods, pod); /* in the way of the new ones */
	r = inside_enrol(netns_fd, how, &pods->plan, fds, &pod->state.cookie, error);
	if (r == 0)
		r = take_listeners(pods, pod, fds, error);
	if (r == 0 && steered)
		r = around_add(pods, pod, false, error);
	if (r == 0)
		r = prove(pods, pod, netns_fd, how->name, error);
	if (r < 0)
		return r;
	if (pods->origins)
		origins_remove(pods->origins, pod->id);
	if (pod->state.backend != way)
		r = remove_rules(pod->state.backend, netns_fd, error);
	return r;
}

static int hold_by(struct pods *pods, struct pod *pod, enum redirect_backend way, int netns_fd,
		   char error[static ENROL_ERROR_MAX])
{
	uint64_t now = loop_now_ms(pods->loop);
	int r;

	if (way != REDIRECT_EBPF)
		return hold_inside(pods, pod, way, netns_fd, error);
	if (pods->n_ways > 1 && now < pods->no_ebpf_until_ms) {
		snprintf(error, ENROL_ERROR_MAX, "ebpf: did not reach the agent a moment ago");
		return -ETIMEDOUT;
	}
	r = hold_outside(pods, pod, netns_fd, error);
	if (r == -ETIMEDOUT)
		pods->no_ebpf_until_ms = now + NO_EBPF_MS;
	return r;
}

static int hold_cgroup(struct pods *pods, struct pod *pod, char error[static ENROL_ERROR_MAX])
{
	char why[HOSTNET_ERROR_MAX];
	uint64_t id;
	int r;

	if (!pods->hostnet)
		return pods_refuse(
			&pod->state.pod, -EOPNOTSUPP, error,
			"pods on the host's network need eBPF on cgroups: the agent's log "
			"says at its start why that does not work here");
	r = origins_set_cgroup(pods->origins, pod->state.ino, pod->id);
	if (r == 0)
		r = hostnet_add(pods->hostnet, pod->state.netns, &id, why);
	else
		snprintf(why, sizeof(why), "%s", strerrordesc_np(-r));
	if (r < 0) {
		origins_remove(pods->origins, pod->id);
		return pods_refuse(&pod->state.pod, r, error, "%.200s", why);
	}
	pod->state.backend = REDIRECT_EBPF;
	pod->held = true;
	pod->failed = false;
	return 0;
}

int hold(struct pods *pods, struct pod *pod, int netns_fd, char error[static ENROL_ERROR_MAX])
{
	const struct pod_name *name = &pod->state.pod;
	char why[ENROL_ERROR_MAX] = "";
	int r;

	if (pod->state.by_cgroup)
		return hold_cgroup(pods, pod, error);
	r = links_look(pods, pod, netns_fd, why);
	if (r < 0) {
		char ignored[INSIDE_ERROR_MAX];

		inside_close(netns_fd, redirector_of(pods->ways[pods->n_ways - 1]), &pods->plan,
			     ignored);
		return pods_refuse(name, r, error, "%.180s; it reaches nothing outside", why);
	}
	r = -EOPNOTSUPP;
	for (size_t i = 0; i < pods->n_ways && r < 0; i++) {
		r = hold_by(pods, pod, pods->ways[i], netns_fd, why);
		if (r == 0)
			pod->state.backend = pods->ways[i];
		else if (i + 1 < pods->n_ways)
			log_warn(0, "pod '%s/%s': %s; taking '%s'", name->ns, name->name, why,
				 redirect_backend_str(pods->ways[i + 1]));
	}
	if (r < 0)
		return pods_refuse(
			name, r, error,
			"%.150s; rules that are in place stay: it reaches nothing outside", why);
	around_listen(pods, pod, netns_fd);
	pod->held = true;
	pod->failed = false;
	return 0;
}

/* ---- afterwards ---- */

static bool listener_is_alive(const struct pods *pods, const struct pod *pod)
{
	if (!has_rules_inside(pod->state.backend))
		return true;
	return pod->listening &&
	       (!pods->hooks.is_alive || pods->hooks.is_alive(pods->hooks.ctx, pod->listener));
}

/* The listeners were destroyed under us: others take their place. */
static int listen_again(struct pods *pods, struct pod *pod, int netns_fd,
			char error[static ENROL_ERROR_MAX])
{
	int fds[2] = {-1, -1}, r;

	stop_listening(pods, pod);
	r = inside_enrol(netns_fd, redirector_of(pod->state.backend), &pods->plan, fds,
			 &pod->state.cookie, error);
	return r < 0 ? r : take_listeners(pods, pod, fds, error);
}

static void say_repaired(struct pods *pods, struct pod *pod, const char *what)
{
	pod->repairs++;
	pods->repairs++;
	log_warn(0, "pod '%s/%s': its %s not as planned and %s been put back", pod->state.pod.ns,
		 pod->state.pod.name, what, strstr(what, " was") ? "has" : "have");
}

/* Guards around the links that are there now, and whose their addresses are; what is captured
 * already goes on.
 */
static int keep_links(struct pods *pods, struct pod *pod, char error[static ENROL_ERROR_MAX])
{
	const struct pod_links *links = &pod->state.links;
	bool steered = pod->state.backend == REDIRECT_EBPF;
	int r = 0;

	if (steered)
		r = origins_set(pods->origins, links->addrs, links->n_addrs, pod->id);
	if (r < 0) {
		snprintf(error, ENROL_ERROR_MAX, "cannot keep its addresses: %s",
			 strerrordesc_np(-r));
		return r;
	}
	return around_add(pods, pod, steered, error);
}

/* Something came. */
static int guard_links(struct pods *pods, struct pod *pod, int netns_fd,
		       char error[static ENROL_ERROR_MAX])
{
	if (pod->state.backend == REDIRECT_EBPF && !has_host_ends(&pod->state.links))
		return hold(pods, pod, netns_fd, error); /* rules inside take what nobody steers */
	return keep_links(pods, pod, error);
}

static void say_what_came(const struct pod *pod, const struct pod_links *before)
{
	const struct pod_links *links = &pod->state.links;
	char text[ADDR_TEXT];

	for (size_t i = 0; i < links->n_links; i++) {
		if (!pod_links_has_link(before, &links->links[i]))
			log_info("pod '%s/%s' has another interface by now, '%s': it is guarded "
				 "like the first",
				 pod->state.pod.ns, pod->state.pod.name, links->links[i].name);
	}
	for (size_t i = 0; i < links->n_addrs; i++) {
		if (!pod_links_has_addr(before, &links->addrs[i]))
			log_info("pod '%s/%s' has another address by now: %s", pod->state.pod.ns,
				 pod->state.pod.name, addr_print_ip(&links->addrs[i], text));
	}
}

/* A pod may get another interface while it lives (Multus, a second network), or lose one: its
 * addresses may be another pod's then.
 */
int hold_links(struct pods *pods, struct pod *pod, int netns_fd, char error[static ENROL_ERROR_MAX])
{
	struct pod_links before = pod->state.links;
	int r = links_look(pods, pod, netns_fd, error);

	if (r < 0)
		return r;
	if (r > 0)
		r = guard_links(pods, pod, netns_fd, error);
	else if (pod->state.links.n_links > 0 && pod_links_are_more(&before, &pod->state.links))
		r = keep_links(pods, pod, error);
	else
		return 0;
	if (r < 0) {
		pod->state.links = before; /* the next time it is news again */
		return r;
	}
	say_what_came(pod, &before);
	pods_save(pods, pod);
	return 1;
}

int hold_repair(struct pods *pods, struct pod *pod, int netns_fd,
		char error[static ENROL_ERROR_MAX])
{
	int r, done = 0;

	r = hold_links(pods, pod, netns_fd, error);
	if (r < 0)
		return r;
	if (around_verify(pods, pod) < 0) {
		r = pod->state.by_cgroup
			    ? hold_cgroup(pods, pod, error)
			    : around_add(pods, pod, pod->state.backend == REDIRECT_EBPF, error);
		if (r < 0)
			return r;
		say_repaired(pods, pod, "guard was");
		done = 1;
	}
	if (!has_rules_inside(pod->state.backend))
		return done;
	r = inside_repair(netns_fd, redirector_of(pod->state.backend), &pods->plan, error);
	if (r < 0)
		return r;
	if (r > 0) {
		say_repaired(pods, pod, "rules were");
		done = 1;
	}
	if (!listener_is_alive(pods, pod)) {
		r = listen_again(pods, pod, netns_fd, error);
		if (r < 0)
			return r;
		say_repaired(pods, pod, "listeners were");
		done = 1;
	}
	return done;
}

int hold_again(struct pods *pods, struct pod *pod, int netns_fd, char error[static ENROL_ERROR_MAX])
{
	int r = hold_repair(pods, pod, netns_fd, error);

	if (r >= 0 && pod->state.backend == REDIRECT_EBPF && !pod->state.by_cgroup)
		r = prove_without_rules(pods, pod, netns_fd, error);
	return r < 0 ? r : 0;
}

int hold_verify(struct pods *pods, struct pod *pod, int netns_fd,
		char error[static ENROL_ERROR_MAX])
{
	int r = around_verify(pods, pod);

	if (r < 0) {
		snprintf(error, ENROL_ERROR_MAX, "its guard is not in force as it should be: %s",
			 strerrordesc_np(-r));
		return r;
	}
	if (!has_rules_inside(pod->state.backend))
		return 0;
	if (!listener_is_alive(pods, pod)) {
		snprintf(error, ENROL_ERROR_MAX, "its listeners are gone");
		return -ESTALE;
	}
	return inside_verify(netns_fd, redirector_of(pod->state.backend), &pods->plan, error);
}

int hold_apply(struct pods *pods, struct pod *pod, int netns_fd, char error[static ENROL_ERROR_MAX])
{
	return inside_repair(netns_fd, redirector_of(pod->state.backend), &pods->plan, error);
}

int hold_end(struct pods *pods, struct pod *pod, int netns_fd, char error[static ENROL_ERROR_MAX])
{
	int r = netns_fd < 0 ? 0 : remove_rules(pod->state.backend, netns_fd, error);

	if (r < 0)
		return r;
	if (pods->origins) {
		origins_remove(pods->origins, pod->id);
		if (pods->hooks.end)
			pods->hooks.end(pods->hooks.ctx, pod->id);
	}
	around_remove(pods, pod);
	pod->held = false;
	return 0;
}
