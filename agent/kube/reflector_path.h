/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What is asked of the API server: paths with their queries. Each is for the caller to free, NULL:
 * no memory. Pure.
 */
#include "kube/reflector.h"

/* Which versions a group has: NULL for the core group, which has one. */
char *path_group(const struct reflector_config *config);

/* Which kinds a version of it has. */
char *path_kinds(const struct reflector_config *config, const char *version);

/* At most `limit` objects, from where `token` (NULL: the beginning) says. */
char *path_list(const struct reflector_config *config, const char *version, unsigned limit,
		const char *token);

/* Changes since `rv`; NULL: all objects first. For `seconds`. */
char *path_watch(const struct reflector_config *config, const char *version, const char *rv,
		 unsigned seconds);
