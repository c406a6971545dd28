/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/pods.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "pod/inside.h"
#include "pod/netns_path.h"
#include "pod/origins.h"
#include "pod/pods_own.h"

#define TICK_MS      1000
#define SOON_MS      10 /* after the first news: a transaction brings several */
#define VERIFY_TICKS 10 /* every pod is looked at once in so many ticks */
#define WAIT_MIN_MS  100
#define WAIT_MAX_MS  5000 /* between two repairs of a pod that undoes them; its guard holds */
#define OPEN_LOOK_MS 50   /* at an interface that somebody else is still configuring */

/* ---- the list ---- */

struct pod *pods_find(const struct pods *pods, const struct pod_name *name)
{
	for (struct pod *p = pods->list; p; p = p->next) {
		if (!p->ghost && strcmp(p->state.pod.ns, name->ns) == 0 &&
		    strcmp(p->state.pod.name, name->name) == 0)
			return p;
	}
	return NULL;
}

struct pod *pods_find_netns(const struct pods *pods, dev_t dev, ino_t ino)
{
	for (struct pod *p = pods->list; p; p = p->next) {
		if (p->state.dev == dev && p->state.ino == ino)
			return p;
	}
	return NULL;
}

struct pod *pods_find_ifindex(const struct pods *pods, uint32_t ifindex)
{
	for (struct pod *p = pods->list; p; p = p->next) {
		for (size_t i = 0; i < p->state.links.n_links; i++) {
			if (p->state.links.links[i].ifindex == ifindex)
				return p;
		}
	}
	return NULL;
}

struct pod *pods_find_cgroup(const struct pods *pods, uint64_t id)
{
	for (struct pod *p = pods->list; p; p = p->next) {
		if (p->state.by_cgroup && p->state.ino == id)
			return p;
	}
	return NULL;
}

struct pod *pods_find_addr(const struct pods *pods, const struct addr *a)
{
	for (struct pod *p = pods->list; p; p = p->next) {
		for (size_t i = 0; i < p->state.links.n_addrs; i++) {
			if (addr_ip_equal(&p->state.links.addrs[i], a))
				return p;
		}
	}
	return NULL;
}

int pod_new(struct pods *pods, struct pod_state *state, struct pod **ret)
{
	struct pod *pod = calloc(1, sizeof(*pod));
	int r;

	if (!pod)
		return -ENOMEM;
	r = identity_new_spiffe(&pod->id, pods->trust_domain, state->pod.ns, state->pod.name,
				state->service_account);
	if (r < 0) {
		free(pod);
		return r;
	}
	pod->pods = pods;
	pod->serial = ++pods->serials;
	pod->state = *state;
	*state = (struct pod_state){0};
	*ret = pod;
	return 0;
}

void pods_push(struct pods *pods, struct pod *pod)
{
	pod->next = pods->list;
	pods->list = pod;
	pods->n++;
}

/* Nobody is told who it is any more. */
static void stop_serving(struct pods *pods, struct pod *pod)
{
	if (pod->listening)
		pods->hooks.unlisten(pods->hooks.ctx, pod->listener);
	pod->listening = false;
	if (pods->origins) {
		origins_remove(pods->origins, pod->id);
		if (pods->hooks.end && !pods->stopping)
			pods->hooks.end(pods->hooks.ctx, pod->id);
	}
	sentinel_free(pod->sentinel);
	pod->sentinel = NULL;
}

void pods_release(struct pods *pods, struct pod *pod)
{
	for (struct pod **p = &pods->list; *p; p = &(*p)->next) {
		if (*p == pod) {
			*p = pod->next;
			pods->n--;
			break;
		}
	}
	stop_serving(pods, pod);
	identity_unref(pod->id);
	pod_state_done(&pod->state);
	free(pod);
}

void pod_become_ghost(struct pods *pods, struct pod *pod)
{
	stop_serving(pods, pod);
	pod->ghost = true;
	pod->held = false;
}

bool pod_path_leads_to(const char *path, dev_t dev, ino_t ino)
{
	struct stat st;

	return stat(path, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

int pod_open_netns(const struct pod_state *state)
{
	OWNED_FD int fd = netns_open(state->netns);
	dev_t dev;
	ino_t ino;
	int r;

	if (fd < 0)
		return fd;
	r = netns_identify(fd, &dev, &ino);
	if (r < 0)
		return r;
	if (dev != state->dev || ino != state->ino)
		return -ESTALE;
	return TAKE_FD(fd);
}

void pods_save(struct pods *pods, const struct pod *pod)
{
	int r = state_write(pods->state_dir, &pod->state);

	if (r < 0)
		log_warn(r, "cannot write the state of pod '%s/%s', ignoring", pod->state.pod.ns,
			 pod->state.pod.name);
}

void pods_forget(struct pods *pods, struct pod *pod, const char *why)
{
	struct pod_name name = pod->state.pod;
	bool ghost = pod->ghost;
	int r = 0;

	/* Its file last: whoever starts after a crash in between finds it, and forgets it, too. */
	around_remove(pods, pod);
	/* The file of a ghost may be that of a live pod of its name by now. */
	if (!ghost || !pods_find(pods, &name))
		r = state_remove(pods->state_dir, &name);
	if (r < 0)
		log_warn(r, "cannot remove the state of pod '%s/%s', ignoring", name.ns, name.name);
	log_info("pod '%s/%s'%s is forgotten: %s", name.ns, name.name,
		 ghost ? ", its former namespace," : "", why);
	pods_release(pods, pod);
}

/* ---- from time to time ---- */

/* Who undoes what is put back has to wait longer and longer for the next time. */
static void pace(struct pods *pods, struct pod *pod, bool repaired)
{
	if (repaired)
		pod->wait_ms = pod->wait_ms ? pod->wait_ms * 2 : WAIT_MIN_MS;
	else
		pod->wait_ms /= 2;
	if (pod->wait_ms > WAIT_MAX_MS)
		pod->wait_ms = WAIT_MAX_MS;
	pod->not_before_ms = loop_now_ms(pods->loop) + pod->wait_ms;
}

/* Logs. 1: something was not as it should be. -errno. */
static int put_right(struct pods *pods, struct pod *pod, int netns_fd)
{
	char error[ENROL_ERROR_MAX];
	int r;

	if (!pod->held) {
		r = hold(pods, pod, netns_fd, error);
		if (r == 0)
			pods_save(pods, pod); /* as who it is now, and how it is captured */
		return r;
	}
	r = hold_repair(pods, pod, netns_fd, error);
	if (r < 0)
		log_err(0, "pod '%s/%s': %s", pod->state.pod.ns, pod->state.pod.name, error);
	return r;
}

/* Puts right what is not. Logs. -errno. */
static int look_after(struct pods *pods, struct pod *pod)
{
	OWNED_FD int fd = -1;
	int r = 0;

	pod->dirty = false;
	pod->age = 0;
	if (!pod->state.by_cgroup)
		r = fd = pod_open_netns(&pod->state);
	if (r < 0)
		log_err(fd, "pod '%s/%s': cannot open '%s'", pod->state.pod.ns, pod->state.pod.name,
			pod->state.netns);
	else
		r = put_right(pods, pod, fd);
	pace(pods, pod, r != 0);
	pod->failed = r < 0;
	return r < 0 ? r : 0;
}

/* No address that comes to an interface is heard of. What fails is tried, and told of, like the
 * rest.
 */
static void look_at_links(struct pods *pods, struct pod *pod)
{
	OWNED_FD int fd = pod_open_netns(&pod->state);
	char error[ENROL_ERROR_MAX];

	pod->links_at_ms = loop_now_ms(pods->loop) + OPEN_LOOK_MS;
	pod->dirty |= fd < 0 || hold_links(pods, pod, fd, error) < 0;
}

/* The process by which its namespace was found has ended; others may be left in it. */
static bool found_elsewhere(struct pods *pods, struct pod *pod)
{
	char path[PATH_MAX], *copy;

	if (pod->state.by_cgroup || strncmp(pod->state.netns, "/proc/", 6) != 0 ||
	    netns_path_find(pod->state.dev, pod->state.ino, 0, path) < 0)
		return false;
	copy = strdup(path);
	if (!copy)
		return true; /* it is there: the next tick has another try */
	free(pod->state.netns);
	pod->state.netns = copy;
	if (!pod->ghost)
		pods_save(pods, pod);
	return true;
}

/* A node in a container is started anew without the machine; its interfaces are others then. */
static bool is_of_this_node(const struct pods *pods, const struct pod_state *state)
{
	return state->node_cookie == 0 || pods->own_cookie == 0 ||
	       state->node_cookie == pods->own_cookie;
}

/* In the same node no number is given away twice before all were used. */
static bool has_host_end(const struct pods *pods, const struct pod_state *state)
{
	char name[IF_NAMESIZE];

	if (!is_of_this_node(pods, state))
		return false;
	for (size_t i = 0; i < state->links.n_links; i++) {
		uint32_t ifindex = state->links.links[i].ifindex;

		if (ifindex > 0 && if_indextoname(ifindex, name))
			return true;
	}
	return false;
}

/* Nothing leads to its namespace any more, and its interface is there all the same: packets wait in
 * it, or somebody is left in it. So the guard stays, and nobody is served.
 */
static void close_for_good(struct pod *pod, const char *why)
{
	if (pod->ghost)
		return;
	log_info("pod '%s/%s': %s, but its interface is not: its guard stays until that is gone",
		 pod->state.pod.ns, pod->state.pod.name, why);
	pod_become_ghost(pod->pods, pod);
}

static void forget_the_gone(struct pods *pods)
{
	struct pod *next;

	for (struct pod *p = pods->list; p; p = next) {
		const char *why =
			p->state.by_cgroup ? "its cgroup is gone" : "its network namespace is gone";

		next = p->next;
		if (pod_path_leads_to(p->state.netns, p->state.dev, p->state.ino) ||
		    found_elsewhere(pods, p))
			continue;
		if (has_host_end(pods, &p->state))
			close_for_good(p, why);
		else
			pods_forget(pods, p, why);
	}
}

/* A tenth of the pods, those whose turn it is: one costs about a millisecond. */
static void look_after_some(struct pods *pods)
{
	size_t left = (pods->n + VERIFY_TICKS - 1) / VERIFY_TICKS;

	for (struct pod *p = pods->list; p; p = p->next) {
		p->age++;
		if (p->listening && pods->hooks.is_alive &&
		    !pods->hooks.is_alive(pods->hooks.ctx, p->listener))
			p->dirty = true;
		if (p->ghost || p->age < VERIFY_TICKS || left == 0)
			continue;
		left--;
		look_after(pods, p);
	}
}

static bool is_open(const struct pods *pods, const struct pod *pod)
{
	return pod->held && pod_links_are_open(&pod->state.links, loop_now_ms(pods->loop));
}

/* Milliseconds until the next one may be looked at; 0: there is none. */
static uint64_t look_after_dirty(struct pods *pods)
{
	uint64_t now = loop_now_ms(pods->loop), next = 0;

	for (struct pod *p = pods->list; p; p = p->next) {
		uint64_t due;

		if (p->ghost)
			continue;
		if (p->dirty && now >= p->not_before_ms)
			look_after(pods, p);
		else if (is_open(pods, p) && now >= p->links_at_ms)
			look_at_links(pods, p);
		due = p->dirty ? p->not_before_ms : is_open(pods, p) ? p->links_at_ms : now;
		if (due > now && (next == 0 || due - now < next))
			next = due - now;
	}
	return next;
}

static void look_after_node(struct pods *pods)
{
	pods->node_dirty = false;
	pods->node_not_before_ms = loop_now_ms(pods->loop) + WAIT_MIN_MS;
	around_repair(pods);
	for (struct pod *p = pods->list; p; p = p->next)
		p->dirty |= p->held && around_verify(pods, p) < 0;
}

static void on_soon(struct timer *t)
{
	struct pods *pods = CONTAINER_OF(t, struct pods, soon);
	uint64_t now = loop_now_ms(pods->loop), next;

	if (pods->node_dirty && now >= pods->node_not_before_ms) {
		forget_the_gone(pods);
		look_after_node(pods);
	}
	next = look_after_dirty(pods);
	if (pods->wanted_news)
		wanted_look(pods);
	if (pods->node_dirty && (next == 0 || next > WAIT_MIN_MS))
		next = WAIT_MIN_MS;
	if (next > 0)
		timer_start(pods->loop, t, next);
}

void pods_soon(struct pods *pods)
{
	if (!timer_is_armed(&pods->soon))
		timer_start(pods->loop, &pods->soon, SOON_MS);
}

static void on_tick(struct timer *t)
{
	struct pods *pods = CONTAINER_OF(t, struct pods, tick);

	forget_the_gone(pods);
	look_after_some(pods);
	look_after_dirty(pods);
	wanted_look(pods);
	if (++pods->ticks % VERIFY_TICKS == 0)
		look_after_node(pods);
	timer_start(pods->loop, t, TICK_MS);
}

/* ---- at the start: what the last agent left ---- */

/* NULL, or why this is not the place that was written down. */
static const char *not_the_same(const struct pod_state *state, int fd)
{
	uint64_t cookie;

	if (state->by_cgroup)
		return pod_path_leads_to(state->netns, state->dev, state->ino)
			       ? NULL
			       : "its cgroup is gone";
	if (fd == -ESTALE)
		return "another network namespace is in its place";
	if (fd < 0)
		return "its network namespace is gone";
	if (state->cookie != 0 && (inside_cookie(fd, &cookie) < 0 || cookie != state->cookie))
		return "another network namespace is in its place";
	return NULL;
}

/* Logs. */
static void adopt(struct pods *pods, struct pod *pod)
{
	OWNED_FD int fd = pod->state.by_cgroup ? -1 : pod_open_netns(&pod->state);
	const char *why = not_the_same(&pod->state, fd);
	char error[ENROL_ERROR_MAX];

	if (why && has_host_end(pods, &pod->state)) {
		/* A guard of ours, too: that of an agent with other tables goes. */
		if (around_add(pods, pod, false, error) < 0)
			log_err(0, "pod '%s/%s': %s", pod->state.pod.ns, pod->state.pod.name,
				error);
		return close_for_good(pod, why);
	}
	if (why)
		return pods_forget(pods, pod, why);
	/* After a failure it stays in the list, and is tried again. */
	pod->failed = hold(pods, pod, fd, error) < 0;
	if (pod->failed)
		return;
	log_info("pod '%s/%s' is enrolled again ('%s', %s)", pod->state.pod.ns, pod->state.pod.name,
		 pod->state.netns, redirect_backend_str(pod->state.backend));
	pod->state.node_cookie = pods->own_cookie;
	pods_save(pods, pod);
}

static void adopt_all(struct pods *pods)
{
	struct pod *next;

	for (struct pod *p = pods->list; p; p = next) {
		next = p->next;
		adopt(pods, p);
	}
}

/* Nothing of another boot is there, and its numbers are others' by now. Logs. */
static void drop_state(struct pods *pods, const struct pod_state *state)
{
	int r = state_remove(pods->state_dir, &state->pod);

	if (r < 0)
		log_warn(r, "cannot remove the state of pod '%s/%s', ignoring", state->pod.ns,
			 state->pod.name);
	log_info("pod '%s/%s' is forgotten: the machine was started anew", state->pod.ns,
		 state->pod.name);
}

/* Takes the state. Logs. */
static void remember(struct pods *pods, struct pod_state *state)
{
	struct pod *pod;
	int r = pod_new(pods, state, &pod);

	if (r == 0)
		pods_push(pods, pod);
	else
		log_err(r, "cannot take pod '%s/%s' over, ignoring", state->pod.ns,
			state->pod.name);
}

static void on_state_file(void *ctx, const char *path)
{
	OWNED(pod_state_done) struct pod_state state = {0};
	struct pods *pods = ctx;
	const char *why;
	int r;

	r = state_read(path, &state, &why);
	pods->strangers |= r < 0;
	if (r == -EBADMSG)
		log_err(0,
			"the state of a pod in '%s' cannot be used (%s), ignoring; its rules "
			"and its guard stay: enroll it again",
			path, why);
	else if (r < 0)
		log_err(r, "cannot read the state of a pod in '%s', ignoring", path);
	else if (strcmp(state.boot_id, pods->boot_id) != 0)
		drop_state(pods, &state);
	else if (pods_find(pods, &state.pod) || pods_find_netns(pods, state.dev, state.ino))
		log_err(0, "'%s' names a pod or namespace that another file names too, ignoring",
			path);
	else
		remember(pods, &state);
}

/* ---- all of them ---- */

/* Workers may ask whose a connection is until they have ended, which is before the loop's end. */
static void run_free(struct later *l)
{
	struct pods *pods = CONTAINER_OF(l, struct pods, later);

	hostnet_close(pods->hostnet);
	origins_free(pods->origins);
	plan_done(&pods->plan);
	free(pods->state_dir);
	free(pods->trust_domain);
	free(pods);
}

static void keep_proof(struct pods *pods, const struct pods_proof *proof)
{
	if (!proof)
		return;
	pods->proves = true;
	pods->proof = *proof;
	memcpy(pods->token, proof->token, sizeof(pods->token));
	pods->proof.token = pods->token;
}

/* Does not log. */
static int init(struct pods *pods, struct loop *loop, const struct pods_config *config,
		const struct pods_hooks *hooks)
{
	struct plan_input input = {config->cluster_cidrs, config->n_cluster_cidrs,
				   PLAN_CAPTURE_PORT};
	OWNED_FD int own = -1;
	int r;

	pods->loop = loop;
	pods->hooks = *hooks;
	pods->tick.on_expire = on_tick;
	pods->soon.on_expire = on_soon;
	pods->later.run = run_free;
	keep_proof(pods, config->proof);
	pods->trust_domain = strdup(config->trust_domain);
	if (!pods->trust_domain || asprintf(&pods->state_dir, "%s/pods", config->state_dir) < 0) {
		pods->state_dir = NULL; /* undefined after a failure */
		return -ENOMEM;
	}
	r = plan_make(&input, &pods->plan);
	if (r < 0)
		return r;
	r = state_boot_id(pods->boot_id);
	if (r < 0)
		return r;
	own = netns_open("/proc/thread-self/ns/net");
	if (own < 0)
		return own;
	if (inside_cookie(own, &pods->own_cookie) < 0)
		pods->own_cookie = 0;
	return netns_identify(own, &pods->own_dev, &pods->own_ino);
}

/* Logs. */
static int start(struct pods *pods, const struct pods_config *config)
{
	const char *socket = config->socket;
	int r;

	r = state_make_dir(pods->state_dir);
	if (r < 0)
		return log_err(r, "cannot make the folder '%s'", pods->state_dir);
	/* Also what keeps a second agent from these pods. Nobody is served before the loop runs. */
	r = enrol_server_new(&pods->server, pods->loop, socket, pods_on_request, pods);
	if (r == -EADDRINUSE)
		return log_err(r, "another agent seems to run: it answers on '%s'", socket);
	if (r < 0)
		return log_err(r, "cannot listen on '%s'", socket);
	r = around_open(pods, config);
	if (r < 0)
		return r;
	r = state_list(pods->state_dir, on_state_file, pods);
	if (r < 0)
		return log_err(r, "cannot list the folder '%s'", pods->state_dir);
	/* All are known before the first is looked at: no other's address is taken for its own. */
	adopt_all(pods);
	around_settle(pods);
	pods_soon(pods);
	timer_start(pods->loop, &pods->tick, TICK_MS);
	return 0;
}

int pods_start(struct pods **ret, struct loop *loop, const struct pods_config *config,
	       const struct pods_hooks *hooks)
{
	struct pods *pods = calloc(1, sizeof(*pods));
	int r;

	if (!pods)
		return log_err(-ENOMEM, "cannot prepare for pods");
	r = init(pods, loop, config, hooks);
	if (r < 0)
		log_err(r, "cannot prepare for pods");
	else
		r = start(pods, config);
	if (r < 0) {
		pods_stop(pods);
		return r;
	}
	*ret = pods;
	return 0;
}

static int use_new_plan(struct pods *pods, struct pod *pod)
{
	char error[ENROL_ERROR_MAX];
	OWNED_FD int fd = -1;
	int r;

	if (pod->ghost || pod->state.by_cgroup || pod->state.backend == REDIRECT_EBPF)
		return 0;
	fd = pod_open_netns(&pod->state);
	r = fd < 0 ? fd : hold_apply(pods, pod, fd, error);
	pod->failed = r < 0;
	if (r < 0)
		log_err(0, "pod '%s/%s' keeps the old cluster networks: %s", pod->state.pod.ns,
			pod->state.pod.name, fd < 0 ? strerrordesc_np(-fd) : error);
	return r < 0 ? r : 0;
}

int pods_set_cluster_cidrs(struct pods *pods, const struct cidr *cidrs, size_t n)
{
	struct plan_input input = {cidrs, n, PLAN_CAPTURE_PORT};
	struct plan plan;
	int r, worst = 0;

	r = plan_make(&input, &plan);
	if (r < 0)
		return log_err(r, "cannot use the new cluster networks, the old ones stay");
	plan_done(&pods->plan);
	pods->plan = plan;
	worst = around_set_cluster(pods);
	for (struct pod *p = pods->list; p; p = p->next) {
		r = use_new_plan(pods, p);
		if (r < 0)
			worst = r;
	}
	return worst;
}

size_t pods_count(const struct pods *pods)
{
	size_t n = 0;

	for (const struct pod *p = pods->list; p; p = p->next)
		n += !p->ghost;
	return n;
}

static json_t *pod_json(const struct pods *pods, const struct pod *p)
{
	const struct pod_state *s = &p->state;

	return json_pack(
		"{s:s s:s s:s s:s s:s s:s s:s s:I s:I s:I}", "namespace", s->pod.ns, "pod",
		s->pod.name, "service_account", p->id->service_account, "netns", s->netns,
		"backend", redirect_backend_str(s->backend), "guard", around_name(pods, p), "state",
		p->held && !p->failed ? "enrolled" : "failed", "enrolled_at",
		(json_int_t)s->enrolled_at, "connections",
		(json_int_t)atomic_load_explicit(&p->id->connections, memory_order_relaxed),
		"repairs", (json_int_t)p->repairs);
}

json_t *pods_print(const struct pods *pods)
{
	json_t *array = json_array();

	for (const struct pod *p = pods->list; p && array; p = p->next) {
		json_t *one;

		if (p->ghost)
			continue;
		one = pod_json(pods, p);
		if (!one || json_array_append_new(array, one) < 0) {
			json_decref(array);
			array = NULL;
		}
	}
	return array;
}

void pods_stop(struct pods *pods)
{
	if (!pods)
		return;
	pods->stopping = true;
	enrol_server_free(pods->server);
	timer_stop(pods->loop, &pods->tick);
	timer_stop(pods->loop, &pods->soon);
	while (pods->list)
		pods_release(pods, pods->list);
	wanted_free(pods);
	around_close(pods);
	loop_later(pods->loop, &pods->later);
}
