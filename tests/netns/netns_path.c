/* SPDX-License-Identifier: Apache-2.0 */

/* For tests: netns_path NETNS [PID]. Prints the path that netns_path_find() finds for the
 * namespace, PID excepted, or the name of the errno, and how long it took in microseconds.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/netns.h"
#include "base/owned.h"
#include "pod/netns_path.h"

static long now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

int main(int argc, char **argv)
{
	OWNED_FD int fd = argc > 1 ? netns_open(argv[1]) : -EINVAL;
	pid_t not_pid = argc > 2 ? atoi(argv[2]) : 0;
	char path[PATH_MAX] = "";
	long start;
	dev_t dev;
	ino_t ino;
	int r;

	if (fd < 0 || netns_identify(fd, &dev, &ino) < 0) {
		fprintf(stderr, "usage: netns_path NETNS [PID]\n");
		return 2;
	}
	start = now_us();
	r = netns_path_find(dev, ino, not_pid, path);
	printf("%s %ld\n", r < 0 ? strerrorname_np(-r) : path, now_us() - start);
	return 0;
}
