/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Pods on the host's network have no interface of their own to guard; they are captured by cgroup:
 * connect() is rewritten to the agent's listener, whatever else would leave is refused
 * (bpf/hostnet.bpf.c). Attachments are pinned: they stay when the agent ends, and go with the
 * cgroup. Control thread, but for hostnet_origin().
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "net/loop.h"

struct hostnet;
struct plan;

#define HOSTNET_ERROR_MAX 256

struct hostnet_config {
	const char *pin_dir;
	uint16_t capture_port; /* listeners on 127.0.0.1 and ::1 of the pods' network namespace */
};

/* Something was refused; addresses are zero where unknown. */
struct hostnet_event {
	uint64_t cgroup; /* id */
	uint8_t proto;   /* IP protocol number */
	bool table_full; /* refused because a map was full */
	struct addr dst;
	uint32_t suppressed; /* of this cgroup without an event since the last one */
};

struct hostnet_hooks {
	void *ctx;
	void (*on_event)(void *ctx, const struct hostnet_event *event);
};

/* Loads, and takes up what a former agent left pinned. Logs. -EOPNOTSUPP with what is missing in
 * the log; -errno.
 */
int hostnet_open(struct hostnet **ret, struct loop *loop, const struct hostnet_config *config,
		 const struct plan *plan, const struct hostnet_hooks *hooks);

/* Captures every process in this cgroup2 folder and below. *ret_id is the cgroup's id (the inode of
 * its folder). Again is as once. Does not log: what went wrong is in `error`. -ENOTDIR when it is
 * no cgroup2, -ENOENT, -errno.
 */
int hostnet_add(struct hostnet *hostnet, const char *cgroup_path, uint64_t *ret_id,
		char error[static HOSTNET_ERROR_MAX]);

/* 0: all programs are attached. -ESTALE. -errno. */
int hostnet_verify(struct hostnet *hostnet, const char *cgroup_path);

/* 0 also when there is none; the folder may be gone. */
int hostnet_remove(struct hostnet *hostnet, uint64_t id);

/* Removes all that are not among these. Logs. */
int hostnet_keep_only(struct hostnet *hostnet, const uint64_t ids[], size_t n);

int hostnet_set_cluster(struct hostnet *hostnet, const struct plan *plan);

/* For an accepted connection that came from `peer` to the listener itself: which cgroup's it is and
 * where it meant to go. The entry is used up by the call. -ENOENT when there is none: nobody's
 * connection. Any thread.
 */
int hostnet_origin(struct hostnet *hostnet, int fd, const struct addr *peer, uint64_t *ret_id,
		   struct addr *ret_dst);

void hostnet_close(struct hostnet *hostnet); /* stays in force; NULL is fine */
int hostnet_uninstall(const struct hostnet_config *config);
