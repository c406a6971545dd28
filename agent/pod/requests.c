/* SPDX-License-Identifier: Apache-2.0 */
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
#include "pod/pods_own.h"

int pods_refuse(const struct pod_name *pod, int r, char error[static ENROL_ERROR_MAX],
		const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, ENROL_ERROR_MAX, format, args);
	va_end(args);
	log_err(0, "pod '%s/%s': %s", pod->ns, pod->name, error);
	return r;
}

/* ---- enrolling ---- */

static int remember(struct pods *pods, const struct pod *pod, char error[static ENROL_ERROR_MAX])
{
	int r = state_write(pods->state_dir, &pod->state);

	if (r < 0)
		return pods_refuse(&pod->state.pod, r, error,
				   "cannot write its state to '%.100s': %s; its rules stay: it "
				   "reaches nothing outside",
				   pods->state_dir, strerrordesc_np(-r));
	return 0;
}

/* What a request is about: a network namespace, or a cgroup on the host's network. */
struct subject {
	bool by_cgroup;
	const char *path;
	int netns_fd; /* -1 by cgroup */
	dev_t dev;
	ino_t ino;
};

static int make_state(const struct pods *pods, const struct enrol_request *q,
		      const struct subject *what, struct pod_state *ret)
{
	*ret = (struct pod_state){.pod = q->pod,
				  .by_cgroup = what->by_cgroup,
				  .dev = what->dev,
				  .ino = what->ino,
				  .netns = strdup(what->path),
				  .enrolled_at = (int64_t)time(NULL)};
	snprintf(ret->service_account, sizeof(ret->service_account), "%s", q->service_account);
	snprintf(ret->container, sizeof(ret->container), "%s", q->container);
	snprintf(ret->network, sizeof(ret->network), "%s", q->network);
	memcpy(ret->boot_id, pods->boot_id, sizeof(ret->boot_id));
	ret->node_cookie = pods->own_cookie;
	return ret->netns ? 0 : -ENOMEM;
}

/* Takes away what a former enrolment of the same namespace left around it and this one does not
 * have.
 */
static void forget_ghosts(struct pods *pods, const struct pod *pod)
{
	struct pod *next;

	for (struct pod *p = pods->list; p; p = next) {
		next = p->next;
		if (p->ghost && p->state.dev == pod->state.dev && p->state.ino == pod->state.ino)
			pods_forget(pods, p, "it is enrolled anew");
	}
}

/* Takes the place of whoever was enrolled there. Processes may run in it since then: what its
 * interfaces were is known from before.
 */
static int take_place(struct pods *pods, struct pod_state *state, struct pod **ret, bool *ret_taken)
{
	struct pod *before = pods_find_netns(pods, state->dev, state->ino);
	int r;

	*ret_taken = before != NULL;
	if (before)
		state->links = before->state.links;
	r = pod_new(pods, state, ret);
	if (r < 0)
		return r;
	/* Its listeners are in the way of the new ones. Rules and guards stay meanwhile. */
	if (before && !before->ghost)
		pods_release(pods, before);
	return 0;
}

static int enrol_new(struct pods *pods, const struct enrol_request *q, const struct subject *what,
		     char error[static ENROL_ERROR_MAX])
{
	OWNED(pod_state_done) struct pod_state state = {0};
	struct pod *pod = NULL;
	bool taken;
	int r;

	r = make_state(pods, q, what, &state);
	if (r == 0)
		r = take_place(pods, &state, &pod, &taken);
	if (r < 0)
		return pods_refuse(&q->pod, r, error, "%s", strerrordesc_np(-r));
	snprintf(pod->uid, sizeof(pod->uid), "%s", q->uid);

	r = hold(pods, pod, what->netns_fd, error);
	if (r == 0)
		r = remember(pods, pod, error);
	pod->failed = r < 0;
	if (r == 0 || taken) /* what was known is kept, and tried again */
		pods_push(pods, pod);
	else
		pods_release(pods, pod);
	if (r < 0)
		return r;
	pods_soon(pods);
	forget_ghosts(pods, pod);
	return 0;
}

/* It is enrolled already, and still in the same place. */
static int enrol_again(struct pods *pods, struct pod *pod, const struct enrol_request *q,
		       const struct subject *what, char error[static ENROL_ERROR_MAX])
{
	struct pod_state *s = &pod->state;
	char why[ENROL_ERROR_MAX], *path;
	int r;

	r = hold_again(pods, pod, what->netns_fd, why);
	if (r < 0)
		return pods_refuse(&q->pod, r, error, "%.200s", why);
	pod->failed = false;
	if (q->uid[0])
		snprintf(pod->uid, sizeof(pod->uid), "%s", q->uid);
	pods_soon(pods);
	if (strcmp(s->netns, what->path) == 0 &&
	    (!q->container[0] || strcmp(s->container, q->container) == 0))
		return 0;
	path = strdup(what->path);
	if (!path)
		return pods_refuse(&q->pod, -ENOMEM, error, "out of memory, try again");
	free(s->netns);
	s->netns = path;
	if (q->container[0]) {
		snprintf(s->container, sizeof(s->container), "%s", q->container);
		snprintf(s->network, sizeof(s->network), "%s", q->network);
	}
	return remember(pods, pod, error);
}

/* Is this a place that may be enrolled under that name? */
static int judge(struct pods *pods, const struct enrol_request *q, const struct subject *what,
		 char error[static ENROL_ERROR_MAX])
{
	struct pod *other;

	if (what->dev == pods->own_dev && what->ino == pods->own_ino)
		return pods_refuse(&q->pod, -EINVAL, error,
				   "'%.120s' is the agent's own network namespace: a pod on the "
				   "host's network is enrolled by its cgroup (--cgroup)",
				   what->path);
	if (!pod_path_leads_to(what->path, what->dev, what->ino))
		return pods_refuse(&q->pod, -ESTALE, error,
				   "as the agent sees it, '%.100s' is not the namespace that was "
				   "sent: mount its folder into the agent, propagation "
				   "HostToContainer",
				   what->path);
	other = pods_find_netns(pods, what->dev, what->ino);
	if (!other || pods_find(pods, &q->pod) == other)
		return 0;
	if (other->ghost && !what->by_cgroup)
		return 0; /* what is around it stays until the new enrolment's is there */
	if (other->ghost || !pod_path_leads_to(other->state.netns, what->dev, what->ino)) {
		pods_forget(pods, other, "its network namespace is gone");
		return 0;
	}
	return pods_refuse(&q->pod, -EBUSY, error,
			   "this %s is enrolled as pod '%s/%.100s': unenroll that first",
			   what->by_cgroup ? "cgroup" : "network namespace", other->state.pod.ns,
			   other->state.pod.name);
}

static int read_subject(const struct enrol_request *q, struct subject *ret,
			char error[static ENROL_ERROR_MAX])
{
	struct stat st;
	int r;

	if (q->cgroup[0]) {
		*ret = (struct subject){.by_cgroup = true, .path = q->cgroup, .netns_fd = -1};
		if (stat(q->cgroup, &st) < 0)
			return pods_refuse(&q->pod, -errno, error,
					   "as the agent sees it, there is no cgroup '%.150s'",
					   q->cgroup);
		ret->dev = st.st_dev;
		ret->ino = st.st_ino;
		return 0;
	}
	*ret = (struct subject){.path = q->netns, .netns_fd = q->netns_fd};
	r = netns_identify(q->netns_fd, &ret->dev, &ret->ino);
	return r < 0 ? pods_refuse(&q->pod, r, error, "the descriptor is no network namespace") : 0;
}

/* Those that a container runtime makes are asked about; who enrolls one by hand has decided. 0: to
 * be enrolled, by *ret; 1: it passes.
 */
static int admit(struct pods *pods, const struct enrol_request *q,
		 char service_account[static POD_NAME_MAX + 1], struct enrol_request *ret,
		 char error[static ENROL_ERROR_MAX])
{
	int r = 0;

	service_account[0] = '\0';
	if (q->container[0] && pods->hooks.admit)
		r = pods->hooks.admit(pods->hooks.ctx, &q->pod, q->uid,
				      q->service_account[0] ? NULL : service_account);
	if (r == -EAGAIN) { /* it will ask again, many times: not a line each */
		snprintf(error, ENROL_ERROR_MAX,
			 "it is not known yet whether this pod is to be enforced");
		return r;
	}
	if (r < 0)
		return pods_refuse(&q->pod, r, error,
				   "cannot decide whether it is to be enforced: %s",
				   strerrordesc_np(-r));
	*ret = *q;
	if (!q->service_account[0])
		ret->service_account = service_account;
	return r;
}

static int enrol_admitted(struct pods *pods, const struct enrol_request *q,
			  char error[static ENROL_ERROR_MAX])
{
	struct subject what;
	struct pod *old;
	int r;

	r = read_subject(q, &what, error);
	if (r == 0)
		r = judge(pods, q, &what, error);
	if (r < 0)
		return r;

	old = pods_find(pods, &q->pod);
	if (!old)
		return enrol_new(pods, q, &what, error);
	if (old->state.dev != what.dev || old->state.ino != what.ino) {
		/* Its sandbox was made anew. What is around the old one stays, until it is gone. */
		pod_become_ghost(pods, old);
		return enrol_new(pods, q, &what, error);
	}
	if (old->held && strcmp(old->state.service_account, q->service_account) == 0)
		return enrol_again(pods, old, q, &what, error);
	/* Another identity, or a failed one. */
	return enrol_new(pods, q, &what, error);
}

static int enroll(struct pods *pods, const struct enrol_request *q,
		  char error[static ENROL_ERROR_MAX])
{
	char service_account[POD_NAME_MAX + 1];
	struct enrol_request admitted;
	int r = admit(pods, q, service_account, &admitted, error);

	return r == 0 ? enrol_admitted(pods, &admitted, error) : r;
}

/* ---- the other requests ---- */

static int unenroll(struct pods *pods, const struct enrol_request *q,
		    char error[static ENROL_ERROR_MAX])
{
	struct pod *pod = pods_find(pods, &q->pod);
	char why[ENROL_ERROR_MAX];
	OWNED_FD int fd = -1;
	int r;

	if (!pod)
		return 0;
	if (!pod->state.by_cgroup)
		fd = pod_open_netns(&pod->state);
	r = hold_end(pods, pod, fd, why);
	if (r < 0)
		return pods_refuse(&q->pod, r, error, "%.200s", why);
	r = state_remove(pods->state_dir, &q->pod);
	if (r < 0)
		return pods_refuse(&q->pod, r, error, "cannot remove its state in '%.150s': %s",
				   pods->state_dir, strerrordesc_np(-r));
	pods_release(pods, pod);
	return 0;
}

static int check(struct pods *pods, const struct enrol_request *q,
		 char error[static ENROL_ERROR_MAX])
{
	struct pod *pod = pods_find(pods, &q->pod);
	char why[ENROL_ERROR_MAX], service_account[POD_NAME_MAX + 1];
	struct enrol_request ignored;
	OWNED_FD int fd = -1;
	int r;

	r = pod ? 0 : admit(pods, q, service_account, &ignored, error);
	if (r != 0)
		return r;
	if (!pod)
		return pods_refuse(&q->pod, -ENOENT, error, "not enrolled: enroll it");
	if (q->container[0] && pod->state.container[0] &&
	    strcmp(pod->state.container, WANTED_CONTAINER) != 0 &&
	    strcmp(q->container, pod->state.container) != 0)
		return pods_refuse(&q->pod, -ESTALE, error,
				   "another sandbox of that name is enrolled, '%.130s'",
				   pod->state.container);
	if (!pod->held)
		return pods_refuse(
			&q->pod, -ESTALE, error,
			"not enrolled any more, the agent's log says why: enroll it again");
	if (!pod->state.by_cgroup) {
		fd = pod_open_netns(&pod->state);
		if (fd < 0)
			return pods_refuse(&q->pod, -ESTALE, error,
					   "its network namespace is gone");
	}
	r = hold_verify(pods, pod, fd, why);
	return r < 0 ? pods_refuse(&q->pod, r, error, "%.200s; enroll it again", why) : 0;
}

/* Its sandbox goes: nobody answers for it any more, and what stands around its namespace stays
 * there until that is gone, and its state on disk as long.
 */
static void let_go(struct pods *pods, struct pod *pod, const char *why)
{
	log_info("pod '%s/%s' is not enrolled any more: %s; what stands around it stays until its "
		 "network namespace is gone",
		 pod->state.pod.ns, pod->state.pod.name, why);
	pod_become_ghost(pods, pod);
}

static bool is_of(const struct pod *pod, const struct pod_name *name)
{
	return strcmp(pod->state.pod.ns, name->ns) == 0 &&
	       strcmp(pod->state.pod.name, name->name) == 0;
}

static void delete_container(struct pods *pods, const struct enrol_request *q)
{
	for (struct pod *p = pods->list; p; p = p->next) {
		if (!p->ghost && strcmp(p->state.container, q->container) == 0 &&
		    (!q->pod.ns[0] || is_of(p, &q->pod)))
			let_go(pods, p, "its sandbox is deleted");
	}
}

static bool is_listed(const struct enrol_request *q, const char *container)
{
	for (size_t i = 0; i < q->n_containers; i++) {
		if (strcmp(q->containers[i], container) == 0)
			return true;
	}
	return false;
}

/* Another network may have attachments of its own. */
static void collect(struct pods *pods, const struct enrol_request *q)
{
	for (struct pod *p = pods->list; p; p = p->next) {
		if (!p->ghost && p->state.container[0] &&
		    strcmp(p->state.container, WANTED_CONTAINER) != 0 &&
		    (!q->network[0] || strcmp(p->state.network, q->network) == 0) &&
		    !is_listed(q, p->state.container))
			let_go(pods, p, "the container runtime does not list its sandbox any more");
	}
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

int pods_on_request(void *ctx, const struct enrol_request *q, char error[static ENROL_ERROR_MAX])
{
	struct pods *pods = ctx;
	uint64_t start = now_us();
	struct pod *pod;
	int r;

	switch (q->op) {
	case ENROL_OP_ENROLL:
		r = enroll(pods, q, error);
		pod = r == 0 ? pods_find(pods, &q->pod) : NULL;
		if (pod)
			log_info("pod '%s/%s' is enrolled ('%s', %s, guard: %s, %llu us)",
				 q->pod.ns, q->pod.name, pod->state.netns,
				 redirect_backend_str(pod->state.backend), around_name(pods, pod),
				 (unsigned long long)(now_us() - start));
		return r;
	case ENROL_OP_UNENROLL:
		r = unenroll(pods, q, error);
		if (r == 0)
			log_info("pod '%s/%s' is not enrolled any more", q->pod.ns, q->pod.name);
		return r;
	case ENROL_OP_CHECK:
		return check(pods, q, error);
	case ENROL_OP_DELETE:
		delete_container(pods, q);
		return 0;
	case ENROL_OP_GC:
		collect(pods, q);
		return 0;
	case ENROL_OP_STATUS: /* the socket is served once all is in place */
		return 0;
	case ENROL_OP_N_:
		break;
	}
	return -EINVAL;
}
