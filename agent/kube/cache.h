/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the API said last, on disk, for a start while it is away: a file of JSON lines, first what
 * all of it is, then each ServiceEntry as the API has it, at the end a sum over all before. Does
 * not log.
 */
#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "registry/registry.h"

#define CACHE_FILE      "kubernetes.cache"
#define CACHE_BYTES_MAX ((size_t)256 * 1024 * 1024)

/* What goes into it. */
struct cache_view {
	const char *server; /* that of another cluster must not be taken for ours */
	json_t *parts;      /* an object: whatever else is to be kept */
	const struct service_entry *entries;
	size_t n;
};

/* Replaces the file as a whole, making the folder (not its parents). Any thread, one at a time a
 * folder. -EFBIG (and there is none then, rather than an old one) when it would be too large;
 * -ECANCELED as soon as *stop; -errno.
 */
int cache_write(const char *dir, const struct cache_view *view, const atomic_bool *stop);

/* Takes it away, with its folder when that is empty then. 0 also when there is none. -errno. */
int cache_remove(const char *dir);

/* Reads it: *ret_parts (the caller's), and each ServiceEntry (borrowed) to `on_entry`. Nothing is
 * given before the sum was right. -ENOENT: there is none; -EBADMSG with the reason in *ret_why
 * (static) when it is none of ours, damaged, or of another server; -errno. After an error whatever
 * was given counts for nothing.
 */
int cache_read(const char *dir, const char *server, json_t **ret_parts,
	       void (*on_entry)(void *ctx, json_t *object), void *ctx, const char **ret_why);
