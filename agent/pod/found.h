/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Pods that run already, found by the cgroups of their processes: the kubelet names those after the
 * pods' uids (podUID with the cgroupfs driver, ...-podUID_with_underscores.slice with systemd's).
 * Some runtimes' own monitors (conmon) are in there, too, and on the node's network. Needs the
 * host's process ids. Any thread; does not log.
 */
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FOUND_UID_MAX 63

struct found {
	char uid[FOUND_UID_MAX + 1]; /* what is looked for */
	bool on_host;          /* on the network of whoever looks; else no process there is it */
	pid_t pid;             /* its oldest process, which holds its sandbox; 0: none */
	uint64_t started;      /* when that began; for found_scan() alone */
	char cgroup[PATH_MAX]; /* of the pod, below the root of cgroup2; "" where it has none */
};

/* Looks through all processes once. -errno of /proc itself. */
int found_scan(struct found *pods, size_t n);

/* Where in `text`, a line of /proc/PID/cgroup, the folder of the pod `uid` ends; NULL: it is not in
 * it. Pure.
 */
const char *found_folder_end(const char *text, const char *uid);
