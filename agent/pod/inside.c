/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/inside.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "base/netns.h"
#include "base/owned.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* Linux 5.14 */
#endif

/* Writes the text and the errno's, and returns r. */
__attribute__((format(printf, 3, 4))) static int fail(int r, char error[static INSIDE_ERROR_MAX],
						      const char *format, ...)
{
	va_list args;
	size_t n;

	va_start(args, format);
	vsnprintf(error, INSIDE_ERROR_MAX, format, args);
	va_end(args);
	n = strlen(error);
	snprintf(error + n, INSIDE_ERROR_MAX - n, ": %s", strerrordesc_np(-r));
	return r;
}

static int enter(int netns_fd, int *ret_home, char error[static INSIDE_ERROR_MAX])
{
	int r = netns_enter(netns_fd, ret_home);

	return r < 0 ? fail(r, error, "cannot enter the network namespace") : 0;
}

/* ---- lo ---- */

static void free_nl(struct nl_sock **sk)
{
	nl_socket_free(*sk);
}

static void put_link(struct rtnl_link **link)
{
	rtnl_link_put(*link);
}

static int nl_errno(int nl_error)
{
	switch (-nl_error) {
	case NLE_NOMEM:
		return -ENOMEM;
	case NLE_PERM:
		return -EPERM;
	case NLE_OBJ_NOTFOUND:
	case NLE_NODEV:
		return -ENODEV;
	default:
		return -EIO;
	}
}

static int raise_lo(struct nl_sock *sk, struct rtnl_link *lo)
{
	OWNED(put_link) struct rtnl_link *change = NULL;
	int r;

	if (rtnl_link_get_flags(lo) & IFF_UP)
		return 0;
	change = rtnl_link_alloc();
	if (!change)
		return -ENOMEM;
	rtnl_link_set_flags(change, IFF_UP);
	r = rtnl_link_change(sk, lo, change, 0);
	return r < 0 ? nl_errno(r) : 0;
}

/* A pod's `lo` is raised by its container runtime, perhaps only after us; the redirection needs it
 * now.
 */
static int bring_lo_up(void)
{
	OWNED(free_nl) struct nl_sock *sk = nl_socket_alloc();
	OWNED(put_link) struct rtnl_link *lo = NULL;
	int r;

	if (!sk)
		return -ENOMEM;
	r = nl_connect(sk, NETLINK_ROUTE);
	if (r < 0)
		return nl_errno(r);
	r = rtnl_link_get_kernel(sk, 0, "lo", &lo);
	if (r < 0)
		return nl_errno(r);
	return raise_lo(sk, lo);
}

/* ---- listeners ---- */

static int listen_on(const struct sockaddr *sa, socklen_t len)
{
	OWNED_FD int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0)
		return -errno;
	if (sa->sa_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){1}, sizeof(int)) < 0)
		return -errno;
	if (bind(fd, sa, len) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int open_listeners(uint16_t port, int ret_fds[2], char error[static INSIDE_ERROR_MAX])
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
				   .sin6_port = htons(port),
				   .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	OWNED_FD int v4 = -1;
	int v6;

	v4 = listen_on((struct sockaddr *)&in, sizeof(in));
	if (v4 < 0)
		return fail(v4, error, "cannot listen on 127.0.0.1:%u in the pod%s", port,
			    v4 == -EADDRINUSE ? " (it must be left to the agent)" : "");
	v6 = listen_on((struct sockaddr *)&in6, sizeof(in6));
	/* Without IPv6 here nobody can ask for it; the rules refuse it all the same. */
	if (v6 < 0 && v6 != -EAFNOSUPPORT && v6 != -EADDRNOTAVAIL)
		return fail(v6, error, "cannot listen on [::1]:%u in the pod%s", port,
			    v6 == -EADDRINUSE ? " (it must be left to the agent)" : "");
	ret_fds[0] = TAKE_FD(v4);
	ret_fds[1] = v6 < 0 ? -1 : v6;
	return 0;
}

static int cookie_of(int fd, uint64_t *ret)
{
	socklen_t len = sizeof(*ret);

	if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret, &len) == 0)
		return 0;
	if (errno != ENOPROTOOPT)
		return -errno;
	*ret = 0;
	return 0;
}

/* ---- what others call ---- */

/* In the namespace already. 1: something had to be done. */
static int put_rules(const struct redirector *how, const struct plan *plan,
		     char error[static INSIDE_ERROR_MAX])
{
	int r;

	if (how->verify(plan) == 0)
		return 0;
	r = how->apply(plan);
	return r < 0 ? fail(r, error, "%s: cannot put the rules in place", how->name) : 1;
}

int inside_enrol(int netns_fd, const struct redirector *how, const struct plan *plan,
		 int ret_fds[2], uint64_t *ret_cookie, char error[static INSIDE_ERROR_MAX])
{
	OWNED(netns_leave) int home = -1;
	int fds[2] = {-1, -1}, r;
	uint64_t cookie = 0;

	r = enter(netns_fd, &home, error);
	if (r < 0)
		return r;
	r = put_rules(how, plan, error);
	if (r < 0)
		return r;
	r = bring_lo_up();
	if (r < 0)
		return fail(r, error, "cannot bring the pod's 'lo' up");
	r = open_listeners(plan->capture_port, fds, error);
	if (r < 0)
		return r;
	r = cookie_of(fds[0], &cookie);
	if (r < 0) {
		owned_close(&fds[0]);
		owned_close(&fds[1]);
		return fail(r, error, "cannot ask for the namespace's cookie");
	}
	ret_fds[0] = fds[0];
	ret_fds[1] = fds[1];
	*ret_cookie = cookie;
	return 0;
}

int inside_close(int netns_fd, const struct redirector *how, const struct plan *plan,
		 char error[static INSIDE_ERROR_MAX])
{
	int r = inside_repair(netns_fd, how, plan, error);

	return r < 0 ? r : 0;
}

int inside_repair(int netns_fd, const struct redirector *how, const struct plan *plan,
		  char error[static INSIDE_ERROR_MAX])
{
	OWNED(netns_leave) int home = -1;
	int r;

	r = enter(netns_fd, &home, error);
	if (r < 0)
		return r;
	return put_rules(how, plan, error);
}

int inside_verify(int netns_fd, const struct redirector *how, const struct plan *plan,
		  char error[static INSIDE_ERROR_MAX])
{
	OWNED(netns_leave) int home = -1;
	int r;

	r = enter(netns_fd, &home, error);
	if (r < 0)
		return r;
	r = how->verify(plan);
	return r < 0 ? fail(r, error, "%s: the rules are not as planned", how->name) : 0;
}

int inside_remove(int netns_fd, const struct redirector *how, char error[static INSIDE_ERROR_MAX])
{
	OWNED(netns_leave) int home = -1;
	int r;

	r = enter(netns_fd, &home, error);
	if (r < 0)
		return r;
	r = how->remove();
	return r < 0 ? fail(r, error, "%s: cannot remove the rules", how->name) : 0;
}

int inside_cookie(int netns_fd, uint64_t *ret)
{
	OWNED(netns_leave) int home = -1;
	OWNED_FD int fd = -1;
	int r;

	r = netns_enter(netns_fd, &home);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	return cookie_of(fd, ret);
}
