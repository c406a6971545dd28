/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Ranges of addresses as prefixes, which is what the kernel's longest-prefix tables hold. Pure. */
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

struct plan_range;

#define PREFIX_MAX \
	254 /* of one range: one of each length on either side of its middle, twice 127 */

/* The fewest prefixes that hold exactly the addresses `from` to `to` (16 bytes, both inside,
 * ordered), ascending. IPv4 in its mapped form, so that a /n is 96 + n. Returns how many.
 */
size_t prefix_split(const uint8_t from[16], const uint8_t to[16], struct cidr ret[PREFIX_MAX]);

/* The same for ranges that are ascending and do not touch; *ret is the caller's to free. -ENOMEM.
 */
int prefix_list(const struct plan_range *ranges, size_t n, struct cidr **ret, size_t *ret_n);
