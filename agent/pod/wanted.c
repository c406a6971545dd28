/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/wanted.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "pod/netns_path.h"
#include "pod/pods_own.h"

#define AT_ONCE_MAX 256  /* looked for in one go */
#define WAIT_MIN_MS 1000 /* until the next try */
#define WAIT_MAX_MS 30000
#define LIST_MAX    16384 /* pods of a node that the API may name */

static const char *const cgroup_roots[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

struct wanted {
	struct wanted *next;
	struct pod_name pod;
	char uid[FOUND_UID_MAX + 1];
	char service_account[POD_NAME_MAX + 1];
	bool host_network, findable;
	uint64_t not_before_ms;
	unsigned wait_ms;
};

static bool is_same(const struct pod_name *a, const struct pod_name *b)
{
	return strcmp(a->ns, b->ns) == 0 && strcmp(a->name, b->name) == 0;
}

static struct wanted **find(struct pods *pods, const struct pod_name *name)
{
	struct wanted **p = &pods->wanted;

	while (*p && !is_same(&(*p)->pod, name))
		p = &(*p)->next;
	return p;
}

static void drop(struct pods *pods, const struct pod_name *name)
{
	struct wanted **p = find(pods, name), *gone = *p;

	if (!gone)
		return;
	*p = gone->next;
	pods->n_wanted--;
	free(gone);
}

/* Who was enrolled by hand, or by sluice-init, stays enrolled. */
static void let_out(struct pods *pods, const struct pod_name *name)
{
	const struct pod *pod = pods_find(pods, name);
	struct enrol_request q = {.op = ENROL_OP_UNENROLL,
				  .pod = *name,
				  .service_account = "",
				  .netns = "",
				  .netns_fd = -1,
				  .cgroup = "",
				  .container = "",
				  .network = "",
				  .uid = ""};
	char error[ENROL_ERROR_MAX];

	if (pod && pod->state.container[0])
		pods_on_request(pods, &q, error);
}

static struct wanted *add(struct pods *pods, const struct pod_name *name)
{
	struct wanted *w = *find(pods, name);

	if (w)
		return w;
	if (pods->n_wanted >= LIST_MAX)
		return NULL;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->pod = *name;
	w->next = pods->wanted;
	pods->wanted = w;
	pods->n_wanted++;
	return w;
}

void pods_want(struct pods *pods, const struct pods_wanted *wanted)
{
	struct wanted *w;

	if (wanted->ended || !wanted->enforced) {
		drop(pods, &wanted->pod);
		if (!wanted->ended)
			let_out(pods, &wanted->pod);
		return;
	}
	w = add(pods, &wanted->pod);
	if (!w) {
		log_err(-ENOMEM, "pod '%s/%s' cannot be looked after", wanted->pod.ns,
			wanted->pod.name);
		return;
	}
	if (strcmp(w->uid, wanted->uid) != 0)
		w->wait_ms = 0;
	snprintf(w->uid, sizeof(w->uid), "%s", wanted->uid);
	snprintf(w->service_account, sizeof(w->service_account), "%s", wanted->service_account);
	w->host_network = wanted->host_network;
	w->findable = wanted->findable;
	pods->wanted_news = true;
	pods_soon(pods);
}

/* ---- looking ---- */

/* The pod that is enrolled under its name, if it is that one. On the host's network no runtime
 * tells of a new one: there the one before may still be in its cgroup.
 */
static struct pod *find_enrolled(const struct pods *pods, const struct wanted *w)
{
	struct pod *pod = pods_find(pods, &w->pod);

	if (!pod || !w->host_network || !pod->state.container[0])
		return pod;
	return pod->state.by_cgroup && found_folder_end(pod->state.netns, w->uid) ? pod : NULL;
}

/* What the API told is of another pod of its name: the one before, or the one to come. */
static bool is_of_another(const struct wanted *w, const struct pod *pod)
{
	return pod->uid[0] && w->uid[0] && strcmp(pod->uid, w->uid) != 0;
}

/* Enrolled, and as who it is? */
static bool is_well(const struct pods *pods, const struct wanted *w)
{
	const struct pod *pod = find_enrolled(pods, w);

	return pod && strcmp(pod->state.service_account, w->service_account) == 0;
}

static void later(struct pods *pods, struct wanted *w)
{
	w->wait_ms = w->wait_ms ? w->wait_ms * 2 : WAIT_MIN_MS;
	if (w->wait_ms > WAIT_MAX_MS)
		w->wait_ms = WAIT_MAX_MS;
	w->not_before_ms = loop_now_ms(pods->loop) + w->wait_ms;
}

static int enroll(struct pods *pods, const struct wanted *w, struct enrol_request *q)
{
	char error[ENROL_ERROR_MAX];

	q->op = ENROL_OP_ENROLL;
	q->pod = w->pod;
	q->service_account = w->service_account;
	q->network = "";
	q->uid = w->uid;
	return pods_on_request(pods, q, error);
}

static int enroll_netns(struct pods *pods, const struct wanted *w, int fd, const char *path,
			const char *container)
{
	struct enrol_request q = {
		.netns = path, .netns_fd = fd, .cgroup = "", .container = container};

	return enroll(pods, w, &q);
}

/* The namespace of its sandbox. */
static int enroll_process(struct pods *pods, const struct wanted *w, pid_t pid)
{
	char path[PATH_MAX];
	OWNED_FD int fd = -1;
	dev_t dev;
	ino_t ino;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	fd = netns_open(path);
	if (fd < 0)
		return fd;
	r = netns_identify(fd, &dev, &ino);
	if (r < 0)
		return r;
	if (dev == pods->own_dev && ino == pods->own_ino)
		return log_err(-EINVAL,
			       "pod '%s/%s' is on the node's network, which the API does not say: "
			       "it is not enrolled",
			       w->pod.ns, w->pod.name);
	if (netns_path_find(dev, ino, 0, path) < 0)
		return -ESRCH; /* it has ended meanwhile */
	return enroll_netns(pods, w, fd, path, WANTED_CONTAINER);
}

static int enroll_cgroup(struct pods *pods, const struct wanted *w, const struct found *found)
{
	struct enrol_request q = {.netns = "", .netns_fd = -1, .container = WANTED_CONTAINER};
	char path[2 * PATH_MAX];
	struct stat st;

	for (size_t i = 0; found->cgroup[0] && i < ARRAY_SIZE(cgroup_roots); i++) {
		snprintf(path, sizeof(path), "%s%s", cgroup_roots[i], found->cgroup);
		if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
			continue;
		q.cgroup = path;
		return enroll(pods, w, &q);
	}
	return log_err(
		-EOPNOTSUPP,
		"pod '%s/%s' is on the host's network, and has no cgroup2 of its own to be "
		"captured by: it is NOT confined; exclude its namespace, or have the kubelet "
		"use cgroup2",
		w->pod.ns, w->pod.name);
}

static void enroll_found(struct pods *pods, struct wanted *w, const struct found *found)
{
	int r = -ESRCH;

	if (found->pid != 0)
		r = w->host_network ? enroll_cgroup(pods, w, found)
				    : enroll_process(pods, w, found->pid);
	if (r < 0) {
		if (r == -ESRCH)
			log_debug("pod '%s/%s': no process of it is found", w->pod.ns, w->pod.name);
		later(pods, w);
	}
}

/* It is there under another service account: the API has come to be heard since. */
static void rename_known(struct pods *pods, struct wanted *w, const struct pod *pod)
{
	OWNED_FD int fd = pod->state.by_cgroup ? -1 : pod_open_netns(&pod->state);
	OWNED_MEM char *path = strdup(pod->state.netns);
	struct enrol_request q = {.netns = "", .netns_fd = -1, .cgroup = path};
	char container[sizeof(pod->state.container)];
	int r = -ESRCH;

	memcpy(container, pod->state.container, sizeof(container)); /* the pod goes on the way */
	q.container = container;
	if (path && pod->state.by_cgroup)
		r = enroll(pods, w, &q);
	else if (path && fd >= 0)
		r = enroll_netns(pods, w, fd, path, container);
	if (r < 0)
		later(pods, w);
}

static size_t choose(struct pods *pods, struct wanted *chosen[static AT_ONCE_MAX])
{
	uint64_t now = loop_now_ms(pods->loop);
	size_t n = 0;

	for (struct wanted *w = pods->wanted; w && n < AT_ONCE_MAX; w = w->next) {
		const struct pod *pod = find_enrolled(pods, w);

		if (now < w->not_before_ms || is_well(pods, w))
			continue;
		if (pod ? !is_of_another(w, pod) : w->findable)
			chosen[n++] = w;
	}
	return n;
}

void wanted_look(struct pods *pods)
{
	struct wanted *chosen[AT_ONCE_MAX];
	OWNED_MEM struct found *found = NULL;
	size_t n = choose(pods, chosen), n_find = 0;

	pods->wanted_news = false;
	for (size_t i = 0; i < n; i++) {
		struct pod *known = find_enrolled(pods, chosen[i]);

		if (known)
			rename_known(pods, chosen[i], known);
		else
			chosen[n_find++] = chosen[i];
	}
	found = n_find > 0 ? calloc(n_find, sizeof(*found)) : NULL;
	if (!found)
		return;
	for (size_t i = 0; i < n_find; i++) {
		memcpy(found[i].uid, chosen[i]->uid, sizeof(found[i].uid));
		found[i].on_host = chosen[i]->host_network;
	}
	if (found_scan(found, n_find) < 0)
		return;
	for (size_t i = 0; i < n_find; i++)
		enroll_found(pods, chosen[i], &found[i]);
}

void wanted_free(struct pods *pods)
{
	while (pods->wanted) {
		struct wanted *gone = pods->wanted;

		pods->wanted = gone->next;
		free(gone);
	}
	pods->n_wanted = 0;
}
