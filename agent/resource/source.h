/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Files to registry: loads all configured files and folders (*.yaml, *.yml, *.json), and again when
 * one changes. Runs on a thread of its own, so that a large registry does not hold anybody up. A
 * feed, on the same thread, may have entries beside those of the files (the Kubernetes API's).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/loop.h"
#include "registry/registry.h"

struct source;

/* Everything is called on the source's thread. */
struct source_feed {
	void *ctx;
	/* Once, before the first load. -errno: logged there; the files' entries are all there is.
	 */
	int (*open)(void *ctx, struct loop *loop, struct source *source);
	/* All of its entries, borrowed until the loop's next event. False: it knows none yet. */
	bool (*entries)(void *ctx, const struct service_entry **ret, size_t *ret_n);
	void (*close)(void *ctx); /* also after open() failed */
};

struct source_status {
	uint64_t accepted;     /* loads that came into force */
	uint64_t rejected;     /* loads refused: sluice_registry_rejected_total */
	uint64_t load_ms;      /* how long the last accepted one took */
	int64_t loaded_at;     /* of the last accepted one, seconds since 1970; 0: none yet */
	char last_error[1024]; /* why the newest load was refused; "" when it is in force */
};

/* Called on the source's thread with each new registry (borrowed: take a reference). */
typedef void source_publish_fn(void *ctx, struct registry *reg);

/* Loads once, in the calling thread, whole or not at all. Logs every error with file, line, object
 * and field (and every warning). `ret_error` (may be NULL) gets the first error. -EINVAL when a
 * document is refused, -errno when a file cannot be read.
 */
int source_load(const char *const *paths, size_t n, struct registry **ret, char ret_error[1024]);

/* Starts the thread: loads, publishes, watches with inotify (changes within 1 s, bursts folded,
 * files replaced by rename, ConfigMap-style symlink swaps), publishes again. When the first load
 * is refused an empty registry is published (nothing may pass) and the error stands in the status.
 * `feed` is copied; NULL: none.
 */
int source_start(struct source **ret, const char *const *paths, size_t n,
		 const struct source_feed *feed, source_publish_fn *publish, void *ctx);

/* The feed's entries are others now (the source's thread): they are in force soon, many changes at
 * once. */
void source_changed(struct source *source);
void source_reload(struct source *source); /* load again now (SIGHUP) */
void source_set_paths(struct source *source, const char *const *paths, size_t n); /* and reload */
void source_status(struct source *source, struct source_status *ret);
void source_stop(struct source *source); /* joins the thread; NULL is fine */
