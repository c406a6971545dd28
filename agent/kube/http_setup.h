/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One request to the API server, as libcurl wants it told. */
#include <curl/curl.h>
#include <stdbool.h>

#include "kube/access.h"
#include "kube/client.h"

struct http_setup {
	CURL *easy;                              /* the callbacks are the caller's to set */
	struct curl_slist *headers, *connect_to; /* for http_setup_done(), after `easy` */
};

/* With the token of now. A stream has no limit of time but that of connecting, and HTTP/1.1, which
 * gives it a connection of its own: one that nobody reads from cannot hold up others. -ENOMEM.
 */
int http_setup(struct http_setup *ret, struct access *access, const struct kube_call *call,
	       bool stream, uint64_t now_ms);

/* Frees all but `easy`. */
void http_setup_done(struct http_setup *setup);

/* libcurl's verdict as -errno; 0 for CURLE_OK. */
int http_errno(CURLcode code);
