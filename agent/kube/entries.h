/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The ServiceEntries of the API that are in order, as the array that registry_new() takes, and
 * those that are not, with the reason. A change costs the same however many there are. Knows no
 * API.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "kube/entries_read.h"
#include "kube/kube_table.h"
#include "registry/registry.h"

/* An object that cannot be used. Borrowed; texts are never NULL. */
struct entry_refusal {
	const char *ns, *name, *uid, *error;
	const char *version; /* resourceVersion */
};

struct entry_row;
struct entry_refused;

struct entry_store {
	struct kube_table rows;
	struct service_entry *list; /* n of them, in no order */
	struct entry_row **owners;  /* of each in `list` */
	size_t n, room;
	struct entry_refused *refused; /* newest first */
	size_t n_refused;
	struct entry_reader reader;
};

#define ENTRY_F_CHANGED 1 /* `list` says something else now */
#define ENTRY_F_REFUSED 2 /* the object is refused, and was not before in this version */

int entry_store_init(struct entry_store *store);  /* -errno */
void entry_store_done(struct entry_store *store); /* all zero is fine */

/* A new or changed object. One that cannot be used is refused alone; what it said before goes, too:
 * nobody can tell whether that is still wanted. Flags, or -errno, when the object is not there any
 * more. -EINVAL without a name.
 */
int entry_store_put(struct entry_store *store, json_t *object);

/* The same with an object of the cache, which waits for its confirmation by entry_store_put(). */
int entry_store_restore(struct entry_store *store, json_t *object);

/* Flags. */
int entry_store_remove(struct entry_store *store, const char *ns, const char *name);
int entry_store_remove_unconfirmed(struct entry_store *store);

/* The object refused last, of those that still are. False: there is none. */
bool entry_store_refusal(const struct entry_store *store, struct entry_refusal *ret);

/* The list as it is now, for another thread, which may take its time over it. */
struct entry_snapshot {
	struct service_entry *list;
	struct entry_row **owners;
	size_t n;
};

int entry_store_snapshot(const struct entry_store *store, struct entry_snapshot *ret); /* -ENOMEM */
void entry_snapshot_done(struct entry_snapshot *snapshot); /* any thread; all zero is fine */

/* As the API has it, for the cache; reading it again gives the same entry. NULL: no memory. */
json_t *entry_json(const struct service_entry *entry);
