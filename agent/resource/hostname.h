/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Names as Kubernetes and Istio allow them in resources: stricter than what a peer may send, since
 * what is registered is compared byte by byte. Pure.
 */
#include <stdbool.h>

#define HOSTNAME_MAX 253 /* RFC 1035 2.3.4, without the trailing dot */

/* A DNS-1123 label: 1 to 63 letters, digits and '-', no '-' at its ends. */
bool hostname_is_label(const char *text);

/* A DNS-1123 subdomain, the name of a Kubernetes object: lower-case labels with dots between. */
bool hostname_is_subdomain(const char *text);

enum hostname_kind {
	HOSTNAME_EXACT,    /* a full name */
	HOSTNAME_WILDCARD, /* also "*.name" */
};

/* Folds case and drops one trailing dot into `ret`. NULL when all is well, or else what is wrong
 * and what to do, to follow the quoted name in a message ("must not ...").
 */
const char *hostname_check(const char *text, enum hostname_kind kind, char ret[HOSTNAME_MAX + 1]);
