/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Finds a path that leads to a network namespace and lasts as long as the pod: by it the agent
 * opens the namespace again after a restart, and sees that the pod is gone. Any thread; does not
 * log.
 */
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Looks where container runtimes bind namespaces (/run/netns, /var/run/netns, /run/docker/netns),
 * then for the oldest process in it but `not_pid` (0: any): /proc/PID/ns/net. -ENOENT when there is
 * none.
 */
int netns_path_find(dev_t dev, ino_t ino, pid_t not_pid, char ret[static PATH_MAX]);

/* Is the process `pid` in that namespace? `proc_fd` is /proc. */
bool netns_path_is_in(int proc_fd, const char *pid, dev_t dev, ino_t ino);

/* When the process `pid` began, in ticks since the machine did; `proc_fd` is /proc. 0: it is gone.
 */
uint64_t netns_path_start_time(int proc_fd, const char *pid);
