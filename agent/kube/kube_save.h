/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Writes the cache some time after something has changed, on a thread of its own: 100,000 entries
 * take a second. For the loop's thread.
 */
#include <jansson.h>
#include <stdbool.h>

#include "kube/entries.h"
#include "net/loop.h"

struct kube_saver;

/* What is to be written, now: a snapshot, and an object with the rest (both the saver's).
 * False: nothing is known yet that was worth it.
 */
typedef bool kube_take_fn(void *ctx, struct entry_snapshot *ret, json_t **ret_parts);

struct kube_save_config {
	const char *dir, *server; /* as cache_write() has them; copied */
	unsigned after_ms;        /* a change; later where writing takes long */
	kube_take_fn *take;
	void *ctx;
};

/* The loop is borrowed. -errno. */
int kube_saver_new(struct kube_saver **ret, struct loop *loop,
		   const struct kube_save_config *config);

/* Something has changed. */
void kube_saver_touch(struct kube_saver *saver); /* NULL is fine */

/* Writes what has not been written. NULL is fine. */
void kube_saver_free(struct kube_saver *saver);
