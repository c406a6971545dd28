/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The pods of this node, and what has been told of each. Pure. */
#include <jansson.h>
#include <stdbool.h>

#include "kube/kube.h"
#include "kube/kube_table.h"

struct pod_row;

struct pod_store {
	struct kube_table rows;
};

int pod_store_init(struct pod_store *store);  /* -errno */
void pod_store_done(struct pod_store *store); /* all zero is fine */

/* NULL: not known. */
struct pod_row *pod_store_find(const struct pod_store *store, const char *ns, const char *name);

/* A new or changed pod, which is the same as before by its uid. -EINVAL without a name, -ENOMEM. */
int pod_store_put(struct pod_store *store, const json_t *object, struct pod_row **ret);
void pod_store_remove(struct pod_store *store, struct pod_row *row); /* NULL is fine */

/* NULL for the first; NULL at the end. */
struct pod_row *pod_store_next(const struct pod_store *store, const struct pod_row *row);

const char *pod_row_ns(const struct pod_row *row);
const char *pod_row_uid(const struct pod_row *row);
const char *pod_row_service_account(const struct pod_row *row);

/* Is it the pod that the kubelet knows by `uid`? What stands in the API for a pod of the node's own
 * files has another uid than that, and may be any.
 */
bool pod_row_may_be(const struct pod_row *row, const char *uid);

/* Is there something to tell of the pod, whose namespace is `enforced` (1, 0, or -EAGAIN: not
 * known, so nothing can be told yet)? Notes it as told. *ret is borrowed from the row.
 */
bool pod_row_tell(struct pod_row *row, int enforced, struct kube_pod *ret);

/* The same for one that is gone. */
bool pod_row_tell_end(struct pod_row *row, int enforced, struct kube_pod *ret);
bool pod_row_is_told(const struct pod_row *row);
