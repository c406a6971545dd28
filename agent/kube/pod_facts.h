/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What an object of the API says of a pod, but for its names, which never change. Pure. */
#include <jansson.h>
#include <stdbool.h>

struct pod_facts {
	bool host_network;
	bool enforced; /* by its namespace: for the caller to fill in */
	bool ended;
	bool ready_to_find; /* some process of it runs or ran */
	bool administers;   /* a container that stays may change interfaces of the node */
};

struct pod_facts pod_facts_of(const json_t *object);
bool pod_facts_are_same(const struct pod_facts *a, const struct pod_facts *b);
bool pod_is_unconfined(const struct pod_facts *facts); /* enforced, and may get around that */

/* A pod of the node's own files stands in the API under another uid; there its kubelet says by
 * which it knows it. "" for all others. Nobody else may make one with a service account, or say
 * that it has run. Borrowed.
 */
const char *pod_mirrored_uid(const json_t *object);
