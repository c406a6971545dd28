/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Which Events are to be sent when: equal ones become a series, whose count rises; each object has
 * a budget, and so has the agent. What a pod does must not become work for the API server. Pure:
 * the caller has the clocks.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kube/kube.h"
#include "registry/siphash.h"

#define EVENT_MESSAGE_MAX 1024 /* bytes: what events.k8s.io takes as a note */
#define EVENT_NAME_MAX    254  /* with the NUL */

#define EVENT_SERIES_MAX 512 /* known at a time */
#define EVENT_TRIES_MAX  5

/* Objects whose budgets are known: by hash in one of so many sets of so many each. */
#define EVENT_OBJECT_SETS 256
#define EVENT_OBJECT_WAYS 4

/* As the spam filter of client-go has it. */
#define EVENT_OBJECT_BURST     25
#define EVENT_OBJECT_REFILL_MS (5 * 60 * 1000)

#define EVENT_AGENT_BURST     50
#define EVENT_AGENT_REFILL_MS 200

/* Between two updates of one series, doubled each time: each costs its object a piece of budget,
 * which something new may need more.
 */
#define EVENT_GAP_MS     10000
#define EVENT_GAP_MAX_MS EVENT_OBJECT_REFILL_MS

/* Between tries while the server cannot be reached, doubled each time. */
#define EVENT_PAUSE_MS     2000
#define EVENT_PAUSE_MAX_MS 60000

/* Everything copied, cut and made valid UTF-8; one piece of memory. */
struct event_text {
	const char *kind, *api_version, *ns, *name, *uid, *type, *reason, *message, *action;
	char text[];
};

/* NULL: no memory, or its object has no name that could be one. Any thread. */
struct event_text *event_text_new(const struct kube_event *event);

/* Copies at most size - 1 bytes of `text`, whole characters only: what is no UTF-8 becomes U+FFFD,
 * and control characters blanks.
 */
void event_text_clean(char *ret, size_t size, const char *text);

/* Tokens: the time at which the bucket is full again. 0 is a full one. */
struct event_bucket {
	uint64_t full_at_ms;
};

struct event_rate {
	unsigned burst, refill_ms;
};

bool event_bucket_take(struct event_bucket *bucket, struct event_rate rate, uint64_t now_ms);
/* How long until event_bucket_take() would succeed; 0: now. */
uint64_t event_bucket_wait(const struct event_bucket *bucket, struct event_rate rate,
			   uint64_t now_ms);

/* Equal events. */
struct event_series {
	struct event_text *text;
	uint64_t id, object; /* hashes of what is equal, and of the object */
	char name[EVENT_NAME_MAX];
	uint32_t count, sent_count; /* how often it happened; what the server knows */
	uint32_t sending;           /* the count that is on its way; 0: none is */
	int64_t first, last;        /* seconds since 1970 */
	uint64_t due_ms;            /* not before; of the loop's clock */
	uint32_t gap_ms;
	uint8_t tries;
	bool posted;   /* the server has the object */
	uint64_t used; /* when it was added to last, for making room */
};

struct event_object {
	uint64_t id, used;
	struct event_bucket bucket;
};

struct event_store {
	struct siphash_key secret;
	struct event_series *series[EVENT_SERIES_MAX]; /* oldest first */
	size_t n;
	struct event_object objects[EVENT_OBJECT_SETS][EVENT_OBJECT_WAYS];
	struct event_bucket agent;
	uint64_t uses;
	uint64_t paused_until_ms;
	unsigned pause_ms;
	uint64_t sent, dropped;
};

int event_store_init(struct event_store *store); /* -EIO without random numbers */
void event_store_done(struct event_store *store);

/* Something happened. Takes `text`. What is over the budget is counted and forgotten. */
void event_store_add(struct event_store *store, struct event_text *text, uint64_t now_ms,
		     int64_t wall);

/* The next that is to be sent, now: event_store_answered() must follow. NULL: none, and
 * *ret_wait_ms says for how long (UINT64_MAX: until something is added).
 */
struct event_series *event_store_next(struct event_store *store, uint64_t now_ms,
				      uint64_t *ret_wait_ms);

/* What became of it: `r` and `status` as in struct kube_answer. The series may be gone then. True:
 * it was refused for good, which somebody should be told.
 */
bool event_store_answered(struct event_store *store, struct event_series *series, int r,
			  long status, unsigned retry_after, uint64_t now_ms);

/* The object to create, or the merge patch for one that is there. NULL: no memory. */
json_t *event_json(const struct event_series *series, const char *instance);
