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
 * to 63. A dotted name whose last label is all digits is a literal or BAD, never a name (RFC 1123
 * 2.1). For HOST_NAME `buf` receives the name with a NUL and *ret_name points into it; otherwise
 * buf's content is undefined and *ret_name untouched.
 */
enum host_kind host_normalise(struct span raw, char buf[static HOST_MAX + 1],
			      struct span *ret_name);

/* What is wrong with a name that host_normalise() found BAD: static text. */
const char *host_bad_why(struct span raw);
