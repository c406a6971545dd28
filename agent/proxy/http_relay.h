/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* HTTP/1 between a client and its upstream: watches message after message go by, unchanged. Checks
 * the Host of every request against the one that was allowed, keeps requests and responses in step,
 * logs one line per request.
 */
#include "proxy/conn.h"

/* For a connection whose first request has been allowed; nothing of it is cleared yet. -ENOMEM. */
int http_relay_new(struct http_relay **ret, struct conn *c);

struct judge *http_relay_requests(struct http_relay *h);
struct judge *http_relay_responses(struct http_relay *h);

/* After the pumps had their turn: finishes responses that end with the stream, refuses what had to
 * wait for the responses before it. True when it ended the relay (conn_refuse() or conn_abort() was
 * called).
 */
bool http_relay_after(struct http_relay *h);

/* The upstream or the way to it failed with nothing of an answer delivered to the request in hand:
 * the client can still be told. False when it is too late for that.
 */
bool http_relay_can_answer(const struct http_relay *h);

/* Logs the requests that are still open, as the connection ends. False when there was none. */
bool http_relay_end(struct http_relay *h, enum reason reason, const char *detail);
void http_relay_free(struct http_relay *h); /* NULL is fine */
