/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Notices that something changed behind configured paths, and says so once when it is over. For
 * the thread of its loop only.
 */
#include <stddef.h>
#include <stdint.h>

#include "net/loop.h"

/* A folder that inotify looks at. */
struct watched {
	int wd;     /* negative: not watched */
	char *path; /* of the folder */
	char *only; /* the one file or folder in it that matters; NULL: all resources */
};

/* Embed; all is private but `on_change`. */
struct watcher {
	void (*on_change)(struct watcher *w);

	struct loop *loop;
	const char *const *paths;
	size_t n;
	struct watch inotify;
	struct watched *watched;
	size_t n_watched;
	struct timer settle, poll;
	uint64_t first_event_ms;
	uint64_t seen;    /* fingerprint of what was loaded last */
	uint64_t pending; /* what the last poll found, when that was another; else 0 */
};

void watcher_init(struct watcher *w, struct loop *loop);

/* Watches `paths` (borrowed until the next call) as they are now. To be called before each load:
 * whatever changes from here on is reported. A path that is not there yet is waited for.
 */
void watcher_arm(struct watcher *w, const char *const *paths, size_t n);
void watcher_done(struct watcher *w);
