/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Pods that are to be enrolled because the API says so, and are not: they run since before the
 * agent came, slipped past the CNI plugin, or their namespace has come to be enforced. Found by
 * their processes. Control thread.
 */
#include <stdbool.h>

#include "pod/found.h"
#include "pod/pod_name.h"

struct pods;

/* What the API says of a pod of this node. Borrowed. */
struct pods_wanted {
	struct pod_name pod;
	const char *uid, *service_account;
	bool host_network;
	bool enforced;
	bool ended;
	bool findable; /* there is, or was, a process of it */
};

/* Stands for the id of a container where nobody has told one; no runtime may call one so. */
#define WANTED_CONTAINER "@found"

/* Looks after those that are not enrolled and whose time has come. Logs. */
void wanted_look(struct pods *pods);
void wanted_free(struct pods *pods);
