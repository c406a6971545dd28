/* SPDX-License-Identifier: Apache-2.0 */
#include "base/identity.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/owned.h"

static const char *put(char **at, const char *text, size_t n)
{
	char *start = *at;

	memcpy(start, text, n);
	start[n] = '\0';
	*at += n + 1;
	return start;
}

/* k8s.io/apimachinery's rand.String: no vowels, and no digits that look like letters. */
static bool is_random(const char *text, size_t n)
{
	return strspn(text, "bcdfghjklmnpqrstvwxz2456789") >= n;
}

/* Where the last "-..." of the first n bytes starts; n when there is none worth cutting. */
static size_t last_part(const char *pod, size_t n)
{
	const char *dash = n > 0 ? memrchr(pod, '-', n) : NULL;

	return dash && dash > pod ? (size_t)(dash - pod) : n;
}

size_t identity_workload_len(const char *pod)
{
	size_t len = strlen(pod), cut = last_part(pod, len), outer, tail = len - cut;

	if (cut == len)
		return len;
	if (strspn(pod + cut + 1, "0123456789") == tail - 1 && tail > 1)
		return cut; /* an ordinal */
	if (tail != 6 || !is_random(pod + cut + 1, 5))
		return len;
	outer = last_part(pod, cut);
	tail = cut - outer;
	if (tail >= 7 && tail <= 11 && is_random(pod + outer + 1, tail - 1))
		return outer; /* the ReplicaSet's hash */
	return cut;
}

int identity_new(struct identity **ret, const char *ns, const char *pod,
		 const char *service_account, const char *principal)
{
	struct identity *id;
	size_t n;
	char *at;

	ns = ns ?: "";
	pod = pod ?: "";
	service_account = service_account ?: "";
	principal = principal ?: "";
	n = strlen(ns) + strlen(pod) + strlen(service_account) + strlen(principal) +
	    identity_workload_len(pod) + 5;

	id = calloc(1, sizeof(*id) + n);
	if (!id)
		return -ENOMEM;
	atomic_init(&id->refs, 1);
	at = id->text;
	id->ns = put(&at, ns, strlen(ns));
	id->pod = put(&at, pod, strlen(pod));
	id->workload = put(&at, pod, identity_workload_len(pod));
	id->service_account = put(&at, service_account, strlen(service_account));
	id->principal = put(&at, principal, strlen(principal));
	*ret = id;
	return 0;
}

int identity_new_spiffe(struct identity **ret, const char *trust_domain, const char *ns,
			const char *pod, const char *service_account)
{
	OWNED_MEM char *principal = NULL;
	const char *sa = service_account && *service_account ? service_account : "default";

	if (asprintf(&principal, "spiffe://%s/ns/%s/sa/%s", trust_domain, ns, sa) < 0) {
		principal = NULL; /* undefined after a failure */
		return -ENOMEM;
	}
	return identity_new(ret, ns, pod, sa, principal);
}

struct identity *identity_ref(struct identity *id)
{
	if (id)
		atomic_fetch_add_explicit(&id->refs, 1, memory_order_relaxed);
	return id;
}

void identity_unref(struct identity *id)
{
	if (id && atomic_fetch_sub_explicit(&id->refs, 1, memory_order_acq_rel) == 1)
		free(id);
}
