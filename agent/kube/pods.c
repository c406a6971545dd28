/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/pods.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "kube/kube_json.h"
#include "kube/pod_facts.h"

struct pod_row {
	struct kube_item item;
	struct pod_facts now, told; /* `now.enforced` is unused: the namespace decides */
	bool is_told;
	const char *uid, *kubelet_uid, *service_account; /* kubelet_uid: "" unless it is another */
	char text[];
};

static struct pod_row *row_of(struct kube_item *item)
{
	return item ? CONTAINER_OF(item, struct pod_row, item) : NULL;
}

int pod_store_init(struct pod_store *store)
{
	*store = (struct pod_store){0};
	return kube_table_init(&store->rows);
}

void pod_store_done(struct pod_store *store)
{
	struct kube_item *item = kube_table_next(&store->rows, NULL), *next;

	for (; item; item = next) {
		next = kube_table_next(&store->rows, item);
		free(row_of(item));
	}
	kube_table_done(&store->rows);
}

struct pod_row *pod_store_find(const struct pod_store *store, const char *ns, const char *name)
{
	struct kube_key key;

	return kube_key(ns, name, &key) < 0 ? NULL : row_of(kube_table_find(&store->rows, &key));
}

struct pod_row *pod_store_next(const struct pod_store *store, const struct pod_row *row)
{
	return row_of(kube_table_next(&store->rows, row ? &row->item : NULL));
}

const char *pod_row_ns(const struct pod_row *row)
{
	return kube_item_ns(&row->item);
}

const char *pod_row_uid(const struct pod_row *row)
{
	return row->uid;
}

const char *pod_row_service_account(const struct pod_row *row)
{
	return row->service_account;
}

bool pod_row_may_be(const struct pod_row *row, const char *uid)
{
	return row->kubelet_uid[0] || strcmp(row->uid, uid) == 0;
}

bool pod_row_is_told(const struct pod_row *row)
{
	return row->is_told;
}

/* ---- rows ---- */

static int add(struct pod_store *store, const json_t *object, struct pod_row **ret)
{
	const char *uid = kube_json_text(kube_json_meta(object), "uid");
	const json_t *spec = json_object_get(object, "spec");
	const char *account = kube_json_text(spec, "serviceAccountName");
	const char *mirrored = pod_mirrored_uid(object);
	struct pod_row *row;
	struct kube_key key;
	char *at;

	if (kube_key(kube_json_ns(object), kube_json_name(object), &key) < 0)
		return -EINVAL;
	row = malloc(sizeof(*row) + key.len + strlen(uid) + strlen(mirrored) + strlen(account) + 3);
	if (!row)
		return -ENOMEM;
	*row = (struct pod_row){.item.key_len = key.len};
	row->item.key = memcpy(row->text, key.text, key.len);
	at = row->text + key.len;
	row->uid = kube_put_text(&at, uid);
	row->kubelet_uid = kube_put_text(&at, mirrored);
	row->service_account = kube_put_text(&at, account);
	kube_table_add(&store->rows, &row->item);
	*ret = row;
	return 0;
}

int pod_store_put(struct pod_store *store, const json_t *object, struct pod_row **ret)
{
	struct pod_row *row = pod_store_find(store, kube_json_ns(object), kube_json_name(object));
	int r = row ? 0 : add(store, object, &row);

	if (r < 0)
		return r;
	row->now = pod_facts_of(object);
	*ret = row;
	return 0;
}

void pod_store_remove(struct pod_store *store, struct pod_row *row)
{
	if (!row)
		return;
	kube_table_remove(&store->rows, &row->item);
	free(row);
}

/* ---- what to tell ---- */

static void tell(struct pod_row *row, const struct pod_facts *facts, struct kube_pod *ret)
{
	bool known = row->is_told && pod_is_unconfined(&row->told);

	row->told = *facts;
	row->is_told = true;
	*ret = (struct kube_pod){
		.ns = kube_item_ns(&row->item),
		.name = kube_item_name(&row->item),
		.uid = row->kubelet_uid[0] ? row->kubelet_uid : row->uid,
		.service_account = row->service_account,
		.host_network = facts->host_network,
		.enforced = facts->enforced,
		.ended = facts->ended,
		.ready_to_find = facts->ready_to_find,
		.unconfined = pod_is_unconfined(facts) && !known,
	};
}

bool pod_row_tell(struct pod_row *row, int enforced, struct kube_pod *ret)
{
	struct pod_facts facts = row->now;

	/* An end is final, whatever its namespace's label does later. */
	if (row->is_told && row->told.ended)
		return false;
	if (facts.ended)
		return pod_row_tell_end(row, enforced, ret);
	if (enforced < 0)
		return false;
	facts.enforced = enforced > 0;
	if (row->is_told && pod_facts_are_same(&facts, &row->told))
		return false;
	tell(row, &facts, ret);
	return true;
}

bool pod_row_tell_end(struct pod_row *row, int enforced, struct kube_pod *ret)
{
	struct pod_facts facts = row->now;

	if (row->is_told && row->told.ended)
		return false;
	facts.ended = true;
	facts.enforced = enforced < 0 ? row->told.enforced : enforced > 0;
	tell(row, &facts, ret);
	return true;
}
