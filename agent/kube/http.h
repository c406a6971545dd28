/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* libcurl's transfers on a loop. Nobody is called from inside libcurl: what its callbacks have
 * noticed is dealt with when it has returned, so that a transfer may be stopped, and another one
 * started, at any time. One thread.
 */
#include <curl/curl.h>
#include <stdbool.h>

#include "net/loop.h"

struct http;

/* Embed one per transfer. */
struct http_transfer {
	CURL *easy; /* owned from http_start() to http_stop() */
	/* It has been woken, or has ended. */
	void (*on_ready)(struct http_transfer *t);
	bool ended;
	CURLcode code; /* of one that has ended */
	bool started, is_ready;
	struct http_transfer *next_ready;
};

/* -ENOMEM, -EIO. */
int http_new(struct http **ret, struct loop *loop);

/* All transfers have been stopped before. Not from on_ready. NULL is fine. */
void http_free(struct http *http);

/* Takes over t->easy, also when it fails. -EIO. */
int http_start(struct http *http, struct http_transfer *t);

/* Has on_ready called soon; the only one of these that libcurl's callbacks may call. */
void http_wake(struct http *http, struct http_transfer *t);

/* Ends it, if it has not ended; on_ready is not called any more. Twice is fine. */
void http_stop(struct http *http, struct http_transfer *t);
