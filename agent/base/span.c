/* SPDX-License-Identifier: Apache-2.0 */
#include "base/span.h"

#include <strings.h>

bool span_equal_nocase(struct span a, const char *text)
{
	return a.len == strlen(text) &&
	       (a.len == 0 || strncasecmp((const char *)a.p, text, a.len) == 0);
}
