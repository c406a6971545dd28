/* SPDX-License-Identifier: Apache-2.0 */
#include "base/identity.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/owned.h"

static const char *put(char **at, const char *text)
{
	size_t n = strlen(text) + 1;
	char *start = *at;

	memcpy(start, text, n);
	*at += n;
	return start;
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
	n = strlen(ns) + strlen(pod) + strlen(service_account) + strlen(principal) + 4;

	id = calloc(1, sizeof(*id) + n);
	if (!id)
		return -ENOMEM;
	atomic_init(&id->refs, 1);
	at = id->text;
	id->ns = put(&at, ns);
	id->pod = put(&at, pod);
	id->service_account = put(&at, service_account);
	id->principal = put(&at, principal);
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
