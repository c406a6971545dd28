/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of kube.c share and nobody else sees. */
#include <pthread.h>

#include "kube/entries.h"
#include "kube/events.h"
#include "kube/events_send.h"
#include "kube/gateways.h"
#include "kube/kube.h"
#include "kube/kube_addrs.h"
#include "kube/kube_save.h"
#include "kube/namespaces.h"
#include "kube/pods.h"
#include "kube/reflector.h"
#include "kube/taint.h"

/* One Service whose endpoints are followed. */
struct gateway_watch {
	struct kube *kube;
	char *text; /* as in the options */
	struct gateway_name name;
	struct reflector *slices;
	struct reflector *endpoints; /* where the server has no EndpointSlices; else NULL */
	struct addr_store addrs;
	bool synced, changed, news; /* `news`: there is something to tell without a change */
};

struct node_watch {
	struct reflector *reflector; /* NULL: not asked for */
	struct addr_store addrs;
	bool synced, changed, news;
};

struct kube {
	struct loop *loop;
	struct kube_hooks hooks;
	struct kube_client *client;
	struct event_sender *events;
	struct kube_saver *saver; /* NULL: no cache */

	/* Hooks are called from here, so that many changes in one go are one. */
	struct timer fold;
	bool entries_changed;

	struct reflector *entry_reflector;
	struct entry_store entries;
	bool entries_synced, entries_cached; /* cached: read from disk, and not synced yet */
	struct event_bucket log_budget;      /* for objects that are refused */

	/* Written by the loop's thread under the lock, read by it without and by others with it. */
	pthread_mutex_t lock;
	struct namespace_store namespaces;
	struct pod_store pods;

	struct reflector *namespace_reflector, *pod_reflector; /* NULL without a node */
	bool namespaces_synced, pods_synced, told_pods_synced;

	/* Under the lock, too: how fresh it is that a namespace is not enforced. */
	enum reflector_news namespaces_news;
	uint64_t namespaces_since_ms; /* of that news, CLOCK_MONOTONIC */
	bool namespaces_awaited;      /* somebody has got no answer for want of it */
	struct timer hurry;           /* looks whether somebody has */

	struct gateway_watch *gateways;
	size_t n_gateways;
	struct node_watch nodes;
	struct taint_removal *taint; /* NULL: none is asked for */
};

/* The fold has work. */
void kube_fold_later(struct kube *kube);

/* ---- kube_pods.c ---- */

int kube_pods_open(struct kube *kube, const struct kube_options *options);
void kube_pods_close(struct kube *kube);

#define KUBE_UID_MAX 64 /* they are UUIDs */

/* False: the pod is not known. Any thread. */
bool kube_pod_uid(struct kube *kube, const char *ns, const char *name,
		  char ret[static KUBE_UID_MAX]);

/* ---- kube_endpoints.c: gateways and nodes ---- */

/* Logs. */
int kube_endpoints_init(struct kube *kube, const struct kube_options *options);
int kube_endpoints_open(struct kube *kube, const struct kube_options *options);
void kube_endpoints_close(struct kube *kube);
void kube_endpoints_fold(struct kube *kube);

/* ---- kube_parts.c: what is in the cache beside entries ---- */

/* NULL: no memory. */
json_t *kube_parts_json(const struct kube *kube);
void kube_parts_restore(struct kube *kube, const json_t *parts);
