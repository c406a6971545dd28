/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/enrol_client.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "base/netns.h"
#include "base/owned.h"

#define TIMEOUT_S  5
#define ANSWER_MAX 4096

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

static int connect_to(const char *path, int *ret, char error[static ENROL_CLIENT_ERROR_MAX])
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct timeval wait = {.tv_sec = TIMEOUT_S};
	OWNED_FD int fd = -1;
	int r;

	if (strlen(path) >= sizeof(sa.sun_path))
		return fail(-ENAMETOOLONG, error, "the socket's path '%s' is too long", path);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) < 0) {
		r = -errno;
		return fail(r, error, "cannot make a socket: %s", strerrordesc_np(-r));
	}
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		r = -errno;
		return fail(r, error,
			    "cannot reach the agent at '%s': %s; is sluice-agent running?", path,
			    strerrordesc_np(-r));
	}
	*ret = TAKE_FD(fd);
	return 0;
}

static char *request_text(const char *op, const char *pod, const char *service_account,
			  const char *netns_path)
{
	OWNED(free_json)
	json_t *json = json_pack("{s:s s:s s:s*}", "op", op, "pod", pod, "service_account",
				 service_account && *service_account ? service_account : NULL);

	if (json && netns_path && json_object_set_new(json, "netns", json_string(netns_path)) < 0)
		return NULL;
	return json ? json_dumps(json, JSON_COMPACT) : NULL;
}

static int send_request(int fd, const char *text, int netns_fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {(char *)text, strlen(text)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;

	if (netns_fd >= 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &netns_fd, sizeof(int));
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int read_answer(int fd, char error[static ENROL_CLIENT_ERROR_MAX])
{
	OWNED(free_json) json_t *json = NULL;
	const char *why = "no reason given";
	char buf[ANSWER_MAX];
	int ok = 0, r;
	ssize_t n = recv(fd, buf, sizeof(buf), 0);

	if (n < 0) {
		r = errno == EAGAIN ? -ETIMEDOUT : -errno;
		return fail(r, error, "no answer from the agent: %s", strerrordesc_np(-r));
	}
	json = json_loadb(buf, (size_t)n, 0, NULL);
	if (!json || json_unpack(json, "{s:b s?s}", "ok", &ok, "error", &why) < 0)
		return fail(-EPROTO, error, "the agent's answer is none; do the versions match?");
	return ok ? 0 : fail(-EREMOTEIO, error, "%s", why);
}

int enrol_request(const char *socket_path, const char *op, const char *pod,
		  const char *service_account, const char *netns_path,
		  char error[static ENROL_CLIENT_ERROR_MAX])
{
	OWNED_FD int fd = -1, netns_fd = -1;
	OWNED_MEM char *text = NULL;
	int r;

	if (netns_path) {
		netns_fd = netns_open(netns_path);
		if (netns_fd < 0)
			return fail(netns_fd, error, "'%s' is no network namespace: %s", netns_path,
				    strerrordesc_np(-netns_fd));
	}
	text = request_text(op, pod, service_account, netns_path);
	if (!text)
		return fail(-EINVAL, error, "the request cannot be written: use UTF-8 only");
	r = connect_to(socket_path, &fd, error);
	if (r < 0)
		return r;
	r = send_request(fd, text, netns_fd);
	if (r < 0 && r != -EPIPE) /* refused without a question: the answer is there already */
		return fail(r, error, "cannot ask the agent: %s", strerrordesc_np(-r));
	return read_answer(fd, error);
}
