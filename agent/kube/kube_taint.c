/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"
#include "kube/kube_own.h"

void kube_remove_taint(struct kube *kube, const char *node, const char *key)
{
	int r = 0;

	if (!kube->taint)
		r = taint_removal_new(&kube->taint, kube->client, kube->loop, node, key);
	if (r < 0)
		log_err(r, "node '%s' keeps its taint '%s'", node, key);
}
