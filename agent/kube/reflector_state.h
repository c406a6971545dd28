/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What reflector.c (which version, lists, what comes next) and reflector_watch.c (streams) share.
 *
 *	FIND -> LIST -> CHUNK, CHUNK, ... -> WATCH, WATCH, ...
 *	          \-> streaming list that becomes a watch
 *
 * One request at a time. Whatever fails says which step is next and when.
 */
#include "kube/reflector.h"
#include "kube/reflector_backoff.h"
#include "kube/reflector_known.h"
#include "kube/reflector_served.h"
#include "kube/reflector_trouble.h"
#include "resource/arena.h"

enum reflector_step {
	STEP_FIND,
	STEP_LIST,
	STEP_CHUNK,
	STEP_WATCH,
	STEP_N_,
};

struct reflector {
	struct kube_client *client;
	struct loop *loop;
	struct reflector_config config; /* its texts are in `mem`, its times filled in */
	struct reflector_hooks hooks;
	struct arena mem;

	struct timer timer; /* for `next` */
	enum reflector_step next;
	struct kube_request *request;
	struct backoff backoff; /* of requests that failed */
	struct backoff anew;    /* of beginning from the start */
	struct trouble trouble;

	struct served served;
	const char *version; /* of the API; NULL: not served, or not known */
	unsigned missing;    /* how often the server has said so in a row */

	struct known known;
	char *rv;       /* from where to watch; NULL: nothing is known yet */
	char *token;    /* where the next chunk begins; NULL: at the beginning */
	unsigned limit; /* of objects in a chunk */

	bool streaming;      /* is worth trying */
	bool initial;        /* the stream in hand still tells what there is */
	struct timer quiet;  /* while it does */
	uint64_t opened_ms;  /* of the stream in hand; 0: not yet */
	struct {             /* what was wrong in it; status 0, text "": nothing */
		long status; /* of an ERROR event */
		unsigned retry_after;
		char text[200];
	} error;

	struct reflector_status status;
};

/* Does `step` after `delay_ms`. */
void reflector_later(struct reflector *r, enum reflector_step step, uint64_t delay_ms);

/* Does `step`, or what the answer calls for instead, when it is time to try again. Logs. */
void reflector_failed(struct reflector *r, enum reflector_step step,
		      const struct kube_answer *answer);

void reflector_news(struct reflector *r, enum reflector_news news);

/* A watch works: what fails next is the first to fail. */
void reflector_healthy(struct reflector *r);

/* A list has come to its end. */
void reflector_synced(struct reflector *r);

/* Takes what `rv` is now. -ENOMEM. */
int reflector_set_rv(struct reflector *r, const char *rv);

uint32_t reflector_random(void);

/* Starts a watch: from r->rv, or one that lists first. -errno. */
int reflector_watch(struct reflector *r);
int reflector_watch_list(struct reflector *r);
