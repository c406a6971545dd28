/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/enrol_server.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "pod/netns_path.h"

#define CLIENTS_MAX       64
#define CLIENT_TIMEOUT_MS 10000
#define PAUSE_MS          200
#define FDS_MAX           8 /* room for more than the one that is allowed, to see and close them */

struct client {
	struct watch watch;
	struct timer timeout;
	struct later later;
	struct enrol_server *server;
	struct client *next, **link;
};

struct enrol_server {
	struct watch watch;
	struct later later;
	struct loop *loop;
	enrol_handler *handle;
	void *ctx;
	struct timer resume; /* accepting goes on, after descriptors had run out */
	struct client *clients;
	unsigned n_clients;
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	char text[ENROL_MESSAGE_MAX]; /* of the message that is being read */
};

static void free_json(json_t **j)
{
	json_decref(*j);
}

/* ---- one message ---- */

struct incoming {
	char *text; /* the server's room for ENROL_MESSAGE_MAX bytes */
	size_t len;
	int fd; /* -1: none came */
};

/* Keeps the only descriptor; when there are more, all are closed and -EINVAL is returned. */
static int take_fds(struct msghdr *msg, int *ret)
{
	int fds[FDS_MAX];
	size_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t bytes = c->cmsg_len - CMSG_LEN(0);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i + sizeof(int) <= bytes && n < FDS_MAX; i += sizeof(int))
			memcpy(&fds[n++], CMSG_DATA(c) + i, sizeof(int));
	}
	if (n > 1) {
		for (size_t i = 0; i < n; i++)
			close(fds[i]);
		return -EINVAL;
	}
	*ret = n == 1 ? fds[0] : -1;
	return 0;
}

/* 1: a message. 0: the peer has closed. -EAGAIN: nothing yet. -EMSGSIZE, -EINVAL: one that is
 * refused. -errno.
 */
static int receive(int fd, struct incoming *in)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {in->text, ENROL_MESSAGE_MAX};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	int r;

	in->fd = -1;
	if (n < 0)
		return -errno;
	r = take_fds(&msg, &in->fd);
	if (r < 0)
		return r;
	if (n == 0 && in->fd < 0)
		return 0;
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		owned_close(&in->fd);
		return msg.msg_flags & MSG_TRUNC ? -EMSGSIZE : -EINVAL;
	}
	in->len = (size_t)n;
	return 1;
}

/* ---- what it asks ---- */

static bool parse_op(const char *text, enum enrol_op *ret)
{
	static const char *const names[] = {
		[ENROL_OP_ENROLL] = "enroll", [ENROL_OP_UNENROLL] = "unenroll",
		[ENROL_OP_CHECK] = "check",   [ENROL_OP_DELETE] = "delete",
		[ENROL_OP_GC] = "gc",         [ENROL_OP_STATUS] = "status",
	};
	_Static_assert(ARRAY_SIZE(names) == ENROL_OP_N_, "every op has a name");

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(text, names[i]) == 0) {
			*ret = (enum enrol_op)i;
			return true;
		}
	}
	return false;
}

/* What CNI takes for the id of a container or the name of a network; "" is none. */
static bool is_id(const char *text)
{
	if (strlen(text) > ENROL_ID_MAX || (*text && !isalnum((unsigned char)*text)))
		return false;
	for (const char *p = text; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("_.-", *p))
			return false;
	}
	return true;
}

/* NULL, or what is wrong. */
static const char *read_place(const char *netns, const char *cgroup, int fd,
			      struct enrol_request *q)
{
	if (cgroup[0]) {
		if (cgroup[0] != '/' || strlen(cgroup) >= PATH_MAX)
			return "\"cgroup\" must be an absolute path";
		q->cgroup = cgroup;
		return NULL;
	}
	if (netns[0] && (netns[0] != '/' || strlen(netns) >= PATH_MAX))
		return "\"netns\" must be an absolute path, or be left out";
	if (fd < 0)
		return "send the open network namespace along (SCM_RIGHTS)";
	q->netns = netns;
	q->netns_fd = fd;
	return NULL;
}

/* NULL, or what is wrong. `room` is for ENROL_CONTAINERS_MAX. */
static const char *read_containers(json_t *list, const char **room, struct enrol_request *q)
{
	size_t i;
	json_t *one;

	if (!json_is_array(list) || json_array_size(list) > ENROL_CONTAINERS_MAX)
		return "\"containers\" must be an array of at most 4096 ids";
	json_array_foreach(list, i, one)
	{
		room[i] = json_string_value(one);
		if (!room[i] || !room[i][0] || !is_id(room[i]))
			return "\"containers\" holds something that is no container's id";
	}
	q->containers = room;
	q->n_containers = json_array_size(list);
	return NULL;
}
_Static_assert(ENROL_CONTAINERS_MAX == 4096, "the text above says so");

/* NULL, or what is wrong. */
static const char *read_ids(const struct enrol_request *q)
{
	if (!is_id(q->container) || !is_id(q->network) || !is_id(q->uid))
		return "\"container\", \"network\" and \"uid\" must be of letters, digits, '_', "
		       "'.' and '-', at most 128";
	if (q->op == ENROL_OP_DELETE && !q->container[0])
		return "\"delete\" needs \"container\", the id of the sandbox that goes";
	return NULL;
}
_Static_assert(ENROL_ID_MAX == 128, "the text above says so");

static bool is_about_a_pod(enum enrol_op op)
{
	return op == ENROL_OP_ENROLL || op == ENROL_OP_UNENROLL || op == ENROL_OP_CHECK;
}

/* NULL, or what is wrong. The strings belong to the JSON. */
static const char *read_request(json_t *json, int fd, const char **room, struct enrol_request *ret)
{
	const char *op = NULL, *pod = "", *sa = "", *netns = "", *cgroup = "", *why;
	struct enrol_request q = {.netns_fd = -1, .netns = "", .cgroup = ""};
	json_t *containers = NULL;

	q.container = q.network = q.uid = "";
	if (json_unpack(json, "{s:s s?s s?s s?s s?s s?s s?s s?s s?o}", "op", &op, "pod", &pod,
			"service_account", &sa, "netns", &netns, "cgroup", &cgroup, "container",
			&q.container, "network", &q.network, "uid", &q.uid, "containers",
			&containers) < 0)
		return "send a JSON object with the strings \"op\" and \"pod\"";
	if (!parse_op(op, &q.op))
		return "\"op\" must be enroll, unenroll or check, or a container runtime's "
		       "delete, gc or status";
	if ((pod[0] || is_about_a_pod(q.op)) && pod_name_parse(pod, &q.pod) < 0)
		return "\"pod\" must be NAMESPACE/NAME as Kubernetes allows them";
	if (*sa && !pod_subdomain_is_valid(sa))
		return "\"service_account\" must be a name as Kubernetes allows it";
	q.service_account = sa;
	why = read_ids(&q);
	if (!why && q.op == ENROL_OP_ENROLL)
		why = read_place(netns, cgroup, fd, &q);
	if (!why && q.op == ENROL_OP_GC)
		why = read_containers(containers, room, &q);
	if (!why)
		*ret = q;
	return why;
}

/* Who asks from within a container knows no path that leads the agent anywhere. Who asks is no
 * path either: it ends before its pod does.
 */
static const char *find_netns(int netns_fd, int peer_fd, char path[static PATH_MAX])
{
	struct ucred peer = {0};
	socklen_t len = sizeof(peer);
	dev_t dev;
	ino_t ino;

	if (netns_identify(netns_fd, &dev, &ino) < 0 ||
	    getsockopt(peer_fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 ||
	    netns_path_find(dev, ino, peer.pid, path) < 0)
		return "the agent finds no path to the namespace that was sent: run it with "
		       "hostPID, "
		       "so that it sees the pod's processes, or mount /run/netns into it, "
		       "propagation HostToContainer";
	return NULL;
}

static int do_request(struct enrol_server *server, const struct incoming *in, int peer_fd,
		      char error[static ENROL_ERROR_MAX])
{
	OWNED(free_json)
	json_t *json = json_loadb(in->text, in->len, JSON_REJECT_DUPLICATES, NULL);
	const char *why, *containers[ENROL_CONTAINERS_MAX];
	struct enrol_request request;
	char path[PATH_MAX];
	int r;

	why = json ? read_request(json, in->fd, containers, &request) : "the request is not JSON";
	if (!why && request.op == ENROL_OP_ENROLL && !request.netns[0] && !request.cgroup[0]) {
		why = find_netns(request.netns_fd, peer_fd, path);
		request.netns = path;
	}
	if (why) {
		snprintf(error, ENROL_ERROR_MAX, "%s", why);
		return -EINVAL;
	}
	r = server->handle(server->ctx, &request, error);
	return r == -ENOENT && request.op == ENROL_OP_CHECK ? -ESRCH : r;
}

/* ---- clients ---- */

static void run_free_client(struct later *l)
{
	free(CONTAINER_OF(l, struct client, later));
}

static void drop(struct client *c)
{
	struct enrol_server *server = c->server;

	if (c->watch.fd < 0)
		return;
	watch_close(&c->watch);
	timer_stop(server->loop, &c->timeout);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	server->n_clients--;
	loop_later(server->loop, &c->later);
}

static void on_client_timeout(struct timer *t)
{
	drop(CONTAINER_OF(t, struct client, timeout));
}

/* What an answer says besides its outcome; NULL: nothing. */
static const char *answer_note(int r, json_t **ret)
{
	*ret = r == -ESRCH ? json_false() : json_true();
	switch (r) {
	case 1:
		return "skipped";
	case -ESRCH:
		return "enrolled";
	case -EAGAIN:
		return "retry";
	}
	return NULL;
}

/* Whoever does not take the answer at once has no use for it. */
static void answer(int fd, int r, const char *error)
{
	OWNED(free_json)
	json_t *json = r < 0 ? json_pack("{s:b s:s}", "ok", 0, "error", error)
			     : json_pack("{s:b}", "ok", 1);
	OWNED_MEM char *text = NULL;
	json_t *value;
	const char *note = answer_note(r, &value);

	if (json && note && json_object_set_new(json, note, value) < 0)
		return;
	if (json)
		text = json_dumps(json, JSON_COMPACT);
	if (!text || send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("cannot answer an enrolment client");
}

static void on_client(struct watch *w, uint32_t events)
{
	struct client *c = CONTAINER_OF(w, struct client, watch);
	char error[ENROL_ERROR_MAX] = "";
	struct incoming in = {.text = c->server->text};
	int r;

	(void)events;
	r = receive(w->fd, &in);
	if (r == -EAGAIN || r == -EINTR)
		return;
	if (r == -EMSGSIZE || r == -EINVAL) {
		answer(w->fd, r, "the request is too long or carries more than one descriptor");
		return drop(c);
	}
	if (r <= 0)
		return drop(c);

	r = do_request(c->server, &in, w->fd, error);
	owned_close(&in.fd);
	answer(w->fd, r, error);
	timer_start(c->server->loop, &c->timeout, CLIENT_TIMEOUT_MS);
}

static bool is_root(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == 0;
}

static int client_new(struct enrol_server *server, int *fd)
{
	struct client *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->watch = (struct watch){.fd = *fd, .on_event = on_client};
	c->timeout.on_expire = on_client_timeout;
	c->later.run = run_free_client;
	c->server = server;
	r = watch_add(server->loop, &c->watch, EPOLLIN);
	if (r < 0) {
		free(c);
		return r;
	}
	TAKE_FD(*fd);
	c->next = server->clients;
	c->link = &server->clients;
	if (c->next)
		c->next->link = &c->next;
	server->clients = c;
	server->n_clients++;
	timer_start(server->loop, &c->timeout, CLIENT_TIMEOUT_MS);
	return 0;
}

static void on_resume(struct timer *t)
{
	struct enrol_server *server = CONTAINER_OF(t, struct enrol_server, resume);

	if (watch_change(server->loop, &server->watch, EPOLLIN) < 0)
		timer_start(server->loop, t, PAUSE_MS);
}

/* Out of descriptors or memory: the socket stays readable, and asking again at once would only
 * burn the CPU.
 */
static void pause_accepting(struct enrol_server *server)
{
	if (watch_change(server->loop, &server->watch, 0) == 0)
		timer_start(server->loop, &server->resume, PAUSE_MS);
}

static void on_accept(struct watch *w, uint32_t events)
{
	struct enrol_server *server = CONTAINER_OF(w, struct enrol_server, watch);
	OWNED_FD int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
		return pause_accepting(server);
	if (fd < 0)
		return;
	if (!is_root(fd))
		answer(fd, -EPERM, "only root may enrol pods");
	else if (server->n_clients >= CLIENTS_MAX)
		answer(fd, -EAGAIN, "too many enrolments at once, try again");
	else if (client_new(server, &fd) < 0)
		answer(fd, -EAGAIN, "out of memory, try again");
}

/* ---- the socket ---- */

static int make_parent(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)NULL)->sun_path)];

	snprintf(dir, sizeof(dir), "%s", path);
	for (char *p = dir + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		if (mkdir(dir, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

/* Removes a socket that nobody answers on; -EADDRINUSE when somebody does. */
static int remove_stale(const struct sockaddr_un *sa)
{
	OWNED_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 || errno == EAGAIN)
		return -EADDRINUSE;
	if (errno == ENOENT)
		return 0;
	if (errno != ECONNREFUSED)
		return -errno; /* not a socket of ours: leave it alone */
	return unlink(sa->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static int listen_at(const struct sockaddr_un *sa)
{
	OWNED_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return -errno;
	r = make_parent(sa->sun_path);
	if (r < 0)
		return r;
	r = remove_stale(sa);
	if (r < 0)
		return r;
	/* bind() takes the mode of the socket; umask is shared by all threads. */
	if (fchmod(fd, 0600) < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static void run_free_server(struct later *l)
{
	free(CONTAINER_OF(l, struct enrol_server, later));
}

int enrol_server_new(struct enrol_server **ret, struct loop *loop, const char *path,
		     enrol_handler *handle, void *ctx)
{
	OWNED_MEM struct enrol_server *server = NULL;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	OWNED_FD int fd = -1;
	int r;

	if (strlen(path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	memcpy(sa.sun_path, path, strlen(path) + 1);
	server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	fd = listen_at(&sa);
	if (fd < 0)
		return fd;
	memcpy(server->path, sa.sun_path, sizeof(server->path));
	server->watch = (struct watch){.fd = fd, .on_event = on_accept};
	server->later.run = run_free_server;
	server->resume.on_expire = on_resume;
	server->loop = loop;
	server->handle = handle;
	server->ctx = ctx;
	r = watch_add(loop, &server->watch, EPOLLIN);
	if (r < 0) {
		unlink(path);
		return r;
	}
	TAKE_FD(fd);
	*ret = TAKE_PTR(server);
	return 0;
}

void enrol_server_free(struct enrol_server *server)
{
	if (!server)
		return;
	while (server->clients)
		drop(server->clients);
	unlink(server->path);
	watch_close(&server->watch);
	timer_stop(server->loop, &server->resume);
	loop_later(server->loop, &server->later);
}
