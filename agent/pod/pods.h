/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The pods of this node that are enrolled: rules and listeners in their network namespaces, state
 * on disk. Lives on one loop (the control thread's); every function is for that thread.
 */
#include <jansson.h>

#include "base/addr.h"
#include "base/identity.h"
#include "net/loop.h"

struct pods;
struct redirector;

/* How the proxy hears of listeners. */
struct pods_hooks {
	void *ctx;
	/* Takes both descriptors (listening, non-blocking; fds[1] is IPv6, -1 where the pod has
	 * none). `id` is borrowed. *ret is what unlisten() takes. -errno: the descriptors are
	 * closed.
	 */
	int (*listen)(void *ctx, struct identity *id, int fds[2], void **ret);
	/* Stops accepting and ends the pod's connections. */
	void (*unlisten)(void *ctx, void *listener);
};

struct pods_config {
	const char *socket;    /* SOCK_SEQPACKET, made with mode 0600, stale one replaced */
	const char *state_dir; /* made with mode 0700 */
	const char *trust_domain;
	const struct cidr *cluster_cidrs;
	size_t n_cluster_cidrs;
	const struct redirector *redirector; /* NULL: redirect_nft */
};

/* Re-adopts the pods of the state on disk: opens their namespaces (device, inode and cookie must be
 * the ones that were written), puts rules and listeners in place, forgets what is gone, each said
 * in the log, and opens the socket. Copies what it keeps of `config` and `hooks`. Logs.
 * -EOPNOTSUPP when the kernel cannot redirect, -EADDRINUSE when another agent runs, -errno.
 *
 * From then on: a pod whose namespace went away is forgotten within a second or so, and rules that
 * somebody changed are put back within about ten.
 */
int pods_start(struct pods **ret, struct loop *loop, const struct pods_config *config,
	       const struct pods_hooks *hooks);

/* New cluster networks: every pod's rules are applied again. Logs; -errno of the worst. */
int pods_set_cluster_cidrs(struct pods *pods, const struct cidr *cidrs, size_t n);

size_t pods_count(const struct pods *pods);

/* [{"namespace","pod","service_account","netns","backend","state":"enrolled"|"failed",
 *   "enrolled_at","connections"}], a new reference. NULL when out of memory.
 */
json_t *pods_print(const struct pods *pods);

/* The agent ends: sockets close, rules and state stay (pods get connection refused). NULL is fine.
 */
void pods_stop(struct pods *pods);
