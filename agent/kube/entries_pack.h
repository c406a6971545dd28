/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One ServiceEntry in one piece of memory. Pure. */
#include <stdbool.h>
#include <stddef.h>

#include "registry/registry.h"

/* Memory of `head` bytes (zeroed, the caller's) with a copy of everything that `entry` points to
 * behind them; *ret is the entry with pointers into it, its name next to its namespace
 * ("ns\0name"). `source` is not copied: it has to be static. free() ends both. NULL: no memory.
 */
void *entry_pack(const struct service_entry *entry, size_t head, struct service_entry *ret);

/* Would the registry see a difference? `source` is none. */
bool entry_equal(const struct service_entry *a, const struct service_entry *b);
