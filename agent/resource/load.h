/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* All configured files as entries, and entries to a registry: the two halves of source_load(), for
 * who builds again and again with other entries beside those of the files. One thread at a time.
 */
#include <stdbool.h>
#include <stddef.h>

#include "registry/registry.h"

struct load;

/* Reads everything, whole or not at all. Logs each error and warning. *ret_error gets the first
 * error. -EINVAL when a document is refused, -errno when a file cannot be read.
 */
int load_read(const char *const *paths, size_t n, struct load **ret, char ret_error[static 1024]);
void load_free(struct load *load); /* NULL is fine */

/* `more` are put beside those of the files. What the build survived (conflicts) goes to `warn`. As
 * registry_new().
 */
int load_build(const struct load *load, const struct service_entry *more, size_t n_more,
	       registry_warn_fn *warn, void *ctx, struct registry **ret);
