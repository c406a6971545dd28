/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/enrol_client.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>

#include "base/netns.h"
#include "base/owned.h"
#include "pod/enrol_limits.h"

#define TIMEOUT_MS 5000
#define ANSWER_MAX 4096
#define SMALL      4096 /* fits into every socket's buffer */

static void free_json(json_t **j)
{
	json_decref(*j);
}

__attribute__((format(printf, 3, 4))) static int
fail(int r, char error[static ENROL_CLIENT_ERROR_MAX], const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, ENROL_CLIENT_ERROR_MAX, format, args);
	va_end(args);
	return r;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* What is left of the time becomes the socket's; -ETIMEDOUT when nothing is. */
static int set_timeout(int fd, int option, uint64_t until_ms)
{
	uint64_t now = now_ms(), left = until_ms > now ? until_ms - now : 0;
	struct timeval tv = {.tv_sec = (time_t)(left / 1000),
			     .tv_usec = (suseconds_t)(left % 1000 * 1000)};

	if (left == 0)
		return -ETIMEDOUT; /* zero would mean for ever */
	return setsockopt(fd, SOL_SOCKET, option, &tv, sizeof(tv)) < 0 ? -errno : 0;
}

/* A message has to fit into the sender's buffer as a whole. The kernel doubles the number for its
 * own needs; only root may go beyond wmem_max.
 */
static void make_room(int fd, size_t len)
{
	int room = (int)len + 4096;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
}

static int make_socket(uint64_t until_ms, size_t len, int *ret)
{
	OWNED_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	if (len > SMALL)
		make_room(fd, len);
	r = set_timeout(fd, SO_SNDTIMEO, until_ms);
	if (r == 0)
		*ret = TAKE_FD(fd);
	return r;
}

static int connect_to(const char *path, uint64_t until_ms, size_t len, int *ret,
		      char error[static ENROL_CLIENT_ERROR_MAX])
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	OWNED_FD int fd = -1;
	int r;

	if (strlen(path) >= sizeof(sa.sun_path))
		return fail(-ENAMETOOLONG, error, "the socket's path '%s' is too long", path);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	r = make_socket(until_ms, len, &fd);
	if (r < 0)
		return fail(r, error, "cannot make a socket: %s", strerrordesc_np(-r));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		r = errno == EAGAIN ? -ETIMEDOUT : -errno; /* as SO_SNDTIMEO has it */
		return fail(r, error,
			    "cannot reach the agent at '%s': %s; is sluice-agent running?", path,
			    strerrordesc_np(-r));
	}
	*ret = TAKE_FD(fd);
	return 0;
}

static char *question_text(const struct enrol_question *q)
{
	OWNED(free_json)
	json_t *json = json_pack("{s:s s:s* s:s* s:s* s:s* s:s* s:s* s:s* s:O*}", "op", q->op,
				 "pod", q->pod, "service_account", q->service_account, "uid",
				 q->uid, "container", q->container, "network", q->network, "netns",
				 q->netns, "cgroup", q->cgroup, "containers", q->containers);

	return json ? json_dumps(json, JSON_COMPACT) : NULL;
}

static int send_question(int fd, const char *text, const int *netns_fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {(char *)text, strlen(text)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;

	if (netns_fd) {
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), netns_fd, sizeof(int));
	}
	if (sendmsg(fd, &msg, MSG_NOSIGNAL) < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return 0;
}

static int read_answer(const char *text, size_t len, char error[static ENROL_CLIENT_ERROR_MAX])
{
	OWNED(free_json) json_t *json = json_loadb(text, len, 0, NULL);
	int ok = 0, enrolled = 1, retry = 0, skipped = 0;
	const char *why = "no reason given";

	if (!json || json_unpack(json, "{s:b s?s s?b s?b s?b}", "ok", &ok, "error", &why,
				 "enrolled", &enrolled, "retry", &retry, "skipped", &skipped) < 0)
		return fail(-EPROTO, error, "the agent's answer is none; do the versions match?");
	if (ok)
		return skipped ? ENROL_CLIENT_SKIPPED : 0;
	return fail(retry ? -EAGAIN : enrolled ? -EREMOTEIO : -ESRCH, error, "%s", why);
}

static int wait_answer(int fd, uint64_t until_ms, char error[static ENROL_CLIENT_ERROR_MAX])
{
	int r = set_timeout(fd, SO_RCVTIMEO, until_ms);
	char buf[ANSWER_MAX];
	ssize_t n = 0;

	if (r == 0) {
		n = recv(fd, buf, sizeof(buf), 0);
		r = n > 0 ? 0 : n == 0 ? -ECONNRESET : errno == EAGAIN ? -ETIMEDOUT : -errno;
	}
	if (r < 0)
		return fail(r, error, "no answer from the agent: %s", strerrordesc_np(-r));
	return read_answer(buf, (size_t)n, error);
}

int enrol_ask(const char *socket_path, const struct enrol_question *q,
	      char error[static ENROL_CLIENT_ERROR_MAX])
{
	uint64_t until = now_ms() + (q->timeout_ms ? q->timeout_ms : TIMEOUT_MS);
	OWNED_MEM char *text = question_text(q);
	OWNED_FD int fd = -1;
	int r;

	if (!text)
		return fail(-EINVAL, error, "the request cannot be written: use UTF-8 only");
	if (strlen(text) > ENROL_MESSAGE_MAX)
		return fail(-EMSGSIZE, error,
			    "the request is too long: %zu bytes, at most %d are taken",
			    strlen(text), ENROL_MESSAGE_MAX);
	r = connect_to(socket_path, until, strlen(text), &fd, error);
	if (r < 0)
		return r;
	r = send_question(fd, text, q->netns_fd);
	if (r < 0 && r != -EPIPE) /* refused without a question: the answer is there already */
		return fail(r, error, "cannot ask the agent: %s", strerrordesc_np(-r));
	return wait_answer(fd, until, error);
}

int enrol_request(const char *socket_path, const char *op, const char *pod,
		  const char *service_account, const char *netns_path,
		  char error[static ENROL_CLIENT_ERROR_MAX])
{
	struct enrol_question q = {
		.op = op, .pod = pod, .service_account = service_account, .netns = netns_path};
	OWNED_FD int netns_fd = -1;

	if (netns_path) {
		netns_fd = netns_open(netns_path);
		if (netns_fd < 0)
			return fail(netns_fd, error, "'%s' is no network namespace: %s", netns_path,
				    strerrordesc_np(-netns_fd));
		q.netns_fd = &netns_fd;
	}
	return enrol_ask(socket_path, &q, error);
}

int enrol_request_within(const char *socket_path, const char *op, const char *pod,
			 const char *service_account, int netns_fd,
			 char error[static ENROL_CLIENT_ERROR_MAX])
{
	struct enrol_question q = {.op = op,
				   .pod = pod,
				   .service_account = service_account,
				   .netns_fd = netns_fd >= 0 ? &netns_fd : NULL};

	return enrol_ask(socket_path, &q, error);
}

int enrol_request_cgroup(const char *socket_path, const char *pod, const char *service_account,
			 const char *cgroup_path, char error[static ENROL_CLIENT_ERROR_MAX])
{
	struct enrol_question q = {.op = "enroll",
				   .pod = pod,
				   .service_account = service_account,
				   .cgroup = cgroup_path};

	return enrol_ask(socket_path, &q, error);
}
