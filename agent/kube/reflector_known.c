/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/reflector_known.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "kube/kube_json.h"

struct entry {
	struct kube_item item;
	uint64_t state;
	uint32_t run;
	char key[];
};

static struct entry *entry_of(struct kube_item *item)
{
	return CONTAINER_OF(item, struct entry, item);
}

int known_init(struct known *known, const struct reflector_hooks *hooks)
{
	known->hooks = hooks;
	return kube_table_init(&known->table);
}

/* The next one, after which `entry` may be removed. */
static struct entry *next_of(const struct known *known, struct entry *entry)
{
	struct kube_item *item = kube_table_next(&known->table, entry ? &entry->item : NULL);

	return item ? entry_of(item) : NULL;
}

void known_done(struct known *known)
{
	struct entry *entry = next_of(known, NULL), *next;

	for (; entry; entry = next) {
		next = next_of(known, entry);
		kube_table_remove(&known->table, &entry->item);
		free(entry);
	}
	kube_table_done(&known->table);
}

static int key_of(const json_t *object, struct kube_key *ret)
{
	return kube_key(kube_json_ns(object), kube_json_name(object), ret) < 0 ? -EBADMSG : 0;
}

/* The uid, too: an API server that was set back to a backup gives versions out again. */
static uint64_t state_of(const struct known *known, const json_t *object, const char *version)
{
	const char *uid = kube_json_text(kube_json_meta(object), "uid");

	return siphash13(&known->table.secret, span_of(version)) ^
	       siphash13(&known->table.secret, span_of(uid)) * 3;
}

static struct entry *add(struct known *known, const struct kube_key *key)
{
	struct entry *entry = calloc(1, sizeof(*entry) + key->len);

	if (!entry)
		return NULL;
	memcpy(entry->key, key->text, key->len);
	entry->item.key = entry->key;
	entry->item.key_len = key->len;
	kube_table_add(&known->table, &entry->item);
	return entry;
}

int known_take(struct known *known, json_t *object)
{
	const char *version = kube_json_text(kube_json_meta(object), "resourceVersion");
	struct kube_item *found;
	struct entry *entry;
	struct kube_key key;
	uint64_t state;

	if (!version[0] || key_of(object, &key) < 0)
		return -EBADMSG;
	state = state_of(known, object, version);
	found = kube_table_find(&known->table, &key);
	if (found && entry_of(found)->state == state) {
		entry_of(found)->run = known->run;
		return 0;
	}
	entry = found ? entry_of(found) : add(known, &key);
	if (!entry)
		return -ENOMEM;
	entry->state = state;
	entry->run = known->run;
	known->hooks->on_object(known->hooks->ctx, object);
	return 0;
}

static void forget(struct known *known, struct entry *entry)
{
	kube_table_remove(&known->table, &entry->item);
	known->hooks->on_deleted(known->hooks->ctx, kube_item_ns(&entry->item),
				 kube_item_name(&entry->item));
	free(entry);
}

int known_drop(struct known *known, const json_t *object)
{
	struct kube_item *found;
	struct kube_key key;

	if (key_of(object, &key) < 0)
		return -EBADMSG;
	found = kube_table_find(&known->table, &key);
	if (found)
		forget(known, entry_of(found));
	return 0;
}

void known_begin(struct known *known)
{
	known->run++;
}

void known_end(struct known *known)
{
	struct entry *entry = next_of(known, NULL), *next;

	for (; entry; entry = next) {
		next = next_of(known, entry);
		if (entry->run != known->run)
			forget(known, entry);
	}
}
