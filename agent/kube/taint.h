/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Takes a taint off a node, so that pods are scheduled there from now on. On one loop. */
#include "kube/client.h"
#include "net/loop.h"

struct taint_removal;

/* Tries until it is done, or freed; done also where the taint is not there. Logs. -ENOMEM. */
int taint_removal_new(struct taint_removal **ret, struct kube_client *client, struct loop *loop,
		      const char *node, const char *key);
void taint_removal_free(struct taint_removal *removal); /* NULL is fine */

/* What is left of a node's `spec.taints` without `key`, a new reference; NULL: nothing is to be
 * done, or no memory. Pure.
 */
json_t *taints_without(json_t *node, const char *key);
