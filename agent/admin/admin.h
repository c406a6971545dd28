/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The HTTP/1 server for people and scrapers: GET (and POST where said) on the admin socket, :15020
 * /stats/prometheus and :15021 /healthz/ready. On the control loop. Bounded: 64 connections, 8 KiB
 * of request, 10 s.
 */
#include <jansson.h>
#include <stddef.h>

#include "base/addr.h"
#include "net/loop.h"

struct admin;
struct admin_request;

/* One path. Handlers answer now or later, exactly once, with admin_reply*(). */
struct admin_route {
	const char *path; /* "/pods" */
	void (*handle)(void *ctx, struct admin_request *request);
};

int admin_new(struct admin **ret, struct loop *loop);
void admin_free(struct admin *admin);

/* `routes` ends with a NULL path and must outlive the admin. -errno, not logged. */
int admin_listen_unix(struct admin *admin, const char *path, const struct admin_route *routes,
		      void *ctx);
int admin_listen_tcp(struct admin *admin, const struct addr *addr, const struct admin_route *routes,
		     void *ctx);

/* A query parameter, percent-decoded; NULL when absent. Lives as long as the request. */
const char *admin_param(const struct admin_request *request, const char *name);

/* Takes `body` (malloc'ed). The client may be gone by then: that is dealt with. */
void admin_reply(struct admin_request *request, int status, const char *content_type, char *body,
		 size_t len);
void admin_reply_text(struct admin_request *request, int status, const char *text); /* copies */
void admin_reply_json(struct admin_request *request, int status, json_t *value);    /* takes */
