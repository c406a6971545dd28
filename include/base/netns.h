/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Entering and leaving a network namespace. It is the calling thread that moves. */
#include <sys/types.h>

/* Moves the calling thread into the namespace behind `netns_fd` (borrowed). *ret_home is what
 * netns_leave takes. -errno; -EINVAL when the descriptor is no network namespace. Does not log.
 */
int netns_enter(int netns_fd, int *ret_home);

/* Moves the thread back and closes *home; nothing when *home is negative. Aborts when it cannot go
 * back, because going on would program somebody else's network. Made for OWNED().
 */
void netns_leave(int *home);

/* Opens a path like /var/run/netns/x or /proc/PID/ns/net; -ENOTTY when it is no network namespace.
 * The descriptor belongs to the caller.
 */
int netns_open(const char *path);

/* Which namespace it is: device and inode of the open descriptor. -errno. */
int netns_identify(int netns_fd, dev_t *ret_dev, ino_t *ret_ino);
