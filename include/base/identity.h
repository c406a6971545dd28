/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Who a pod is. Immutable but for its counters, shared by reference between threads. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct identity {
	atomic_uint refs;
	atomic_uint connections;     /* open now; the per-pod limit looks here */
	const char *ns;              /* namespace; "" when unknown. Never NULL */
	const char *pod;             /* "" when unknown */
	const char *workload;        /* the pod's name without what its controller appended */
	const char *service_account; /* "" when unknown */
	const char *principal;       /* spiffe://TRUSTDOMAIN/ns/NS/sa/SA, "" when unknown */
	char text[];                 /* where the strings live */
};

/* Copies its arguments; NULL is "". One reference, for the caller. -ENOMEM. */
int identity_new(struct identity **ret, const char *ns, const char *pod,
		 const char *service_account, const char *principal);

/* As identity_new, with the principal made of trust domain, namespace and service account; without
 * a service account, "default" stands in, as in Kubernetes.
 */
int identity_new_spiffe(struct identity **ret, const char *trust_domain, const char *ns,
			const char *pod, const char *service_account);

struct identity *identity_ref(struct identity *id); /* returns id; NULL is fine */
void identity_unref(struct identity *id);           /* NULL is fine */

/* How much of a pod's name is its workload's: "web-7d4b9c6f5d-x2x7k" (Deployment), "agent-x2x7k"
 * (DaemonSet, Job) and "db-0" (StatefulSet) lose their endings, so that metrics are not as many as
 * pods come and go. A guess by Kubernetes' way of naming, good enough for a label. Pure.
 */
size_t identity_workload_len(const char *pod);
