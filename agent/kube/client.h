/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A Kubernetes API server and how to speak to it: in a cluster by the service account's files, or
 * by a kubeconfig. Requests run side by side on one loop by libcurl: calls share an HTTP/2
 * connection where it is offered, each stream has a connection of its own. SIGPIPE has to be
 * ignored. Every function is for the loop's thread.
 */
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "net/loop.h"

struct kube_client;

#define KUBE_ANSWER_MAX ((size_t)64 * 1024 * 1024) /* bytes of one answer that is kept whole */
#define KUBE_LINE_MAX   ((size_t)16 * 1024 * 1024) /* of what is unread of a stream */

struct kube_config {
	const char *kubeconfig; /* path; NULL: in the cluster (KUBERNETES_SERVICE_HOST and _PORT) */
	const char *token_file; /* NULL: the service account's, as mounted into pods */
	const char *ca_file;    /* NULL: the same */
};

/* Reads what the configuration names. Logs. -EINVAL with what is wrong and what to do in the log,
 * -errno.
 */
int kube_client_new(struct kube_client **ret, struct loop *loop, const struct kube_config *config);

/* Ends all requests without calling back. NULL is fine. Not inside a callback of a request. */
void kube_client_free(struct kube_client *client);

/* "https://host:port" */
const char *kube_client_server(const struct kube_client *client);

struct kube_call {
	const char *method;       /* "GET", "POST", "PATCH", "DELETE" */
	const char *path;         /* with the query: "/api/v1/pods?limit=500" */
	const char *body;         /* JSON text, copied; NULL: none */
	const char *content_type; /* NULL: application/json */
	unsigned timeout_ms;      /* 0: 30 s; of a stream: without a byte (none: it never ends) */
	size_t max; /* bytes of an answer (no stream); beyond: -EMSGSIZE; 0: KUBE_ANSWER_MAX */
};

struct kube_answer {
	int r;                /* 0: there is an HTTP status; else -errno, and `text` says why */
	long status;          /* of HTTP */
	json_t *json;         /* body, borrowed; NULL when it is none, or was read as lines */
	const char *text;     /* for people: curl's error, or the message of a Status object */
	unsigned retry_after; /* seconds, 0: not given */
};

typedef void kube_done_fn(void *ctx, const struct kube_answer *answer);

struct kube_request;

/* Starts a request; `done` is called once, later, unless it was cancelled. *ret is valid until then
 * (NULL: not wanted). A 401 has the token read again and is tried once more with a new one, before
 * anybody hears of it. -errno.
 */
int kube_call(struct kube_client *client, const struct kube_call *call, kube_done_fn *done,
	      void *ctx, struct kube_request **ret);

/* The same for an answer that does not end: `on_line` gets NULL when it has begun (status 200),
 * then each line as JSON (borrowed); -errno from it ends the request, which then is `done` with
 * that.
 */
int kube_stream(struct kube_client *client, const struct kube_call *call,
		int (*on_line)(void *ctx, json_t *line), kube_done_fn *done, void *ctx,
		struct kube_request **ret);

/* Nobody is called back any more. Fine inside its callbacks. NULL is fine. */
void kube_cancel(struct kube_request *request);
