/* SPDX-License-Identifier: Apache-2.0 */
#include "base/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/owned.h"

int netns_enter(int netns_fd, int *ret_home)
{
	OWNED_FD int home = -1;

	home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0)
		return -errno;
	if (setns(netns_fd, CLONE_NEWNET) < 0)
		return -errno;
	*ret_home = TAKE_FD(home);
	return 0;
}

void netns_leave(int *home)
{
	if (*home < 0)
		return;
	if (setns(*home, CLONE_NEWNET) < 0)
		abort(); /* going on in the wrong namespace would program somebody else's network */
	owned_close(home);
	*home = -1;
}

int netns_open(const char *path)
{
	OWNED_FD int fd = -1;
	int type;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	type = ioctl(fd, NS_GET_NSTYPE);
	if (type != CLONE_NEWNET)
		return -ENOTTY;
	return TAKE_FD(fd);
}

int netns_identify(int netns_fd, dev_t *ret_dev, ino_t *ret_ino)
{
	struct stat st;

	if (fstat(netns_fd, &st) < 0)
		return -errno;
	*ret_dev = st.st_dev;
	*ret_ino = st.st_ino;
	return 0;
}
