/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The HTTP/1 server for people and scrapers: GET and HEAD on the admin socket, :15020
 * /stats/prometheus and :15021 /healthz/ready. One request a connection. Bounded: 64 connections a
 * listener (when full, the oldest that waits for its client makes room), 8 KiB of request, 10 s for
 * each step. Everything here is for the thread of the loop and logs nothing.
 */
#include <jansson.h>
#include <stddef.h>

#include "base/addr.h"
#include "net/loop.h"

struct admin;
struct admin_request;

/* One path. Handlers answer now or later, exactly once, with admin_reply*(). What is not answered
 * within 10 s is answered with 503 to the client, and must be answered all the same. Handlers see
 * only GET and HEAD and need not tell them apart.
 */
struct admin_route {
	const char *path; /* "/pods" */
	void (*handle)(void *ctx, struct admin_request *request);
};

int admin_new(struct admin **ret, struct loop *loop);

/* Closes everything and removes the unix sockets. Requests not answered yet may still be answered,
 * into the void. Before loop_free(), which frees what is left. NULL is fine.
 */
void admin_free(struct admin *admin);

/* `routes` ends with a NULL path and must outlive the admin. -errno, not logged. Unix: mode 0600;
 * the folder is made when only it is missing; a stale socket is replaced; -EADDRINUSE when somebody
 * listens on it, -EEXIST when the path is something else. TCP: the wildcard takes IPv4 too.
 */
int admin_listen_unix(struct admin *admin, const char *path, const struct admin_route *routes,
		      void *ctx);
int admin_listen_tcp(struct admin *admin, const struct addr *addr, const struct admin_route *routes,
		     void *ctx);

/* A query parameter, percent-decoded; NULL when absent. Lives as long as the request. */
const char *admin_param(const struct admin_request *request, const char *name);

/* Takes `body` (malloc'ed) and the request. `content_type` is static text. The client may be gone
 * by then: that is dealt with.
 */
void admin_reply(struct admin_request *request, int status, const char *content_type, char *body,
		 size_t len);
void admin_reply_text(struct admin_request *request, int status, const char *text); /* copies */

/* Takes `value`; NULL (out of memory) becomes 500. */
void admin_reply_json(struct admin_request *request, int status, json_t *value);
