/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/entries.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "kube/entries_pack.h"
#include "kube/kube_json.h"

#define NO_SLOT UINT32_MAX

/* One object. What its entry points to lies behind it. */
struct entry_row {
	struct kube_item item;
	atomic_uint refs; /* the table's and those of snapshots, which read what lies behind */
	uint32_t slot;    /* in the list; NO_SLOT: it is refused */
	bool confirmed;
};

struct entry_refused {
	struct entry_row row;
	struct entry_refused *newer, *older;
	struct entry_refusal what;
	char text[];
};

_Static_assert(offsetof(struct entry_refused, row) == 0, "a row is freed as what it is part of");

static void unref_row(struct entry_row *row)
{
	if (atomic_fetch_sub(&row->refs, 1) == 1)
		free(row);
}

int entry_store_init(struct entry_store *store)
{
	*store = (struct entry_store){0};
	return kube_table_init(&store->rows);
}

static struct entry_row *row_of(struct kube_item *item)
{
	return item ? CONTAINER_OF(item, struct entry_row, item) : NULL;
}

static struct entry_refused *refused_of(struct entry_row *row)
{
	return CONTAINER_OF(row, struct entry_refused, row);
}

static bool is_refused(const struct entry_row *row)
{
	return row->slot == NO_SLOT;
}

void entry_store_done(struct entry_store *store)
{
	struct kube_item *item = kube_table_next(&store->rows, NULL), *next;

	for (; item; item = next) {
		next = kube_table_next(&store->rows, item);
		unref_row(row_of(item));
	}
	kube_table_done(&store->rows);
	free(store->list);
	free(store->owners);
	entry_reader_done(&store->reader);
	*store = (struct entry_store){0};
}

/* ---- the list ---- */

/* So that the next entry finds a place. */
static int make_room(struct entry_store *store)
{
	size_t room = store->room > 0 ? store->room * 2 : 64;
	struct service_entry *list;
	struct entry_row **owners;

	if (store->n < store->room)
		return 0;
	if (room >= NO_SLOT)
		return -E2BIG;
	list = reallocarray(store->list, room, sizeof(*list));
	if (!list)
		return -ENOMEM;
	store->list = list;
	owners = reallocarray(store->owners, room, sizeof(struct entry_row *));
	if (!owners)
		return -ENOMEM;
	store->owners = owners;
	store->room = room;
	return 0;
}

/* The last one moves into the gap. */
static void leave_slot(struct entry_store *store, uint32_t slot)
{
	store->n--;
	store->list[slot] = store->list[store->n];
	store->owners[slot] = store->owners[store->n];
	store->owners[slot]->slot = slot;
}

/* ---- rows ---- */

static void link_refused(struct entry_store *store, struct entry_refused *refused)
{
	refused->older = store->refused;
	refused->newer = NULL;
	if (refused->older)
		refused->older->newer = refused;
	store->refused = refused;
	store->n_refused++;
}

static void unlink_refused(struct entry_store *store, struct entry_refused *refused)
{
	if (refused->newer)
		refused->newer->older = refused->older;
	else
		store->refused = refused->older;
	if (refused->older)
		refused->older->newer = refused->newer;
	store->n_refused--;
}

/* NULL is fine. Flags. */
static int drop(struct entry_store *store, struct entry_row *row)
{
	int flags = 0;

	if (!row)
		return 0;
	kube_table_remove(&store->rows, &row->item);
	if (is_refused(row)) {
		unlink_refused(store, refused_of(row));
	} else {
		leave_slot(store, row->slot);
		flags = ENTRY_F_CHANGED;
	}
	unref_row(row);
	return flags;
}

/* ---- objects ---- */

static int take_in(struct entry_store *store, struct entry_row *old, const struct kube_key *key,
		   const struct service_entry *entry, bool confirmed)
{
	struct service_entry packed;
	struct entry_row *row;
	int r;

	if (old && !is_refused(old) && entry_equal(entry, &store->list[old->slot])) {
		old->confirmed = confirmed;
		return 0;
	}
	r = make_room(store);
	if (r < 0)
		return r;
	row = entry_pack(entry, sizeof(*row), &packed);
	if (!row)
		return -ENOMEM;
	drop(store, old);
	atomic_init(&row->refs, 1);
	row->item.key = packed.ns; /* its name stands behind it */
	row->item.key_len = key->len;
	row->confirmed = confirmed;
	row->slot = (uint32_t)store->n++;
	store->list[row->slot] = packed;
	store->owners[row->slot] = row;
	kube_table_add(&store->rows, &row->item);
	return ENTRY_F_CHANGED;
}

static struct entry_refused *new_refused(const struct kube_key *key, const json_t *meta,
					 const char *error)
{
	const char *uid = kube_json_text(meta, "uid");
	const char *version = kube_json_text(meta, "resourceVersion");
	struct entry_refused *refused;
	char *at;

	refused = malloc(sizeof(*refused) + key->len + strlen(uid) + strlen(version) +
			 strlen(error) + 3);
	if (!refused)
		return NULL;
	at = refused->text;
	*refused = (struct entry_refused){.row = {.slot = NO_SLOT, .item.key = at}};
	refused->row.item.key_len = key->len;
	refused->what.ns = kube_put_text(&at, key->text);
	refused->what.name = kube_put_text(&at, key->text + strlen(key->text) + 1);
	refused->what.uid = kube_put_text(&at, uid);
	refused->what.version = kube_put_text(&at, version);
	refused->what.error = kube_put_text(&at, error);
	return refused;
}

static int refuse(struct entry_store *store, struct entry_row *old, const struct kube_key *key,
		  const json_t *object, const char *error, bool confirmed)
{
	const json_t *meta = kube_json_meta(object);
	struct entry_refused *refused;
	int flags;

	if (old && is_refused(old) &&
	    strcmp(refused_of(old)->what.version, kube_json_text(meta, "resourceVersion")) == 0) {
		old->confirmed = confirmed;
		return 0;
	}
	refused = new_refused(key, meta, error);
	if (!refused)
		return -ENOMEM;
	flags = drop(store, old) | ENTRY_F_REFUSED;
	atomic_init(&refused->row.refs, 1);
	refused->row.confirmed = confirmed;
	link_refused(store, refused);
	kube_table_add(&store->rows, &refused->row.item);
	return flags;
}

static int put(struct entry_store *store, json_t *object, bool confirmed)
{
	char error[ENTRY_ERROR_MAX] = "";
	const struct service_entry *entry;
	struct entry_row *old;
	struct kube_key key;
	int r;

	if (kube_key(kube_json_ns(object), kube_json_name(object), &key) < 0)
		return -EINVAL;
	old = row_of(kube_table_find(&store->rows, &key));
	r = entry_read(&store->reader, object, &entry, error);
	if (r == 0)
		r = take_in(store, old, &key, entry, confirmed);
	else if (r == -EINVAL)
		r = refuse(store, old, &key, object, error, confirmed);
	if (r < 0)
		drop(store, old); /* what it was is not what it is */
	return r;
}

int entry_store_put(struct entry_store *store, json_t *object)
{
	return put(store, object, true);
}

int entry_store_restore(struct entry_store *store, json_t *object)
{
	return put(store, object, false);
}

int entry_store_remove(struct entry_store *store, const char *ns, const char *name)
{
	struct kube_key key;

	if (kube_key(ns, name, &key) < 0)
		return 0;
	return drop(store, row_of(kube_table_find(&store->rows, &key)));
}

int entry_store_remove_unconfirmed(struct entry_store *store)
{
	struct kube_item *item = kube_table_next(&store->rows, NULL), *next;
	int flags = 0;

	for (; item; item = next) {
		next = kube_table_next(&store->rows, item);
		if (!row_of(item)->confirmed)
			flags |= drop(store, row_of(item));
	}
	return flags;
}

bool entry_store_refusal(const struct entry_store *store, struct entry_refusal *ret)
{
	if (!store->refused)
		return false;
	*ret = store->refused->what;
	return true;
}

int entry_store_snapshot(const struct entry_store *store, struct entry_snapshot *ret)
{
	struct entry_snapshot copy = {.n = store->n};

	copy.list = calloc(store->n + 1, sizeof(*copy.list));
	copy.owners = calloc(store->n + 1, sizeof(struct entry_row *));
	if (!copy.list || !copy.owners) {
		free(copy.list);
		free(copy.owners);
		return -ENOMEM;
	}
	for (size_t i = 0; i < store->n; i++) {
		copy.list[i] = store->list[i];
		copy.owners[i] = store->owners[i];
		atomic_fetch_add(&copy.owners[i]->refs, 1);
	}
	*ret = copy;
	return 0;
}

void entry_snapshot_done(struct entry_snapshot *snapshot)
{
	for (size_t i = 0; i < snapshot->n; i++)
		unref_row(snapshot->owners[i]);
	free(snapshot->list);
	free(snapshot->owners);
	*snapshot = (struct entry_snapshot){0};
}
