/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/pods.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "pod/enrol_server.h"
#include "pod/inside.h"
#include "pod/state.h"
#include "redirect/plan.h"
#include "redirect/redirector.h"

#define TICK_MS      1000
#define VERIFY_TICKS 10 /* every pod's rules are looked at once in so many ticks */

_Static_assert(INSIDE_ERROR_MAX <= ENROL_ERROR_MAX, "its text is the answer");

struct pod {
	struct pod *next;
	struct pod_state state;
	struct identity *id;
	void *listener; /* of the proxy; meaningful while `listening` */
	bool listening;
	bool failed;  /* the last attempt to put things right */
	unsigned age; /* ticks since its rules were looked at */
};

struct pods {
	struct loop *loop;
	struct pods_hooks hooks;
	const struct redirector *how;
	struct plan plan;
	char *state_dir; /* <stateDir>/pods */
	char *trust_domain;
	char boot_id[STATE_BOOT_ID_MAX];
	dev_t own_dev; /* the agent's namespace */
	ino_t own_ino;
	struct enrol_server *server;
	struct timer tick;
	struct later later;
	struct pod *list;
	size_t n;
};

/* The text for whoever asked, and the same in the log, once. Returns r. */
__attribute__((format(printf, 4, 5))) static int refuse(const struct pod_name *pod, int r,
							char error[static ENROL_ERROR_MAX],
							const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, ENROL_ERROR_MAX, format, args);
	va_end(args);
	log_err(0, "pod '%s/%s': %s", pod->ns, pod->name, error);
	return r;
}

/* ---- one pod ---- */

static void stop_listening(struct pods *pods, struct pod *pod)
{
	if (pod->listening)
		pods->hooks.unlisten(pods->hooks.ctx, pod->listener);
	pod->listening = false;
}

static void pod_free(struct pods *pods, struct pod *pod)
{
	stop_listening(pods, pod);
	identity_unref(pod->id);
	pod_state_done(&pod->state);
	free(pod);
}

/* Takes `state`. */
static int pod_new(struct pods *pods, struct pod_state *state, struct pod **ret)
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
	pod->state = *state;
	*state = (struct pod_state){0};
	*ret = pod;
	return 0;
}

static struct pod *find(const struct pods *pods, const struct pod_name *name)
{
	for (struct pod *p = pods->list; p; p = p->next) {
		if (strcmp(p->state.pod.ns, name->ns) == 0 &&
		    strcmp(p->state.pod.name, name->name) == 0)
			return p;
	}
	return NULL;
}

static struct pod *find_netns(const struct pods *pods, dev_t dev, ino_t ino)
{
	for (struct pod *p = pods->list; p; p = p->next) {
		if (p->state.dev == dev && p->state.ino == ino)
			return p;
	}
	return NULL;
}

static void push(struct pods *pods, struct pod *pod)
{
	pod->next = pods->list;
	pods->list = pod;
	pods->n++;
}

/* Takes it out of the list and frees it. Its state on disk and its rules are the caller's. */
static void release(struct pods *pods, struct pod *pod)
{
	for (struct pod **p = &pods->list; *p; p = &(*p)->next) {
		if (*p == pod) {
			*p = pod->next;
			pods->n--;
			break;
		}
	}
	pod_free(pods, pod);
}

static bool path_leads_to(const char *path, dev_t dev, ino_t ino)
{
	struct stat st;

	return stat(path, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

/* For the caller to close; -ESTALE when the path leads elsewhere by now. */
static int open_netns(const struct pod_state *state)
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

/* The namespace is gone: nothing is left to undo there. Logs. */
static void forget(struct pods *pods, struct pod *pod, const char *why)
{
	struct pod_name name = pod->state.pod;
	int r = state_remove(pods->state_dir, &name);

	if (r < 0)
		log_warn(r, "cannot remove the state of pod '%s/%s', ignoring", name.ns, name.name);
	log_info("pod '%s/%s' is forgotten: %s", name.ns, name.name, why);
	release(pods, pod);
}

/* ---- enrolling ---- */

/* Rules, then listeners, then the proxy. Logs, and says in `error` what failed. */
static int capture(struct pods *pods, struct pod *pod, int netns_fd,
		   char error[static ENROL_ERROR_MAX])
{
	char why[INSIDE_ERROR_MAX];
	int fds[2] = {-1, -1}, r;

	r = inside_enrol(netns_fd, pods->how, &pods->plan, fds, &pod->state.cookie, why);
	if (r < 0)
		return refuse(&pod->state.pod, r, error,
			      "%.150s; rules that are in place stay: it reaches nothing outside",
			      why);
	r = pods->hooks.listen(pods->hooks.ctx, pod->id, fds, &pod->listener);
	if (r < 0)
		return refuse(&pod->state.pod, r, error,
			      "the proxy cannot take its listeners: %s; its rules stay: it reaches "
			      "nothing outside",
			      strerrordesc_np(-r));
	pod->listening = true;
	pod->failed = false;
	return 0;
}

static int remember(struct pods *pods, const struct pod *pod, char error[static ENROL_ERROR_MAX])
{
	int r = state_write(pods->state_dir, &pod->state);

	if (r < 0)
		return refuse(&pod->state.pod, r, error,
			      "cannot write its state to '%.100s': %s; its rules stay: it reaches "
			      "nothing outside",
			      pods->state_dir, strerrordesc_np(-r));
	return 0;
}

static int enrol_new(struct pods *pods, const struct enrol_request *q, dev_t dev, ino_t ino,
		     char error[static ENROL_ERROR_MAX])
{
	OWNED(pod_state_done)
	struct pod_state state = {.pod = q->pod,
				  .dev = dev,
				  .ino = ino,
				  .netns = strdup(q->netns),
				  .enrolled_at = (int64_t)time(NULL)};
	struct pod *pod = NULL;
	int r = -ENOMEM;

	snprintf(state.service_account, sizeof(state.service_account), "%s", q->service_account);
	memcpy(state.boot_id, pods->boot_id, sizeof(state.boot_id));
	if (state.netns)
		r = pod_new(pods, &state, &pod);
	if (r < 0)
		return refuse(&q->pod, r, error, "%s", strerrordesc_np(-r));

	r = capture(pods, pod, q->netns_fd, error);
	if (r == 0)
		r = remember(pods, pod, error);
	if (r < 0) {
		pod_free(pods, pod);
		return r;
	}
	push(pods, pod);
	return 0;
}

/* It is enrolled already, and still in the same namespace. */
static int enrol_again(struct pods *pods, struct pod *pod, const struct enrol_request *q,
		       char error[static ENROL_ERROR_MAX])
{
	char why[INSIDE_ERROR_MAX], *netns;
	int r;

	r = inside_repair(q->netns_fd, pods->how, &pods->plan, why);
	if (r < 0)
		return refuse(&q->pod, r, error, "%s", why);
	if (strcmp(pod->state.netns, q->netns) == 0)
		return 0;
	netns = strdup(q->netns);
	if (!netns)
		return refuse(&q->pod, -ENOMEM, error, "out of memory, try again");
	free(pod->state.netns);
	pod->state.netns = netns;
	return remember(pods, pod, error);
}

/* Is this a namespace that may be enrolled under that name? */
static int judge(struct pods *pods, const struct enrol_request *q, dev_t dev, ino_t ino,
		 char error[static ENROL_ERROR_MAX])
{
	struct pod *other;

	if (dev == pods->own_dev && ino == pods->own_ino)
		return refuse(&q->pod, -EINVAL, error,
			      "'%.150s' is the agent's own network namespace: a pod on the host's "
			      "network cannot be enrolled",
			      q->netns);
	if (!path_leads_to(q->netns, dev, ino))
		return refuse(&q->pod, -ESTALE, error,
			      "as the agent sees it, '%.100s' is not the namespace that was sent: "
			      "mount its folder into the agent, propagation HostToContainer",
			      q->netns);
	other = find_netns(pods, dev, ino);
	if (!other || find(pods, &q->pod) == other)
		return 0;
	if (!path_leads_to(other->state.netns, dev, ino)) {
		forget(pods, other, "its network namespace is gone");
		return 0;
	}
	return refuse(&q->pod, -EBUSY, error,
		      "this network namespace is enrolled as pod '%s/%.100s': unenroll that first",
		      other->state.pod.ns, other->state.pod.name);
}

static int enroll(struct pods *pods, const struct enrol_request *q,
		  char error[static ENROL_ERROR_MAX])
{
	struct pod *old;
	dev_t dev;
	ino_t ino;
	int r;

	r = netns_identify(q->netns_fd, &dev, &ino);
	if (r < 0)
		return refuse(&q->pod, r, error, "the descriptor is no network namespace");
	r = judge(pods, q, dev, ino, error);
	if (r < 0)
		return r;

	old = find(pods, &q->pod);
	if (!old)
		return enrol_new(pods, q, dev, ino, error);
	if (old->state.dev != dev || old->state.ino != ino) {
		/* Its sandbox was made anew. The old rules stay: nothing opens by this. */
		r = enrol_new(pods, q, dev, ino, error);
		if (r == 0)
			release(pods, old);
		return r;
	}
	if (old->listening && strcmp(old->state.service_account, q->service_account) == 0)
		return enrol_again(pods, old, q, error);
	/* Another identity, or a failed one: its listeners are in the way of the new ones. */
	forget(pods, old, "it is enrolled anew");
	return enrol_new(pods, q, dev, ino, error);
}

/* ---- the other requests ---- */

static int unenroll(struct pods *pods, const struct enrol_request *q,
		    char error[static ENROL_ERROR_MAX])
{
	struct pod *pod = find(pods, &q->pod);
	char why[INSIDE_ERROR_MAX];
	OWNED_FD int fd = -1;
	int r;

	if (!pod)
		return 0;
	fd = open_netns(&pod->state);
	if (fd >= 0) {
		r = inside_remove(fd, pods->how, why);
		if (r < 0)
			return refuse(&q->pod, r, error, "%s", why);
	}
	r = state_remove(pods->state_dir, &q->pod);
	if (r < 0)
		return refuse(&q->pod, r, error, "cannot remove its state in '%.150s': %s",
			      pods->state_dir, strerrordesc_np(-r));
	release(pods, pod);
	return 0;
}

static int check(struct pods *pods, const struct enrol_request *q,
		 char error[static ENROL_ERROR_MAX])
{
	const struct pod *pod = find(pods, &q->pod);
	char why[INSIDE_ERROR_MAX];
	OWNED_FD int fd = -1;
	int r;

	if (!pod || !pod->listening)
		return refuse(&q->pod, -ENOENT, error, "not enrolled: enroll it");
	fd = open_netns(&pod->state);
	if (fd < 0)
		return refuse(&q->pod, fd, error, "its network namespace is gone");
	r = inside_verify(fd, pods->how, &pods->plan, why);
	return r < 0 ? refuse(&q->pod, r, error, "%s; enroll it again", why) : 0;
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int on_request(void *ctx, const struct enrol_request *q, char error[static ENROL_ERROR_MAX])
{
	struct pods *pods = ctx;
	uint64_t start = now_us();
	int r;

	switch (q->op) {
	case ENROL_OP_ENROLL:
		r = enroll(pods, q, error);
		if (r == 0)
			log_info("pod '%s/%s' is enrolled ('%s', %llu us)", q->pod.ns, q->pod.name,
				 q->netns, (unsigned long long)(now_us() - start));
		return r;
	case ENROL_OP_UNENROLL:
		r = unenroll(pods, q, error);
		if (r == 0)
			log_info("pod '%s/%s' is not enrolled any more", q->pod.ns, q->pod.name);
		return r;
	case ENROL_OP_CHECK:
		return check(pods, q, error);
	case ENROL_OP_N_:
		break;
	}
	return -EINVAL;
}

/* ---- from time to time ---- */

static void say_repaired(const struct pod *pod)
{
	log_warn(0, "pod '%s/%s': its rules were not as planned and have been put back",
		 pod->state.pod.ns, pod->state.pod.name);
}

/* Puts right what is not. Logs. -errno. */
static int look_after(struct pods *pods, struct pod *pod)
{
	char error[ENROL_ERROR_MAX];
	OWNED_FD int fd = open_netns(&pod->state);
	int r = fd;

	if (fd < 0) {
		log_err(fd, "pod '%s/%s': cannot open '%s'", pod->state.pod.ns, pod->state.pod.name,
			pod->state.netns);
	} else if (!pod->listening) {
		r = capture(pods, pod, fd, error);
	} else {
		r = inside_repair(fd, pods->how, &pods->plan, error);
		if (r < 0)
			log_err(0, "pod '%s/%s': %s", pod->state.pod.ns, pod->state.pod.name,
				error);
		else if (r == 1)
			say_repaired(pod);
	}
	pod->failed = r < 0;
	return r < 0 ? r : 0;
}

static void forget_the_gone(struct pods *pods)
{
	struct pod *next;

	for (struct pod *p = pods->list; p; p = next) {
		next = p->next;
		if (!path_leads_to(p->state.netns, p->state.dev, p->state.ino))
			forget(pods, p, "its network namespace is gone");
	}
}

/* A tenth of the pods, those whose turn it is: one costs about a millisecond. */
static void look_after_some(struct pods *pods)
{
	size_t left = (pods->n + VERIFY_TICKS - 1) / VERIFY_TICKS;

	for (struct pod *p = pods->list; p; p = p->next) {
		p->age++;
		if (p->age < VERIFY_TICKS || left == 0)
			continue;
		left--;
		p->age = 0;
		look_after(pods, p);
	}
}

static void on_tick(struct timer *t)
{
	struct pods *pods = CONTAINER_OF(t, struct pods, tick);

	forget_the_gone(pods);
	look_after_some(pods);
	timer_start(pods->loop, t, TICK_MS);
}

/* ---- at the start: what the last agent left ---- */

/* NULL, or why this is not the namespace that was written down. */
static const char *not_the_same(const struct pods *pods, const struct pod_state *state, int fd)
{
	uint64_t cookie;

	if (fd == -ESTALE)
		return "another network namespace is in its place";
	if (fd < 0)
		return "its network namespace is gone";
	if (strcmp(state->boot_id, pods->boot_id) != 0)
		return "the machine was started anew";
	if (inside_cookie(fd, &cookie) < 0 || cookie != state->cookie)
		return "another network namespace is in its place";
	return NULL;
}

/* Logs. Takes the state. */
static void adopt(struct pods *pods, struct pod_state *state)
{
	OWNED_FD int fd = open_netns(state);
	const char *why = not_the_same(pods, state, fd);
	char error[ENROL_ERROR_MAX];
	struct pod *pod;
	int r;

	r = pod_new(pods, state, &pod);
	if (r < 0) {
		log_err(r, "cannot take pod '%s/%s' over, ignoring", state->pod.ns,
			state->pod.name);
		return;
	}
	push(pods, pod);
	if (why)
		return forget(pods, pod, why);
	/* After a failure it stays in the list, and is tried again. */
	pod->failed = capture(pods, pod, fd, error) < 0;
	if (!pod->failed)
		log_info("pod '%s/%s' is enrolled again ('%s')", pod->state.pod.ns,
			 pod->state.pod.name, pod->state.netns);
}

static void on_state_file(void *ctx, const char *path)
{
	OWNED(pod_state_done) struct pod_state state = {0};
	struct pods *pods = ctx;
	const char *why;
	int r;

	r = state_read(path, &state, &why);
	if (r == -EBADMSG)
		log_err(0,
			"the state of a pod in '%s' cannot be used (%s), ignoring; its rules "
			"stay: enroll it again",
			path, why);
	else if (r < 0)
		log_err(r, "cannot read the state of a pod in '%s', ignoring", path);
	else if (find(pods, &state.pod) || find_netns(pods, state.dev, state.ino))
		log_err(0, "'%s' names a pod or namespace that another file names too, ignoring",
			path);
	else
		adopt(pods, &state);
}

/* ---- all of them ---- */

static void run_free(struct later *l)
{
	struct pods *pods = CONTAINER_OF(l, struct pods, later);

	plan_done(&pods->plan);
	free(pods->state_dir);
	free(pods->trust_domain);
	free(pods);
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
	pods->how = config->redirector ?: &redirect_nft;
	pods->tick.on_expire = on_tick;
	pods->later.run = run_free;
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
	return netns_identify(own, &pods->own_dev, &pods->own_ino);
}

/* Logs. */
static int start(struct pods *pods, const char *socket)
{
	int r;

	r = pods->how->probe();
	if (r < 0)
		return log_err(r, "redirect backend '%s' does not work here", pods->how->name);
	r = state_make_dir(pods->state_dir);
	if (r < 0)
		return log_err(r, "cannot make the folder '%s'", pods->state_dir);
	/* Also what keeps a second agent from these pods. Nobody is served before the loop runs. */
	r = enrol_server_new(&pods->server, pods->loop, socket, on_request, pods);
	if (r == -EADDRINUSE)
		return log_err(r, "another agent seems to run: it answers on '%s'", socket);
	if (r < 0)
		return log_err(r, "cannot listen on '%s'", socket);
	r = state_list(pods->state_dir, on_state_file, pods);
	if (r < 0)
		return log_err(r, "cannot list the folder '%s'", pods->state_dir);
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
		r = start(pods, config->socket);
	if (r < 0) {
		pods_stop(pods);
		return r;
	}
	*ret = pods;
	return 0;
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
	for (struct pod *p = pods->list; p; p = p->next) {
		char error[INSIDE_ERROR_MAX];
		OWNED_FD int fd = open_netns(&p->state);

		r = fd < 0 ? fd : inside_repair(fd, pods->how, &pods->plan, error);
		p->failed = r < 0;
		if (r >= 0)
			continue;
		log_err(0, "pod '%s/%s' keeps the old cluster networks: %s", p->state.pod.ns,
			p->state.pod.name, fd < 0 ? strerrordesc_np(-fd) : error);
		worst = r;
	}
	return worst;
}

size_t pods_count(const struct pods *pods)
{
	return pods->n;
}

json_t *pods_print(const struct pods *pods)
{
	json_t *array = json_array();

	for (const struct pod *p = pods->list; p && array; p = p->next) {
		const struct pod_state *s = &p->state;
		json_t *one =
			json_pack("{s:s s:s s:s s:s s:s s:s s:I s:I}", "namespace", s->pod.ns,
				  "pod", s->pod.name, "service_account", p->id->service_account,
				  "netns", s->netns, "backend", pods->how->name, "state",
				  p->listening && !p->failed ? "enrolled" : "failed", "enrolled_at",
				  (json_int_t)s->enrolled_at, "connections",
				  (json_int_t)atomic_load_explicit(&p->id->connections,
								   memory_order_relaxed));

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
	enrol_server_free(pods->server);
	timer_stop(pods->loop, &pods->tick);
	while (pods->list)
		release(pods, pods->list);
	loop_later(pods->loop, &pods->later);
}
