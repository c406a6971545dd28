/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What has to be true in a pod's network namespace, as a list of rules that back ends translate.
 * Pure: the same input gives the same plan, in the same order.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

#define PLAN_CAPTURE_PORT 15001

struct plan_input {
	const struct cidr *cluster_cidrs; /* borrowed */
	size_t n_cluster_cidrs;
	uint16_t capture_port; /* PLAN_CAPTURE_PORT */
};
