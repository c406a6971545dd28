/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What an agent takes from the Kubernetes API, and what it tells it: ServiceEntries for the
 * registry, the node's pods and all namespaces for enrolment, the gateways' endpoints, Events. On
 * one loop (the registry source's); every function is for that thread but those that say otherwise.
 * Hooks are called from the loop, never from kube_open(), and must not call kube_close().
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "kube/client.h"
#include "net/loop.h"
#include "registry/registry.h"

struct kube;

/* A pod of this node, as the API has it. Borrowed. */
struct kube_pod {
	const char *ns, *name, *service_account;
	const char *uid; /* by which the kubelet knows it: that of a static pod is not the API's */
	bool host_network;
	bool enforced;      /* by its namespace */
	bool ended;         /* Succeeded or Failed, or deleted */
	bool ready_to_find; /* some container runs or ran: there is a process to find it by */
	bool unconfined;    /* enforced, and may get around that, by NET_ADMIN on the node's
			       interfaces; told once */
};

enum enrol_mode {
	ENROL_LABELLED, /* namespaces with the label sluice.io/egress: enforced */
	ENROL_ALL,      /* all but the excluded ones */
	ENROL_MODE_N_,
};

struct kube_gateway {
	const char *name;             /* as in the options */
	const struct addr *endpoints; /* ready ones, with the target port; sorted, at most 64 */
	size_t n_endpoints;
};

struct kube_hooks {
	void *ctx;
	void (*on_entries)(void *ctx); /* kube_entries() says something else now */
	/* A pod of this node is new, has changed (enforced or not by now, too), or has ended. */
	void (*on_pod)(void *ctx, const struct kube_pod *pod);
	/* Pods and namespaces are known: whatever was not told of by on_pod is not there. Once. */
	void (*on_pods_synced)(void *ctx);
	/* Its endpoints are others now (or known for the first time; there may be none). */
	void (*on_gateway)(void *ctx, const struct kube_gateway *gateway);
	/* All addresses of all nodes (InternalIP, ExternalIP); ports are 0. */
	void (*on_nodes)(void *ctx, const struct addr *addrs, size_t n);
};

struct kube_options {
	struct kube_config access;
	const char *node_name; /* NULL: no pods and namespaces are watched (gateways) */
	const char
		*cache_dir; /* last good objects, for a start while the API is away; NULL: none */
	enum enrol_mode mode;
	const char *const *excluded; /* namespaces that are never enforced */
	size_t n_excluded;
	const char *const
		*gateways; /* Services "NAME.NAMESPACE[.svc...]" whose endpoints are asked for */
	size_t n_gateways;
	bool nodes;           /* on_nodes is wanted */
	const char *instance; /* who reports Events: the agent's pod or node */
};

/* Logs. -errno. */
int kube_open(struct kube **ret, struct loop *loop, const struct kube_options *options,
	      const struct kube_hooks *hooks);

/* When no other thread asks any more. Writes the cache. NULL is fine. */
void kube_close(struct kube *kube);

/* All ServiceEntries that are in order, borrowed until the loop's next event. False: none were read
 * yet, neither from the API nor from the cache: nothing is known.
 */
bool kube_entries(struct kube *kube, const struct service_entry **ret, size_t *ret_n);

struct kube_status {
	bool connected;                     /* watches are open */
	bool knows;                         /* entries were read, from the API or the cache */
	bool from_cache;                    /* what is in force was read from disk */
	uint64_t entries, entries_rejected; /* now */
	uint64_t objects, relists, errors;
	uint64_t events_sent, events_dropped;
	char last_error[256];    /* of the API; "" none */
	char last_rejected[512]; /* why the entry rejected last, of those that are, is; "" none */
};

void kube_status(struct kube *kube, struct kube_status *ret);

/* What the agent wants to be seen with kubectl. Copies. */
struct kube_event {
	const char *kind, *api_version; /* of the object: "Pod", "v1" */
	const char *ns, *name, *uid;    /* uid "" unknown: that of a pod of this node is found */
	const char *type;               /* "Normal", "Warning" */
	const char *reason;             /* "EgressDenied" */
	const char *message;
	const char *action;
};

/* Any thread. Equal ones (object, reason, message) are folded into a series, and each object and
 * the whole agent have a budget: a scanner cannot flood the API.
 */
void kube_event(struct kube *kube, const struct kube_event *event);

/* Takes a taint off a node, once, trying until it is done. */
void kube_remove_taint(struct kube *kube, const char *node, const char *key);

/* Is this namespace enforced? 1: yes, 0: no, -EAGAIN: not known (yet). A no is one of now: while
 * the watch is not open the server is asked again at once, and only if it cannot be reached is what
 * is known an answer. Any thread.
 */
int kube_is_enforced(struct kube *kube, const char *ns);

/* The service account of a pod of this node; "" unknown. False: the pod is not known, or another
 * one of that name is (`uid` "" asks for any). Any thread.
 */
bool kube_service_account(struct kube *kube, const char *ns, const char *name, const char *uid,
			  char ret[static 254]);
