/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/kube_addrs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"

struct addr_row {
	struct kube_item item;
	size_t n;
	const struct addr *addrs;
	char text[];
};

static struct addr_row *row_of(struct kube_item *item)
{
	return item ? CONTAINER_OF(item, struct addr_row, item) : NULL;
}

int addr_store_init(struct addr_store *store)
{
	*store = (struct addr_store){0};
	return kube_table_init(&store->rows);
}

static void drop(struct addr_store *store, struct addr_row *row)
{
	if (!row)
		return;
	kube_table_remove(&store->rows, &row->item);
	free(row);
}

void addr_store_done(struct addr_store *store)
{
	struct kube_item *item = kube_table_next(&store->rows, NULL), *next;

	for (; item; item = next) {
		next = kube_table_next(&store->rows, item);
		drop(store, row_of(item));
	}
	kube_table_done(&store->rows);
	free(store->told);
	*store = (struct addr_store){0};
}

int addr_store_put(struct addr_store *store, const char *name, const struct addr *addrs, size_t n)
{
	size_t bytes = n * sizeof(*addrs);
	struct addr_row *row;
	struct kube_key key;

	if (kube_key("", name, &key) < 0)
		return -EINVAL;
	drop(store, row_of(kube_table_find(&store->rows, &key)));
	row = malloc(sizeof(*row) + bytes + key.len);
	if (!row)
		return -ENOMEM;
	*row = (struct addr_row){.n = n, .addrs = (struct addr *)(void *)row->text};
	if (n > 0)
		memcpy(row->text, addrs, bytes);
	row->item.key = memcpy(row->text + bytes, key.text, key.len);
	row->item.key_len = key.len;
	kube_table_add(&store->rows, &row->item);
	return 0;
}

void addr_store_remove(struct addr_store *store, const char *name)
{
	struct kube_key key;

	if (kube_key("", name, &key) == 0)
		drop(store, row_of(kube_table_find(&store->rows, &key)));
}

/* All of them, unsorted; the caller's. */
static int gather(const struct addr_store *store, struct addr **ret, size_t *ret_n)
{
	struct addr *all;
	size_t n = 0;

	for (struct kube_item *item = kube_table_next(&store->rows, NULL); item;
	     item = kube_table_next(&store->rows, item))
		n += row_of(item)->n;
	all = calloc(n + 1, sizeof(*all));
	if (!all)
		return -ENOMEM;
	n = 0;
	for (struct kube_item *item = kube_table_next(&store->rows, NULL); item;
	     item = kube_table_next(&store->rows, item)) {
		const struct addr_row *row = row_of(item);

		memcpy(all + n, row->addrs, row->n * sizeof(*all));
		n += row->n;
	}
	*ret = all;
	*ret_n = n;
	return 0;
}

/* Takes `addrs`. */
static int tell(struct addr_store *store, struct addr *addrs, size_t n, size_t max)
{
	n = addrs_unique(addrs, n);
	if (n > max)
		n = max;
	if (store->is_told && addrs_equal(addrs, n, store->told, store->n_told)) {
		free(addrs);
		return 0;
	}
	free(store->told);
	store->told = addrs;
	store->n_told = n;
	store->is_told = true;
	return 1;
}

int addr_store_settle(struct addr_store *store, size_t max)
{
	struct addr *all = NULL;
	size_t n = 0;
	int r = gather(store, &all, &n);

	return r < 0 ? r : tell(store, all, n, max);
}

int addr_store_restore(struct addr_store *store, const struct addr *addrs, size_t n, size_t max)
{
	struct addr *copy = calloc(n + 1, sizeof(*copy));

	if (!copy)
		return -ENOMEM;
	if (n > 0)
		memcpy(copy, addrs, n * sizeof(*copy));
	return tell(store, copy, n, max) < 0 ? -ENOMEM : 0;
}

static int compare(const void *a, const void *b)
{
	const struct addr *p = a, *q = b;
	int r = memcmp(p->ip, q->ip, sizeof(p->ip));

	return r != 0 ? r : (int)p->port - (int)q->port;
}

size_t addrs_unique(struct addr *addrs, size_t n)
{
	size_t kept = 0;

	if (n > 0)
		qsort(addrs, n, sizeof(*addrs), compare);
	for (size_t i = 0; i < n; i++) {
		if (kept == 0 || !addr_equal(&addrs[kept - 1], &addrs[i]))
			addrs[kept++] = addrs[i];
	}
	return kept;
}

bool addrs_equal(const struct addr *a, size_t n, const struct addr *b, size_t m)
{
	if (n != m)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!addr_equal(&a[i], &b[i]))
			return false;
	}
	return true;
}
