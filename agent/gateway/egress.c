/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/egress.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/owned.h"

int egress_init(struct egress *e, const struct addr *ips, size_t n, uint64_t seed)
{
	*e = (struct egress){.turn = {seed, seed >> 32}};
	if (n == 0)
		return 0;
	e->ips = calloc(n, sizeof(e->ips[0]));
	e->in_use = calloc(n, sizeof(e->in_use[0]));
	if (!e->ips || !e->in_use) {
		egress_done(e);
		return -ENOMEM;
	}
	e->n = n;
	for (size_t i = 0; i < n; i++) {
		e->ips[i] = ips[i];
		e->ips[i].port = 0;
		e->n_of[!addr_is_v4(&ips[i])]++;
	}
	return 0;
}

void egress_done(struct egress *e)
{
	free(e->ips);
	free(e->in_use);
	*e = (struct egress){0};
}

bool egress_can(const struct egress *e, bool v6)
{
	return e->n == 0 || e->n_of[v6] > 0;
}

static const struct addr *next_source(struct egress *e, bool v6)
{
	uint64_t nth = e->turn[v6]++ % e->n_of[v6];
	size_t i = 0;

	while (addr_is_v4(&e->ips[i]) == v6 || nth-- > 0)
		i++;
	return &e->ips[i];
}

/* Without IP_BIND_ADDRESS_NO_PORT bind() would choose the port knowing nothing of the destination,
 * and one source address would be good for 28,000 connections altogether instead of to each host.
 * (The option is of the IP level for IPv6 sockets, too.)
 */
static int bind_to(int fd, const struct addr *source)
{
	struct sockaddr_storage sa;
	socklen_t len = addr_to_sockaddr(source, &sa);

	if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){1}, sizeof(int)) < 0)
		return -errno;
	return bind(fd, (struct sockaddr *)&sa, len) < 0 ? -errno : 0;
}

/* `source` NULL: the kernel's choice. */
static int connect_from(const struct addr *source, const struct addr *dst, int *ret_fd)
{
	struct sockaddr_storage sa;
	socklen_t len = addr_to_sockaddr(dst, &sa);
	OWNED_FD int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	if (source) {
		r = bind_to(fd, source);
		if (r < 0)
			return r;
	}
	if (connect(fd, (struct sockaddr *)&sa, len) < 0 && errno != EINPROGRESS)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int egress_connect(struct egress *e, const struct addr *dst, int *ret_fd)
{
	bool v6 = !addr_is_v4(dst);
	int r = -EADDRNOTAVAIL;

	if (!egress_can(e, v6))
		return -EAFNOSUPPORT;
	if (e->n == 0)
		return connect_from(NULL, dst, ret_fd);
	/* EADDRNOTAVAIL: the address is not there, or all its ports towards dst are taken. */
	for (size_t i = 0; i < e->n_of[v6] && r == -EADDRNOTAVAIL; i++)
		r = connect_from(next_source(e, v6), dst, ret_fd);
	return r;
}

static int set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

int egress_settle(int fd, struct addr *ret_src)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	int r;

	r = set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (r < 0)
		return r;
	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		return -errno;
	return addr_from_sockaddr(&sa, ret_src);
}

static atomic_uint *counter_of(struct egress *e, const struct addr *src)
{
	for (size_t i = 0; i < e->n; i++)
		if (addr_ip_equal(&e->ips[i], src))
			return &e->in_use[i];
	return NULL;
}

void egress_take(struct egress *e, const struct addr *src)
{
	atomic_uint *counter = counter_of(e, src);

	if (counter)
		atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

void egress_drop(struct egress *e, const struct addr *src)
{
	atomic_uint *counter = counter_of(e, src);

	if (counter)
		atomic_fetch_sub_explicit(counter, 1, memory_order_relaxed);
}
