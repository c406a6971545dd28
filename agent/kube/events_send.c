/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/events_send.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/owned.h"
#include "kube/events.h"

#define IN_FLIGHT_MAX 4

/* What other threads use, too. Its message may arrive when the sender is gone. */
struct shared {
	atomic_uint refs; /* the sender's, and that of the message on its way */
	pthread_mutex_t lock;
	struct event_store store;    /* under the lock, */
	bool is_woken;               /* and so is this: the message is on its way */
	struct message wake;         /* there is something new in the store */
	struct event_sender *sender; /* of the loop's thread; NULL: gone */
};

struct flight {
	struct event_sender *sender;
	struct event_series *series; /* NULL: none */
	struct kube_request *request;
};

struct event_sender {
	struct kube_client *client;
	struct loop *loop;
	struct shared *shared;
	struct timer timer;
	struct flight flights[IN_FLIGHT_MAX];
	long told_status;   /* of the last refusal that was logged */
	char instance[129]; /* as long as reportingInstance may be */
};

static void unref_shared(struct shared *shared)
{
	if (atomic_fetch_sub(&shared->refs, 1) != 1)
		return;
	event_store_done(&shared->store);
	pthread_mutex_destroy(&shared->lock);
	free(shared);
}

static uint64_t clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- requests ---- */

static void pump(struct event_sender *sender);

static void tell_refusal(struct event_sender *sender, const struct kube_answer *answer)
{
	if (sender->told_status == answer->status)
		return;
	sender->told_status = answer->status;
	log_warn(0, "the API server does not take Events: %ld %s, ignoring", answer->status,
		 answer->text ?: "");
}

/* True: it was refused for good. */
static bool answered(struct flight *flight, int r, long status, unsigned retry_after)
{
	struct shared *shared = flight->sender->shared;
	bool refused;

	pthread_mutex_lock(&shared->lock);
	refused = event_store_answered(&shared->store, flight->series, r, status, retry_after,
				       clock_ms());
	pthread_mutex_unlock(&shared->lock);
	flight->series = NULL;
	flight->request = NULL;
	return refused;
}

static void on_done(void *ctx, const struct kube_answer *answer)
{
	struct flight *flight = ctx;

	if (answered(flight, answer->r, answer->status, answer->retry_after))
		tell_refusal(flight->sender, answer);
	pump(flight->sender);
}

struct request_text {
	char *path, *body;
	bool patch;
};

static void request_text_done(struct request_text *text)
{
	free(text->path);
	free(text->body);
}

/* Under the lock: others count the series on. */
static int write_request(const struct event_sender *sender, const struct event_series *s,
			 struct request_text *ret)
{
	json_t *json = event_json(s, sender->instance);

	ret->patch = s->posted;
	ret->body = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	if (!ret->body)
		return -ENOMEM;
	if (asprintf(&ret->path, "/api/v1/namespaces/%s/events%s%s", s->text->ns,
		     s->posted ? "/" : "", s->posted ? s->name : "") < 0) {
		ret->path = NULL; /* undefined after a failure */
		return -ENOMEM;
	}
	return 0;
}

/* 1: there is none to be sent, and *ret_wait_ms says for how long. */
static int take_next(struct flight *flight, struct request_text *ret, uint64_t *ret_wait_ms)
{
	struct shared *shared = flight->sender->shared;
	int r = 1;

	pthread_mutex_lock(&shared->lock);
	flight->series = event_store_next(&shared->store, clock_ms(), ret_wait_ms);
	if (flight->series)
		r = write_request(flight->sender, flight->series, ret);
	pthread_mutex_unlock(&shared->lock);
	return r;
}

static int start_next(struct flight *flight, uint64_t *ret_wait_ms)
{
	OWNED(request_text_done) struct request_text text = {0};
	struct kube_call call = {.method = "POST"};
	int r = take_next(flight, &text, ret_wait_ms);

	if (r > 0)
		return r;
	if (text.patch) {
		call.method = "PATCH";
		call.content_type = "application/merge-patch+json";
	}
	call.path = text.path;
	call.body = text.body;
	if (r == 0)
		r = kube_call(flight->sender->client, &call, on_done, flight, &flight->request);
	if (r < 0)
		answered(flight, r, 0, 0);
	return r;
}

static struct flight *free_flight(struct event_sender *sender)
{
	for (size_t i = 0; i < IN_FLIGHT_MAX; i++) {
		if (!sender->flights[i].series)
			return &sender->flights[i];
	}
	return NULL;
}

/* Sends as much as may be sent now. */
static void pump(struct event_sender *sender)
{
	uint64_t wait = 0;
	struct flight *flight;

	timer_stop(sender->loop, &sender->timer);
	while ((flight = free_flight(sender))) {
		if (start_next(flight, &wait) > 0)
			break;
	}
	/* Without a free one the next answer goes on. */
	if (flight && wait < UINT64_MAX)
		timer_start(sender->loop, &sender->timer, wait);
}

static void on_timer(struct timer *t)
{
	pump(CONTAINER_OF(t, struct event_sender, timer));
}

/* ---- from other threads ---- */

static void on_wake(struct message *m)
{
	struct shared *shared = CONTAINER_OF(m, struct shared, wake);

	pthread_mutex_lock(&shared->lock);
	shared->is_woken = false;
	pthread_mutex_unlock(&shared->lock);
	if (shared->sender)
		pump(shared->sender);
	unref_shared(shared);
}

/* They are put into their series at once: whoever floods fills no queue, only his own budget. */
void event_sender_post(struct event_sender *sender, const struct kube_event *event)
{
	struct event_text *text = event_text_new(event);
	struct shared *shared = sender->shared;
	bool wake;

	pthread_mutex_lock(&shared->lock);
	if (text)
		event_store_add(&shared->store, text, clock_ms(), (int64_t)time(NULL));
	else
		shared->store.dropped++;
	wake = !shared->is_woken;
	shared->is_woken = true;
	pthread_mutex_unlock(&shared->lock);
	if (!wake)
		return;
	atomic_fetch_add(&shared->refs, 1);
	loop_post(sender->loop, &shared->wake);
}

/* ---- its life ---- */

static int new_shared(struct shared **ret, struct event_sender *sender)
{
	struct shared *shared = calloc(1, sizeof(*shared));
	int r = shared ? event_store_init(&shared->store) : -ENOMEM;

	if (r < 0) {
		free(shared);
		return r;
	}
	atomic_init(&shared->refs, 1);
	pthread_mutex_init(&shared->lock, NULL);
	shared->wake.run = on_wake;
	shared->sender = sender;
	*ret = shared;
	return 0;
}

int event_sender_new(struct event_sender **ret, struct kube_client *client, struct loop *loop,
		     const char *instance)
{
	OWNED_MEM struct event_sender *sender = calloc(1, sizeof(*sender));
	int r = sender ? new_shared(&sender->shared, sender) : -ENOMEM;

	if (r < 0)
		return r;
	sender->client = client;
	sender->loop = loop;
	sender->timer.on_expire = on_timer;
	event_text_clean(sender->instance, sizeof(sender->instance), instance ?: "");
	for (size_t i = 0; i < IN_FLIGHT_MAX; i++)
		sender->flights[i].sender = sender;
	*ret = TAKE_PTR(sender);
	return 0;
}

void event_sender_free(struct event_sender *sender)
{
	if (!sender)
		return;
	for (size_t i = 0; i < IN_FLIGHT_MAX; i++) {
		if (sender->flights[i].series)
			kube_cancel(sender->flights[i].request);
	}
	timer_stop(sender->loop, &sender->timer);
	sender->shared->sender = NULL;
	unref_shared(sender->shared);
	free(sender);
}

void event_sender_status(const struct event_sender *sender, uint64_t *ret_sent,
			 uint64_t *ret_dropped)
{
	struct shared *shared = sender->shared;

	pthread_mutex_lock(&shared->lock);
	*ret_sent = shared->store.sent;
	*ret_dropped = shared->store.dropped;
	pthread_mutex_unlock(&shared->lock);
}
