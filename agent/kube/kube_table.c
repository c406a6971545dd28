/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/kube_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define ROOM_MIN 64

int kube_key(const char *ns, const char *name, struct kube_key *ret)
{
	size_t n = strlen(ns), m = strlen(name);

	if (m == 0 || n + m + 2 > sizeof(ret->text))
		return -ENAMETOOLONG;
	memcpy(ret->text, ns, n + 1);
	memcpy(ret->text + n + 1, name, m + 1);
	ret->len = (uint32_t)(n + m + 2);
	return 0;
}

const char *kube_item_ns(const struct kube_item *item)
{
	return item->key;
}

const char *kube_item_name(const struct kube_item *item)
{
	return item->key + strlen(item->key) + 1;
}

int kube_table_init(struct kube_table *table)
{
	*table = (struct kube_table){.room = ROOM_MIN};
	if (getrandom(&table->secret, sizeof(table->secret), 0) != sizeof(table->secret))
		return -EIO;
	table->buckets = calloc(table->room, sizeof(struct kube_item *));
	return table->buckets ? 0 : -ENOMEM;
}

void kube_table_done(struct kube_table *table)
{
	free(table->buckets);
	*table = (struct kube_table){0};
}

static uint64_t hash_of(const struct kube_table *table, const char *key, uint32_t len)
{
	return siphash13(&table->secret, (struct span){(const uint8_t *)key, len});
}

static struct kube_item **bucket_of(const struct kube_table *table, uint64_t hash)
{
	return &table->buckets[hash & (table->room - 1)];
}

struct kube_item *kube_table_find(const struct kube_table *table, const struct kube_key *key)
{
	uint64_t hash;

	if (!table->buckets)
		return NULL;
	hash = hash_of(table, key->text, key->len);
	for (struct kube_item *item = *bucket_of(table, hash); item; item = item->next) {
		if (item->hash == hash && item->key_len == key->len &&
		    memcmp(item->key, key->text, key->len) == 0)
			return item;
	}
	return NULL;
}

static void hang(struct kube_table *table, struct kube_item *item)
{
	struct kube_item **bucket = bucket_of(table, item->hash);

	item->next = *bucket;
	*bucket = item;
}

/* Without memory it stays as it is: slower, and no less right. */
static void grow(struct kube_table *table)
{
	struct kube_item **old = table->buckets, **buckets;
	size_t room = table->room;

	buckets = calloc(room * 2, sizeof(struct kube_item *));
	if (!buckets)
		return;
	table->buckets = buckets;
	table->room = room * 2;
	for (size_t i = 0; i < room; i++) {
		struct kube_item *item = old[i], *next;

		for (; item; item = next) {
			next = item->next;
			hang(table, item);
		}
	}
	free(old);
}

void kube_table_add(struct kube_table *table, struct kube_item *item)
{
	if (table->n >= table->room)
		grow(table);
	item->hash = hash_of(table, item->key, item->key_len);
	hang(table, item);
	table->n++;
}

void kube_table_remove(struct kube_table *table, struct kube_item *item)
{
	struct kube_item **link = bucket_of(table, item->hash);

	while (*link != item)
		link = &(*link)->next;
	*link = item->next;
	table->n--;
}

struct kube_item *kube_table_next(const struct kube_table *table, const struct kube_item *item)
{
	size_t i = 0;

	if (item && item->next)
		return item->next;
	if (item)
		i = (item->hash & (table->room - 1)) + 1;
	for (; i < table->room && table->buckets; i++) {
		if (table->buckets[i])
			return table->buckets[i];
	}
	return NULL;
}
