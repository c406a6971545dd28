/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/recent.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"

#define ROOM_FIRST 16
#define ENDS       0 /* the place that is no key's: its newer is the oldest, its older the newest */

struct said {
	uint64_t at_ms;
	uint64_t times;
	uint16_t older, newer; /* places */
	uint8_t len;
	uint8_t key[RECENT_KEY_MAX];
};

/* Found by halving, forgotten in the order of saying. There is no hash, so no choice of keys is
 * worse than another: at worst an insertion moves all of `sorted`.
 */
struct recent {
	struct said *said; /* places 1 to n are in use */
	uint16_t *sorted;  /* places by key, n of them */
	size_t n, room, max;
	uint64_t for_ms;
};

/* False when there is no memory: then it stays as it is. */
static bool grow(struct recent *r, size_t room)
{
	struct said *said = reallocarray(r->said, room + 1, sizeof(*said));
	uint16_t *sorted;

	if (!said)
		return false;
	r->said = said;
	sorted = reallocarray(r->sorted, room, sizeof(*sorted));
	if (!sorted)
		return false;
	r->sorted = sorted;
	r->room = room;
	return true;
}

int recent_new(struct recent **ret, size_t max, uint64_t for_ms)
{
	struct recent *r;

	if (max == 0 || max > UINT16_MAX)
		return -EINVAL;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->max = max;
	r->for_ms = for_ms;
	if (!grow(r, max < ROOM_FIRST ? max : ROOM_FIRST)) {
		recent_free(r);
		return -ENOMEM;
	}
	r->said[ENDS] = (struct said){.older = ENDS, .newer = ENDS};
	*ret = r;
	return 0;
}

void recent_free(struct recent *recent)
{
	if (!recent)
		return;
	free(recent->said);
	free(recent->sorted);
	free(recent);
}

/* ---- by age ---- */

static void unlink_said(struct recent *r, uint16_t place)
{
	struct said *s = &r->said[place];

	r->said[s->older].newer = s->newer;
	r->said[s->newer].older = s->older;
}

static void link_newest(struct recent *r, uint16_t place)
{
	struct said *s = &r->said[place];

	s->older = r->said[ENDS].older;
	s->newer = ENDS;
	r->said[s->older].newer = place;
	r->said[ENDS].older = place;
}

/* ---- by key ---- */

static int compare(const struct said *s, const void *key, size_t len)
{
	if (s->len != len)
		return s->len < len ? -1 : 1;
	return memcmp(s->key, key, len);
}

/* Where in `sorted` it is, or would be. */
static bool find(const struct recent *r, const void *key, size_t len, size_t *ret)
{
	size_t from = 0, to = r->n;

	while (from < to) {
		size_t middle = from + (to - from) / 2;
		int c = compare(&r->said[r->sorted[middle]], key, len);

		if (c == 0) {
			*ret = middle;
			return true;
		}
		if (c < 0)
			from = middle + 1;
		else
			to = middle;
	}
	*ret = from;
	return false;
}

static void remove_sorted(struct recent *r, size_t i)
{
	memmove(&r->sorted[i], &r->sorted[i + 1], (r->n - i - 1) * sizeof(*r->sorted));
	r->n--;
}

static void insert_sorted(struct recent *r, size_t i, uint16_t place)
{
	memmove(&r->sorted[i + 1], &r->sorted[i], (r->n - i) * sizeof(*r->sorted));
	r->sorted[i] = place;
	r->n++;
}

/* ---- both ---- */

static uint16_t forget_oldest(struct recent *r)
{
	uint16_t place = r->said[ENDS].newer;
	size_t i;
	bool found = find(r, r->said[place].key, r->said[place].len, &i);

	assert(place != ENDS && found);
	unlink_said(r, place);
	remove_sorted(r, i);
	return place;
}

/* A place to write to. Without memory for more, that of the oldest. */
static uint16_t take_place(struct recent *r)
{
	if (r->n == r->room && r->room < r->max)
		grow(r, r->room * 2 < r->max ? r->room * 2 : r->max);
	if (r->n == r->room)
		return forget_oldest(r);
	return (uint16_t)(r->n + 1);
}

static void add(struct recent *r, const void *key, size_t len, uint64_t now_ms)
{
	uint16_t place = take_place(r);
	struct said *s = &r->said[place];
	size_t i;

	*s = (struct said){.at_ms = now_ms, .len = (uint8_t)len};
	memcpy(s->key, key, len);
	find(r, key, len, &i); /* only now: forgetting moves others */
	insert_sorted(r, i, place);
	link_newest(r, place);
}

bool recent_is_new(struct recent *recent, const void *key, size_t len, uint64_t now_ms,
		   uint64_t *ret_times)
{
	struct said *s;
	size_t i;

	assert(len > 0 && len <= RECENT_KEY_MAX);
	if (!find(recent, key, len, &i)) {
		add(recent, key, len, now_ms);
		*ret_times = 0;
		return true;
	}
	s = &recent->said[recent->sorted[i]];
	/* A clock that went back makes a large number of it: better said twice than never. */
	if (now_ms - s->at_ms < recent->for_ms) {
		*ret_times = ++s->times;
		return false;
	}
	*ret_times = s->times;
	s->times = 0;
	s->at_ms = now_ms;
	unlink_said(recent, recent->sorted[i]);
	link_newest(recent, recent->sorted[i]);
	return true;
}
