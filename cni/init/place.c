/* SPDX-License-Identifier: Apache-2.0 */
#include "init/place.h"

#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/netns.h"
#include "base/owned.h"
#include "redirect/plan.h"

int place_enter(const char *path)
{
	OWNED_FD int fd = netns_open(*path ? path : "/proc/thread-self/ns/net");

	if (fd < 0)
		return fd;
	if (*path && setns(fd, CLONE_NEWNET) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* Settings that are the machine's, not a namespace's, are shown in the first namespace only
 * (net_core_table in the kernel's net/core/sysctl_net_core.c).
 */
bool place_is_the_nodes(void)
{
	return access("/proc/sys/net/core/netdev_max_backlog", F_OK) == 0;
}

int place_has_listener(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_port = htons(PLAN_CAPTURE_PORT),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	OWNED_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* Connections that have ended are in nobody's way; listeners are, all the same. */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0)
		return 0;
	return errno == EADDRINUSE ? 1 : -errno;
}
