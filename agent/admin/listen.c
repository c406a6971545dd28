/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/owned.h"

static bool is_wildcard(const struct addr *addr)
{
	static const struct addr any;

	return addr_ip_equal(addr, &any);
}

static int open_tcp(const struct addr *addr)
{
	struct sockaddr_storage sa;
	socklen_t len = addr_to_sockaddr(addr, &sa);
	OWNED_FD int fd = -1;
	int on = 1, off = 0;

	fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -errno;
	if (is_wildcard(addr) && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&sa, len) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int listen_open_tcp(const struct addr *addr)
{
	struct addr v4 = {.ip = {[10] = 0xff, [11] = 0xff}, .port = addr->port};
	int fd = open_tcp(addr);

	/* A machine without IPv6 has a wildcard all the same. */
	return fd == -EAFNOSUPPORT && is_wildcard(addr) ? open_tcp(&v4) : fd;
}

static int unix_address(const char *path, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	memcpy(ret->sun_path, path, strlen(path));
	return 0;
}

/* Removes what a killed predecessor left, and nothing else. */
static int remove_stale(const struct sockaddr_un *sa)
{
	OWNED_FD int fd = -1;
	struct stat st;

	if (lstat(sa->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 || errno != ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(sa->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static void make_folder_of(const char *path)
{
	OWNED_MEM char *folder = strdup(path);
	char *slash = folder ? strrchr(folder, '/') : NULL;

	if (!slash || slash == folder)
		return;
	*slash = '\0';
	mkdir(folder, 0755); /* whatever is wrong shows when the socket is bound */
}

int listen_open_unix(const char *path)
{
	OWNED_FD int fd = -1;
	struct sockaddr_un sa;
	int r;

	r = unix_address(path, &sa);
	if (r < 0)
		return r;
	make_folder_of(path);
	r = remove_stale(&sa);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return -errno;
	/* Nobody can connect before listen(), so there is no moment with a wider mode. */
	if (chmod(path, 0600) < 0 || listen(fd, SOMAXCONN) < 0) {
		r = -errno;
		unlink(path);
		return r;
	}
	return TAKE_FD(fd);
}
