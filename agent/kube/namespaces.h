/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Which namespaces there are, and whether their pods are enforced. Pure. */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "kube/kube.h"
#include "kube/kube_table.h"

#define NAMESPACE_LABEL "sluice.io/egress" /* "enforced" */

struct namespace_store {
	enum enrol_mode mode;
	char **excluded;
	size_t n_excluded;
	struct kube_table rows;
};

/* Copies the names. -errno. */
int namespace_store_init(struct namespace_store *store, enum enrol_mode mode,
			 const char *const *excluded, size_t n_excluded);
void namespace_store_done(struct namespace_store *store); /* all zero is fine */

/* A new or changed namespace. 1: kube_is_enforced() may say something else of it now, 0: it does
 * not; -errno.
 */
int namespace_store_put(struct namespace_store *store, const json_t *object);

/* The same from the cache; waits for its confirmation by namespace_store_put(). Until then it can
 * make a namespace enforced, and none free.
 */
int namespace_store_restore(struct namespace_store *store, const char *ns, bool labelled);

void namespace_store_remove(struct namespace_store *store, const char *ns);
void namespace_store_remove_unconfirmed(struct namespace_store *store);

/* 1: yes, 0: no, -EAGAIN: depends on a label that is not known, or not confirmed to be missing. */
int namespace_is_enforced(const struct namespace_store *store, const char *ns);

/* By the configuration, whatever its labels are. */
bool namespace_is_excluded(const struct namespace_store *store, const char *ns);

/* {"shop": true}: labels, not decisions, which depend on the configuration. NULL: no memory. */
json_t *namespace_store_json(const struct namespace_store *store);
