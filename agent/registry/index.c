/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_MIN 16U
#define SLOTS_MAX (1U << 31)
#define WORDS_MIN 256U

static void put_slot(struct index *ix, struct index_slot slot)
{
	uint32_t mask = ix->n_slots - 1, i = slot.tag & mask;

	while (ix->slots[i].id != 0)
		i = (i + 1) & mask;
	ix->slots[i] = slot;
}

static int grow_slots(struct index *ix)
{
	struct index old = *ix;

	if (old.n_slots == SLOTS_MAX)
		return -E2BIG;
	ix->n_slots = old.n_slots ? old.n_slots * 2 : SLOTS_MIN;
	ix->slots = calloc(ix->n_slots, sizeof(*ix->slots));
	if (!ix->slots) {
		*ix = old;
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < old.n_slots; i++) {
		if (old.slots[i].id != 0)
			put_slot(ix, old.slots[i]);
	}
	free(old.slots);
	return 0;
}

static int grow_words(struct index *ix, size_t wanted)
{
	size_t n = ix->max_words ?: WORDS_MIN;
	uint32_t *words;

	while (n < wanted)
		n *= 2;
	if (n == ix->max_words)
		return 0;
	if (n > UINT32_MAX)
		return -E2BIG;
	words = reallocarray(ix->words, n, sizeof(*words));
	if (!words)
		return -ENOMEM;
	ix->words = words;
	ix->max_words = n;
	return 0;
}

static size_t words_of(size_t key_len, size_t n_grants)
{
	size_t bytes = sizeof(struct record) + n_grants * sizeof(struct grant) + key_len + 2;

	return (bytes + sizeof(uint32_t) - 1) / sizeof(uint32_t);
}

static const struct record *record_at(const struct index *ix, uint32_t id)
{
	return (const struct record *)(const void *)&ix->words[id];
}

const struct record *index_find(const struct index *ix, struct span key)
{
	uint32_t mask = ix->n_slots - 1, tag;

	if (ix->n == 0)
		return NULL;
	tag = (uint32_t)siphash13(&ix->seed, key);
	for (uint32_t i = tag & mask; ix->slots[i].id != 0; i = (i + 1) & mask) {
		const struct record *r;

		if (ix->slots[i].tag != tag)
			continue;
		r = record_at(ix, ix->slots[i].id);
		if (r->len == key.len && memcmp(record_key(r), key.p, key.len) == 0)
			return r;
	}
	return NULL;
}

int index_add(struct index *ix, struct span key, const struct grant *grants, size_t n_grants)
{
	size_t at = ix->n_words ?: 1, n = words_of(key.len, n_grants); /* 0 is no id */
	struct record *r;
	char *text;
	int ret;

	if (key.len > UINT16_MAX)
		return -E2BIG;
	ret = ix->n >= ix->n_slots / 5 * 4 ? grow_slots(ix) : 0;
	if (ret == 0)
		ret = grow_words(ix, at + n);
	if (ret < 0)
		return ret;

	r = (struct record *)(void *)&ix->words[at];
	*r = (struct record){.n_grants = (uint32_t)n_grants, .len = (uint32_t)key.len};
	if (n_grants > 0)
		memcpy(r->grants, grants, n_grants * sizeof(*grants));
	text = (char *)&r->grants[n_grants];
	text[0] = '*';
	memcpy(text + 1, key.p, key.len);
	text[1 + key.len] = '\0';

	put_slot(ix, (struct index_slot){.tag = (uint32_t)siphash13(&ix->seed, key),
					 .id = (uint32_t)at});
	ix->n_words = at + n;
	ix->n++;
	return 0;
}

struct record *index_next(const struct index *ix, const struct record *r)
{
	size_t at = r ? index_id(ix, r) + words_of(r->len, r->n_grants) : 1;

	return at < ix->n_words ? (struct record *)(void *)&ix->words[at] : NULL;
}

uint32_t index_id(const struct index *ix, const struct record *r)
{
	return (uint32_t)((const uint32_t *)(const void *)r - ix->words);
}

void index_done(struct index *ix)
{
	free(ix->slots);
	free(ix->words);
}
