/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The guard: what stands on the host end of each enrolled pod's interface and lets only the
 * cluster's networks, and answers to what was opened towards the pod, through. With eBPF it also
 * steers the pod's TCP to the agent's listener. It stays in force when the agent ends, and is taken
 * up again by the next one. One per agent; acts on the network namespace that the agent runs in.
 * Every function is for the control thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi/guard.h"
#include "base/addr.h"
#include "net/loop.h"

struct guard;
struct plan;

#define GUARD_ERROR_MAX 256

enum guard_attach {
	GUARD_ATTACH_AUTO,     /* the first that proves itself, in this order */
	GUARD_ATTACH_TCX,      /* eBPF by tcx links, pinned; Linux 6.6 */
	GUARD_ATTACH_TC,       /* eBPF by clsact filters */
	GUARD_ATTACH_NFTABLES, /* netdev chains, where eBPF is refused; cannot steer */
	GUARD_ATTACH_N_,
};

struct guard_config {
	enum guard_attach attach;
	const char *pin_dir;    /* /sys/fs/bpf/sluice; another for each agent on a machine */
	uint32_t mark;          /* what steered packets carry for the routing rule; not 0 */
	uint16_t capture_port;  /* of the agent's transparent listeners on 127.0.0.1 and ::1 */
	unsigned flows_per_pod; /* inbound flows; rounded up to what the table can do */
};

/* A pod as the guard sees it. */
struct guard_pod_at {
	uint32_t ifindex; /* host end of its interface */
	bool steer;
	bool dhcp;
	uint8_t mac[6]; /* its own end's: the only one on a bridge; zero: not known, any will do */
	const struct addr *addrs; /* its own, ports ignored; link-local ones too; borrowed */
	size_t n_addrs;
};

struct guard_hooks {
	void *ctx;
	/* A packet was refused; borrowed for the call. With nftables there are none. */
	void (*on_event)(void *ctx, const struct guard_event *event);
};

/* Loads what stands guard and takes up what a former agent left: from then on old attachments run
 * the new program, with the entries they had. `plan` gives the cluster networks. Copies what it
 * keeps. Logs which way was taken and why the ones before it were not. -EOPNOTSUPP when none works
 * here, with what was missing in the log; -errno.
 */
int guard_open(struct guard **ret, struct loop *loop, const struct guard_config *config,
	       const struct plan *plan, const struct guard_hooks *hooks);

/* "tcx", "tc", "nftables". */
const char *guard_name(const struct guard *guard);
bool guard_can_steer(const struct guard *guard);

/* Puts the pod under guard, or changes what is in force for it, in an order that never opens
 * anything; again is as once. Does not log: what went wrong is in `error`. -ENOSPC when
 * GUARD_MAX_PODS are there, -ENODEV when the interface is gone, -errno.
 */
int guard_add(struct guard *guard, const struct guard_pod_at *pod,
	      char error[static GUARD_ERROR_MAX]);

/* 0: in force exactly so. -ESTALE: not. -errno: cannot tell. */
int guard_verify(struct guard *guard, const struct guard_pod_at *pod);

/* 0 also when there is none. The interface may be gone already. */
int guard_remove(struct guard *guard, uint32_t ifindex);

/* Removes every pod that is not among these: left by a former agent for pods that are gone. Logs.
 */
int guard_keep_only(struct guard *guard, const uint32_t ifindexes[], size_t n);

/* Steered packets are given to this listener, and to no socket but those that are named here and
 * the connections they accept. Ends with the socket. -EOPNOTSUPP when this guard cannot steer,
 * -errno.
 */
int guard_steer_to(struct guard *guard, int listen_fd);

/* New cluster networks, in place: no packet meets a table that is half old, half empty. -errno. */
int guard_set_cluster(struct guard *guard, const struct plan *plan);

/* Calls `each` with every counter that is not zero. -errno. */
int guard_counts(struct guard *guard,
		 void (*each)(void *ctx, const struct guard_count_key *key,
			      const struct guard_count *count),
		 void *ctx);

/* "outside", "spoofed", ...: metric label and log text. Static, never NULL. */
const char *guard_why_str(enum guard_why why);

/* Lets go; what is in force stays in force. NULL is fine. */
void guard_close(struct guard *guard);

/* Takes everything of ours away, for an uninstall: attachments, maps, pins. Logs. -errno. */
int guard_uninstall(const struct guard_config *config);
