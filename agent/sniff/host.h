/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Host names as the registry compares them. Pure. */
#include "base/span.h"

#define HOST_MAX 253 /* RFC 1035 2.3.4, without the trailing dot */

enum host_kind {
	HOST_NAME,    /* normalised into buf */
	HOST_LITERAL, /* an IPv4 or IPv6 literal (brackets allowed): no name */
	HOST_BAD,     /* empty, too long, empty label, or bytes that no host name has */
};

/* Folds case and drops one trailing dot. Allowed bytes: letters, digits, '-', '_', '.'; labels of 1
 * to
 * 63. `buf` (HOST_MAX + 1 bytes) receives the name with a NUL; *ret_name points into it.
 */
enum host_kind host_normalise(struct span raw, char buf[static HOST_MAX + 1],
			      struct span *ret_name);
