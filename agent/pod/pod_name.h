/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Names as Kubernetes allows them. Pure, any thread. */
#include <stdbool.h>

#define POD_LABEL_MAX 63  /* RFC 1123: a namespace */
#define POD_NAME_MAX  253 /* a pod, a service account: labels with dots between */

struct pod_name {
	char ns[POD_LABEL_MAX + 1];
	char name[POD_NAME_MAX + 1];
};

/* Lower-case letters, digits and '-', not at an end; 1 to POD_LABEL_MAX bytes. */
bool pod_label_is_valid(const char *text);

/* Labels with dots between; 1 to POD_NAME_MAX bytes. */
bool pod_subdomain_is_valid(const char *text);

/* "namespace/name". -EINVAL. */
int pod_name_parse(const char *text, struct pod_name *ret);
