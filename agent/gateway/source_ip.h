/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

#include "base/addr.h"

/* Are all of these addresses on this machine (any interface of this namespace)? By libnl. 0;
 * -EADDRNOTAVAIL with *ret_missing the first that is not; -errno when the kernel cannot be asked.
 * Does not log.
 */
int source_ip_check(const struct addr *ips, size_t n, const struct addr **ret_missing);
