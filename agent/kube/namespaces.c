/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/namespaces.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "kube/kube_json.h"

struct namespace_row {
	struct kube_item item;
	bool labelled, confirmed;
	char key[];
};

static struct namespace_row *row_of(struct kube_item *item)
{
	return item ? CONTAINER_OF(item, struct namespace_row, item) : NULL;
}

int namespace_store_init(struct namespace_store *store, enum enrol_mode mode,
			 const char *const *excluded, size_t n_excluded)
{
	int r;

	*store = (struct namespace_store){.mode = mode};
	r = kube_table_init(&store->rows);
	if (r < 0)
		return r;
	store->excluded = calloc(n_excluded + 1, sizeof(char *));
	for (size_t i = 0; store->excluded && i < n_excluded; i++) {
		store->excluded[i] = strdup(excluded[i]);
		if (!store->excluded[i])
			break;
		store->n_excluded++;
	}
	if (store->excluded && store->n_excluded == n_excluded)
		return 0;
	namespace_store_done(store);
	return -ENOMEM;
}

void namespace_store_done(struct namespace_store *store)
{
	struct kube_item *item = kube_table_next(&store->rows, NULL), *next;

	for (; item; item = next) {
		next = kube_table_next(&store->rows, item);
		free(row_of(item));
	}
	kube_table_done(&store->rows);
	for (size_t i = 0; i < store->n_excluded; i++)
		free(store->excluded[i]);
	free(store->excluded);
	*store = (struct namespace_store){0};
}

static struct namespace_row *find(const struct namespace_store *store, const char *ns)
{
	struct kube_key key;

	return kube_key("", ns, &key) < 0 ? NULL : row_of(kube_table_find(&store->rows, &key));
}

/* Whoever was not enforced when the cache was written may be by now: that no is no answer. */
static int answer(const struct namespace_row *row)
{
	if (row->labelled)
		return 1;
	return row->confirmed ? 0 : -EAGAIN;
}

static int put(struct namespace_store *store, const char *ns, bool labelled, bool confirmed)
{
	struct namespace_row *row = find(store, ns);
	struct kube_key key;

	if (row) {
		int before = answer(row);

		row->labelled = labelled;
		row->confirmed = confirmed;
		return answer(row) != before;
	}
	if (kube_key("", ns, &key) < 0)
		return -EINVAL;
	row = malloc(sizeof(*row) + key.len);
	if (!row)
		return -ENOMEM;
	*row = (struct namespace_row){.labelled = labelled, .confirmed = confirmed};
	memcpy(row->key, key.text, key.len);
	row->item.key = row->key;
	row->item.key_len = key.len;
	kube_table_add(&store->rows, &row->item);
	return 1;
}

static bool is_labelled(const json_t *object)
{
	const json_t *labels = json_object_get(kube_json_meta(object), "labels");

	return strcmp(kube_json_text(labels, NAMESPACE_LABEL), "enforced") == 0;
}

int namespace_store_put(struct namespace_store *store, const json_t *object)
{
	return put(store, kube_json_name(object), is_labelled(object), true);
}

int namespace_store_restore(struct namespace_store *store, const char *ns, bool labelled)
{
	return put(store, ns, labelled, false);
}

static void drop(struct namespace_store *store, struct namespace_row *row)
{
	if (!row)
		return;
	kube_table_remove(&store->rows, &row->item);
	free(row);
}

void namespace_store_remove(struct namespace_store *store, const char *ns)
{
	drop(store, find(store, ns));
}

void namespace_store_remove_unconfirmed(struct namespace_store *store)
{
	struct kube_item *item = kube_table_next(&store->rows, NULL), *next;

	for (; item; item = next) {
		next = kube_table_next(&store->rows, item);
		if (!row_of(item)->confirmed)
			drop(store, row_of(item));
	}
}

bool namespace_is_excluded(const struct namespace_store *store, const char *ns)
{
	for (size_t i = 0; i < store->n_excluded; i++) {
		if (strcmp(store->excluded[i], ns) == 0)
			return true;
	}
	return false;
}

int namespace_is_enforced(const struct namespace_store *store, const char *ns)
{
	const struct namespace_row *row;

	if (namespace_is_excluded(store, ns))
		return 0;
	if (store->mode == ENROL_ALL)
		return 1;
	row = find(store, ns);
	return row ? answer(row) : -EAGAIN;
}

json_t *namespace_store_json(const struct namespace_store *store)
{
	json_t *object = json_object();

	for (struct kube_item *item = kube_table_next(&store->rows, NULL); item;
	     item = kube_table_next(&store->rows, item)) {
		if (json_object_set_new(object, kube_item_name(item),
					json_boolean(row_of(item)->labelled)) < 0) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}
