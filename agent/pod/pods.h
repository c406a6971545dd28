/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The pods of this node that are enrolled: captured by rules and listeners in their network
 * namespaces or by the guard around them, guarded from outside, state on disk. Lives on one loop
 * (the control thread's); every function is for that thread.
 */
#include <jansson.h>

#include "base/addr.h"
#include "base/identity.h"
#include "base/reason.h"
#include "guard/guard.h"
#include "guard/steer.h"
#include "net/loop.h"
#include "pod/wanted.h"
#include "pod/pod_name.h"
#include "redirect/backend.h"

struct pods;
struct origins;

/* Something that a pod sent and that was refused before it became a connection. Borrowed. */
struct pods_refusal {
	struct identity *source; /* NULL: of a pod that is not enrolled any more */
	struct addr src, dst;    /* zero where unknown */
	const char *protocol;    /* "UDP", "QUIC", "ICMP", ... */
	const char *detail;      /* static text */
	enum reason reason;
	uint64_t count; /* packets that this stands for */
	bool say;       /* log it: the same was not said within the last minute */
};

/* How the proxy and the observers hear of pods. */
struct pods_hooks {
	void *ctx;
	/* Takes both descriptors (listening, non-blocking; fds[1] is IPv6, -1 where the pod has
	 * none). `id` is borrowed. *ret is what unlisten() takes. -errno: the descriptors are
	 * closed.
	 */
	int (*listen)(void *ctx, struct identity *id, int fds[2], void **ret);
	/* The same for the listeners that pods share; `origins` (borrowed, outlives the listener)
	 * tells whose a connection is. NULL: the ebpf back end is not to be used.
	 */
	int (*listen_shared)(void *ctx, struct origins *origins, int fds[2], void **ret);
	/* False: a socket of the listener was destroyed. NULL: they never are. */
	bool (*is_alive)(void *ctx, void *listener);
	/* Stops accepting and ends the pod's connections. */
	void (*unlisten)(void *ctx, void *listener);
	/* Ends the pod's connections that came by the shared listener. NULL with listen_shared. */
	void (*end)(void *ctx, struct identity *id);
	void (*refused)(void *ctx, const struct pods_refusal *refusal); /* NULL: nobody asks */
	/* Is a pod that a container runtime makes to be enrolled? `uid` is "" where the runtime
	 * does not say it. 0, and its service account (NULL: is known already), of POD_NAME_MAX + 1
	 * bytes, where it is known (else untouched); 1: no, it passes; -EAGAIN: not known yet;
	 * -errno refuses. NULL: every pod is.
	 */
	int (*admit)(void *ctx, const struct pod_name *pod, const char *uid, char *service_account);
};

/* What a proving connection dials, and what the proxy answers (pod/proof.h). */
struct pods_proof {
	struct addr v4, v6;
	const uint8_t *token;
};

struct pods_config {
	const char *socket;    /* SOCK_SEQPACKET, made with mode 0600, stale one replaced */
	const char *state_dir; /* made with mode 0700 */
	const char *trust_domain;
	const struct cidr *cluster_cidrs;
	size_t n_cluster_cidrs;
	enum redirect_backend backend;
	const struct guard_config *guard; /* NULL: no guard at all, for tests of the rules alone */
	bool guard_required; /* a pod that no guard can be put around is not enrolled */
	bool dhcp;
	const struct steer_config *steer; /* NULL: no ebpf back end */
	const struct pods_proof *proof;   /* NULL: nothing is proved */
};

/* Re-adopts the pods of the state on disk: opens their namespaces (device, inode and cookie must be
 * the ones that were written), puts guards, rules and listeners in place, forgets what is gone,
 * each said in the log, and opens the socket. Copies what it keeps of `config` and `hooks`. Logs.
 * -EOPNOTSUPP when the kernel cannot do what is asked for, -EADDRINUSE when another agent runs,
 * -errno.
 *
 * From then on: a pod whose namespace went away is forgotten within a second or so; rules and
 * guards that somebody changed are put back at once where the kernel tells of it, and within about
 * ten seconds where it does not.
 */
int pods_start(struct pods **ret, struct loop *loop, const struct pods_config *config,
	       const struct pods_hooks *hooks);

/* New cluster networks, for guards and every pod's rules. Logs; -errno of the worst. */
int pods_set_cluster_cidrs(struct pods *pods, const struct cidr *cidrs, size_t n);

size_t pods_count(const struct pods *pods);

/* [{"namespace","pod","service_account","netns","backend","guard","state":"enrolled"|"failed",
 *   "enrolled_at","connections","repairs"}], a new reference. NULL when out of memory.
 */
json_t *pods_print(const struct pods *pods);

/* What the API says of a pod of this node: one that is to be enrolled and is not is found by its
 * processes, and one that is not to be enforced any more is let out, if it was found so or by CNI.
 */
void pods_want(struct pods *pods, const struct pods_wanted *wanted);

struct pods_stats {
	uint64_t repairs;         /* of pods and of the node's own part */
	uint64_t forward_dropped; /* packets, by the node's second guard; 0 without one */
};

void pods_stats(const struct pods *pods, struct pods_stats *ret);

/* Packets that a guard refused; borrowed. */
struct pods_dropped {
	const char *ns, *pod; /* "" of a pod that is not enrolled any more */
	const char *protocol, *why;
	uint64_t packets, bytes;
};

void pods_each_dropped(struct pods *pods, void (*each)(void *ctx, const struct pods_dropped *d),
		       void *ctx);

/* The agent ends: sockets close; rules, guards and state stay (pods get connection refused). NULL
 * is fine.
 */
void pods_stop(struct pods *pods);

/* Takes away what stays when an agent ends, while none runs: rules in pods, guards, state, the
 * node's route and tables. From then on pods reach whatever the network lets them. Logs. -errno of
 * the worst.
 */
int pods_uninstall(const struct pods_config *config);
