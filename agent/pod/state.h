/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What is remembered of an enrolled pod between two lives of the agent: one small JSON file each,
 * written whole or not at all. Any thread; does not log.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "guard/host_link.h"
#include "pod/enrol_limits.h"
#include "pod/pod_name.h"
#include "redirect/backend.h"

#define STATE_BOOT_ID_MAX 64
#define STATE_MAX_BYTES   16384 /* a file longer than that is none of ours */

struct pod_state {
	struct pod_name pod;
	char service_account[POD_NAME_MAX + 1]; /* "" when unknown */
	bool by_cgroup; /* on the host's network: the path is its cgroup's folder */
	char *netns;    /* path; owned */
	dev_t dev;      /* of what is behind it */
	ino_t ino;
	uint64_t cookie; /* SO_NETNS_COOKIE, never used twice in a boot; 0: unknown */
	char boot_id[STATE_BOOT_ID_MAX]; /* numbers of namespaces mean nothing in another one */
	uint64_t node_cookie; /* SO_NETNS_COOKIE of the agent's namespace, whose numbers of
				 interfaces mean nothing in another one; 0: unknown */
	int64_t enrolled_at;  /* seconds since 1970 */
	char container[ENROL_ID_MAX + 1]; /* id of its sandbox; "" unless CNI enrolled it */
	char network[ENROL_ID_MAX + 1];   /* of CNI; "" likewise */
	enum redirect_backend backend;    /* that captures it; REDIRECT_AUTO: not known */
	struct pod_links links;           /* as they were at enrolment: whatever a process in the
					     pod adds later is not the pod's own */
};

void pod_state_done(struct pod_state *state); /* all zero is fine */

/* Makes `dir` and its parents with mode 0700 where they are missing. -errno. */
int state_make_dir(const char *dir);

/* Replaces the pod's file in `dir`: after a crash there is the old one or the new one. -errno. */
int state_write(const char *dir, const struct pod_state *state);

/* 0 also when there is none. -errno. */
int state_remove(const char *dir, const struct pod_name *pod);

/* Reads one file. -EBADMSG when it is not what state_write() writes, with what is wrong in
 * `ret_why` (static text); -errno.
 */
int state_read(const char *path, struct pod_state *ret, const char **ret_why);

/* Calls `on_file` with the path of each state file in `dir`, and removes what a crash left half
 * written. 0 also when there is no such folder. -errno.
 */
int state_list(const char *dir, void (*on_file)(void *ctx, const char *path), void *ctx);

/* The kernel's name for this boot. -errno. */
int state_boot_id(char ret[static STATE_BOOT_ID_MAX]);
