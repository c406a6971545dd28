/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Which version of a kind the API server has, if any. One question at a time, on the client's loop.
 */
#include <jansson.h>
#include <stddef.h>

#include "kube/client.h"
#include "kube/reflector.h"

#define SERVED_VERSIONS_MAX 8

/* Embed it; all zero but the first three is idle. */
struct served {
	struct kube_client *client;
	const struct reflector_config *config;
	/* The version that the server has (of config's), NULL when it has none; `failed` is NULL
	 * unless that is not known.
	 */
	void (*on_answer)(struct served *s, const char *version, const struct kube_answer *failed);

	struct kube_request *request;
	const char *candidates[SERVED_VERSIONS_MAX];
	size_t n, at;
};

/* Asks; on_answer is called once, later, unless it is cancelled. -errno. */
int served_ask(struct served *s);
void served_cancel(struct served *s); /* fine when idle */

/* Those of `versions` that `group` (an APIGroup) names, the server's preferred one first. Returns
 * how many. Pure.
 */
size_t served_order(const json_t *group, const char *const *versions,
		    const char *ret[static SERVED_VERSIONS_MAX]);

/* Does `kinds` (an APIResourceList) name the resource? Pure. */
bool served_has(const json_t *kinds, const char *resource);
