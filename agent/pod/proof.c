/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/proof.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/netns.h"
#include "base/owned.h"

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* 0 when `events` came, or something that the next call will tell. */
static int wait_for(int fd, short events, int64_t until_ms)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = events};
		int64_t left = until_ms - now_ms();
		int n = left > 0 ? poll(&p, 1, (int)left) : 0;

		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

static int start(const struct addr *dst, int *ret)
{
	struct sockaddr_storage sa;
	socklen_t len = addr_to_sockaddr(dst, &sa);
	OWNED_FD int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return errno == EAFNOSUPPORT ? -ENETUNREACH : -errno;
	if (connect(fd, (struct sockaddr *)&sa, len) < 0 && errno != EINPROGRESS)
		return errno == EADDRNOTAVAIL ? -ENETUNREACH : -errno;
	*ret = TAKE_FD(fd);
	return 0;
}

static int finish(int fd, int64_t until_ms)
{
	socklen_t len = sizeof(int);
	int error = 0, r = wait_for(fd, POLLOUT, until_ms);

	if (r < 0)
		return r;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -errno;
	return -error;
}

static int read_token(int fd, int64_t until_ms, uint8_t ret[static PROOF_TOKEN])
{
	size_t n = 0;

	while (n < PROOF_TOKEN) {
		ssize_t got = recv(fd, ret + n, PROOF_TOKEN - n, MSG_DONTWAIT);

		if (got > 0) {
			n += (size_t)got;
			continue;
		}
		if (got == 0)
			return -EBADMSG;
		if (errno != EAGAIN)
			return -errno;
		got = wait_for(fd, POLLIN, until_ms);
		if (got < 0)
			return (int)got;
	}
	return 0;
}

int proof_try(int netns_fd, const struct addr *dst, const uint8_t token[static PROOF_TOKEN],
	      int timeout_ms)
{
	int64_t until_ms = now_ms() + timeout_ms;
	OWNED(netns_leave) int home = -1;
	uint8_t answer[PROOF_TOKEN];
	OWNED_FD int fd = -1;
	int r;

	r = netns_enter(netns_fd, &home);
	if (r < 0)
		return r;
	r = start(dst, &fd);
	netns_leave(&home); /* the socket stays where it was made */
	if (r == 0)
		r = finish(fd, until_ms);
	if (r == 0)
		r = read_token(fd, until_ms, answer);
	if (r == 0 && memcmp(answer, token, PROOF_TOKEN) != 0)
		r = -EBADMSG;
	return r;
}
