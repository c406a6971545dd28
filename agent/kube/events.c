/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/events.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const struct event_rate object_rate = {EVENT_OBJECT_BURST, EVENT_OBJECT_REFILL_MS};
static const struct event_rate agent_rate = {EVENT_AGENT_BURST, EVENT_AGENT_REFILL_MS};

/* ---- budgets ---- */

uint64_t event_bucket_wait(const struct event_bucket *bucket, struct event_rate rate,
			   uint64_t now_ms)
{
	uint64_t full = bucket->full_at_ms > now_ms ? bucket->full_at_ms : now_ms;
	uint64_t latest = now_ms + (uint64_t)rate.burst * rate.refill_ms;

	full += rate.refill_ms;
	return full > latest ? full - latest : 0;
}

bool event_bucket_take(struct event_bucket *bucket, struct event_rate rate, uint64_t now_ms)
{
	if (event_bucket_wait(bucket, rate, now_ms) > 0)
		return false;
	if (bucket->full_at_ms < now_ms)
		bucket->full_at_ms = now_ms;
	bucket->full_at_ms += rate.refill_ms;
	return true;
}

/* ---- the store ---- */

int event_store_init(struct event_store *store)
{
	*store = (struct event_store){.pause_ms = EVENT_PAUSE_MS};
	if (getrandom(&store->secret, sizeof(store->secret), 0) != sizeof(store->secret))
		return -EIO;
	return 0;
}

static void free_series(struct event_series *s)
{
	free(s->text);
	free(s);
}

void event_store_done(struct event_store *store)
{
	for (size_t i = 0; i < store->n; i++)
		free_series(store->series[i]);
	store->n = 0;
}

static uint64_t hash_texts(const struct siphash_key *key, const char *const *texts, size_t n)
{
	uint64_t hash = 0;

	for (size_t i = 0; i < n; i++) {
		struct siphash_key chained = {{key->k[0] ^ hash, key->k[1]}};

		hash = siphash13(&chained, span_of(texts[i]));
	}
	return hash;
}

static uint64_t object_of(const struct siphash_key *key, const struct event_text *t)
{
	const char *texts[] = {t->kind, t->api_version, t->ns, t->name, t->uid};

	return hash_texts(key, texts, sizeof(texts) / sizeof(texts[0]));
}

static uint64_t series_of(const struct siphash_key *key, const struct event_text *t)
{
	const char *texts[] = {t->kind, t->api_version, t->ns,      t->name,  t->uid,
			       t->type, t->reason,      t->message, t->action};

	return hash_texts(key, texts, sizeof(texts) / sizeof(texts[0]));
}

static void forget(struct event_store *store, const struct event_series *s)
{
	size_t i = 0;

	while (store->series[i] != s)
		i++;
	free_series(store->series[i]);
	store->n--;
	memmove(&store->series[i], &store->series[i + 1],
		(store->n - i) * sizeof(struct event_series *));
}

static bool is_settled(const struct event_series *s)
{
	return s->sending == 0 && s->sent_count == s->count;
}

/* Whatever is told and has been quiet the longest makes room. */
static bool make_room(struct event_store *store)
{
	struct event_series *quiet = NULL;

	if (store->n < EVENT_SERIES_MAX)
		return true;
	for (size_t i = 0; i < store->n; i++) {
		struct event_series *s = store->series[i];

		if (is_settled(s) && (!quiet || s->used < quiet->used))
			quiet = s;
	}
	if (quiet)
		forget(store, quiet);
	return quiet != NULL;
}

/* A set that is full forgets the object that has been quiet the longest. */
static struct event_object *find_object(struct event_store *store, uint64_t id)
{
	struct event_object *set = store->objects[id % EVENT_OBJECT_SETS], *oldest = set;

	for (size_t i = 0; i < EVENT_OBJECT_WAYS; i++) {
		if (set[i].id == id && set[i].used > 0)
			return &set[i];
		if (set[i].used < oldest->used)
			oldest = &set[i];
	}
	*oldest = (struct event_object){.id = id};
	return oldest;
}

static struct event_bucket *bucket_of(struct event_store *store, uint64_t object)
{
	struct event_object *o = find_object(store, object);

	o->used = ++store->uses;
	return &o->bucket;
}

/* "<object>.<16 hex digits>", as kubectl's own are named. All agents see the same ServiceEntries
 * and find the same wrong with them: that is one Event, so its name must not be one agent's own.
 */
static void name_series(const struct event_store *store, struct event_series *s)
{
	static const struct siphash_key shared = {{0x736c75696365, 0x6576656e74}};
	bool alone = strcmp(s->text->kind, "Pod") == 0;
	uint64_t hash = series_of(alone ? &store->secret : &shared, s->text);

	size_t len = strnlen(s->text->name, EVENT_NAME_MAX - 18);

	while (s->text->name[len - 1] == '.' || s->text->name[len - 1] == '-')
		len--; /* cut where no name may end; it starts with a letter or digit */
	snprintf(s->name, sizeof(s->name), "%.*s.%016" PRIx64, (int)len, s->text->name, hash);
}

static struct event_series *find_series(const struct event_store *store, uint64_t id)
{
	for (size_t i = 0; i < store->n; i++) {
		if (store->series[i]->id == id)
			return store->series[i];
	}
	return NULL;
}

static struct event_series *new_series(struct event_store *store, uint64_t id,
				       struct event_text *text, uint64_t now_ms)
{
	uint64_t object = object_of(&store->secret, text);
	struct event_series *s;

	if (!event_bucket_take(bucket_of(store, object), object_rate, now_ms) || !make_room(store))
		return NULL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->text = text;
	s->id = id;
	s->object = object;
	s->gap_ms = EVENT_GAP_MS;
	name_series(store, s);
	store->series[store->n++] = s;
	return s;
}

void event_store_add(struct event_store *store, struct event_text *text, uint64_t now_ms,
		     int64_t wall)
{
	uint64_t id = series_of(&store->secret, text);
	struct event_series *s = find_series(store, id);

	if (s) {
		free(text);
	} else {
		s = new_series(store, id, text, now_ms);
		if (!s) {
			free(text);
			store->dropped++;
			return;
		}
		s->first = wall;
	}
	s->count += s->count < UINT32_MAX ? 1 : 0;
	s->last = wall;
	s->used = ++store->uses;
}

/* ---- sending ---- */

/* How long until it may be sent, as far as it alone is concerned; UINT64_MAX: nothing to send. */
static uint64_t series_wait(struct event_store *store, const struct event_series *s,
			    uint64_t now_ms)
{
	uint64_t wait = s->due_ms > now_ms ? s->due_ms - now_ms : 0, budget;

	if (s->sending > 0 || s->sent_count == s->count)
		return UINT64_MAX;
	if (!s->posted || s->tries > 0)
		return wait; /* paid for already */
	budget = event_bucket_wait(bucket_of(store, s->object), object_rate, now_ms);
	return budget > wait ? budget : wait;
}

static uint64_t agent_wait(const struct event_store *store, uint64_t now_ms)
{
	uint64_t wait = event_bucket_wait(&store->agent, agent_rate, now_ms);
	uint64_t pause = store->paused_until_ms > now_ms ? store->paused_until_ms - now_ms : 0;

	return pause > wait ? pause : wait;
}

struct event_series *event_store_next(struct event_store *store, uint64_t now_ms,
				      uint64_t *ret_wait_ms)
{
	uint64_t least = UINT64_MAX, agent = agent_wait(store, now_ms);

	for (size_t i = 0; i < store->n; i++) {
		struct event_series *s = store->series[i];
		uint64_t wait = series_wait(store, s, now_ms);

		if (wait == 0 && agent == 0) {
			event_bucket_take(&store->agent, agent_rate, now_ms);
			if (s->posted && s->tries == 0)
				event_bucket_take(bucket_of(store, s->object), object_rate, now_ms);
			s->sending = s->count;
			return s;
		}
		if (wait < least)
			least = wait;
	}
	*ret_wait_ms = least == UINT64_MAX || least > agent ? least : agent;
	return NULL;
}

static void settle(struct event_store *store, struct event_series *s, uint64_t now_ms)
{
	s->posted = true;
	s->sent_count = s->sending;
	s->sending = 0;
	s->tries = 0;
	s->due_ms = now_ms + s->gap_ms;
	s->gap_ms = s->gap_ms * 2 < EVENT_GAP_MAX_MS ? s->gap_ms * 2 : EVENT_GAP_MAX_MS;
	store->pause_ms = EVENT_PAUSE_MS;
}

/* Everybody waits: what one request met, the next would meet, too. */
static void try_again(struct event_store *store, struct event_series *s, unsigned retry_after,
		      uint64_t now_ms)
{
	uint64_t pause = retry_after > 0 ? (uint64_t)retry_after * 1000 : store->pause_ms;

	store->paused_until_ms = now_ms + (pause < EVENT_PAUSE_MAX_MS ? pause : EVENT_PAUSE_MAX_MS);
	if (store->pause_ms < EVENT_PAUSE_MAX_MS)
		store->pause_ms *= 2;
	s->sending = 0;
	if (++s->tries < EVENT_TRIES_MAX)
		return;
	store->dropped++;
	forget(store, s);
}

bool event_store_answered(struct event_store *store, struct event_series *s, int r, long status,
			  unsigned retry_after, uint64_t now_ms)
{
	if (r < 0 || status == 429 || status >= 500) {
		try_again(store, s, retry_after, now_ms);
		return false;
	}
	if (status >= 200 && status < 300) {
		store->sent++;
		settle(store, s, now_ms);
		return false;
	}
	if (status == 409 && !s->posted) {
		settle(store, s, now_ms); /* another agent has said it */
		return false;
	}
	if (status == 404 && s->posted) {
		s->posted = false; /* the server keeps Events for an hour */
		s->sending = 0;
		s->tries = 0;
		return false;
	}
	store->dropped++;
	forget(store, s);
	return status != 404; /* its namespace is gone */
}
