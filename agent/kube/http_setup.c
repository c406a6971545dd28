/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/http_setup.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"

#define CALL_MS    30000
#define CONNECT_MS 10000L

/* A server whose machine has lost its power says nothing, not even that: idle connections are
 * asked after 20 s, and what is unanswered for 30 s ends them.
 */
#define IDLE_S        20
#define PROBE_S       5
#define PROBES        3
#define UNANSWERED_MS 30000

static int set_socket(void *ctx, curl_socket_t fd, curlsocktype type)
{
	(void)ctx;
	(void)type;
	/* Each of them only makes a dead peer show sooner. */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &(int){IDLE_S}, sizeof(int));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &(int){PROBE_S}, sizeof(int));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &(int){PROBES}, sizeof(int));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &(unsigned){UNANSWERED_MS}, sizeof(unsigned));
	return CURL_SOCKOPT_OK;
}

static void set_pem(CURL *easy, const struct access_pem *pem, CURLoption file, CURLoption blob)
{
	struct curl_blob text = {(void *)pem->text, pem->len, CURL_BLOB_COPY};

	if (pem->text)
		curl_easy_setopt(easy, blob, &text);
	else if (pem->file)
		curl_easy_setopt(easy, file, pem->file);
}

static void set_tls(CURL *easy, const struct access *access)
{
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	/* The cluster's own authority alone: libcurl would trust the system's beside it. */
	if (access->ca.file || access->ca.text)
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	set_pem(easy, &access->ca, CURLOPT_CAINFO, CURLOPT_CAINFO_BLOB);
	set_pem(easy, &access->cert, CURLOPT_SSLCERT, CURLOPT_SSLCERT_BLOB);
	set_pem(easy, &access->key, CURLOPT_SSLKEY, CURLOPT_SSLKEY_BLOB);
	curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 60L); /* a rotated ca.crt is seen */
}

static int add_header(struct curl_slist **list, const char *name, const char *value)
{
	OWNED_MEM char *line = NULL;
	struct curl_slist *more;

	if (asprintf(&line, "%s: %s", name, value) < 0) {
		line = NULL;
		return -ENOMEM;
	}
	more = curl_slist_append(*list, line);
	if (!more)
		return -ENOMEM;
	*list = more;
	return 0;
}

static int set_headers(struct http_setup *setup, struct access *access,
		       const struct kube_call *call, uint64_t now_ms)
{
	const char *token = access_token(access, now_ms);
	OWNED_MEM char *bearer = NULL;
	int r = add_header(&setup->headers, "Accept", "application/json");

	if (token && asprintf(&bearer, "Bearer %s", token) < 0) {
		bearer = NULL;
		return -ENOMEM;
	}
	if (r == 0 && bearer)
		r = add_header(&setup->headers, "Authorization", bearer);
	if (r == 0 && call->body)
		r = add_header(&setup->headers, "Content-Type",
			       call->content_type ?: "application/json");
	curl_easy_setopt(setup->easy, CURLOPT_HTTPHEADER, setup->headers);
	/* None of these is for a proxy on the way. */
	curl_easy_setopt(setup->easy, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
	return r;
}

static int set_where(struct http_setup *setup, const struct access *access,
		     const struct kube_call *call)
{
	OWNED_MEM char *url = NULL;
	struct curl_slist *to;

	if (asprintf(&url, "%s%s", access->base, call->path) < 0) {
		url = NULL;
		return -ENOMEM;
	}
	curl_easy_setopt(setup->easy, CURLOPT_URL, url);
	curl_easy_setopt(setup->easy, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(setup->easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(setup->easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	if (access->proxy)
		curl_easy_setopt(setup->easy, CURLOPT_PROXY, access->proxy);
	if (!access->connect_to)
		return 0;
	to = curl_slist_append(NULL, access->connect_to);
	setup->connect_to = to;
	curl_easy_setopt(setup->easy, CURLOPT_CONNECT_TO, to);
	return to ? 0 : -ENOMEM;
}

static void set_how(CURL *easy, const struct kube_call *call, bool stream)
{
	long version = stream ? CURL_HTTP_VERSION_1_1 : CURL_HTTP_VERSION_2TLS;

	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
	if (call->body) /* copied with the length known before: set in this order */
		curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, call->body);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, version);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	if (!stream) {
		/* Rather share a connection that is being opened than open another one. */
		curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
		curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(call->timeout_ms ?: CALL_MS));
	}
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, set_socket);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "sluice-agent");
}

int http_setup(struct http_setup *ret, struct access *access, const struct kube_call *call,
	       bool stream, uint64_t now_ms)
{
	struct http_setup setup = {.easy = curl_easy_init()};
	int r = setup.easy ? 0 : -ENOMEM;

	r = r ?: set_where(&setup, access, call);
	r = r ?: set_headers(&setup, access, call, now_ms);
	if (r < 0) {
		curl_easy_cleanup(setup.easy);
		http_setup_done(&setup);
		return r;
	}
	set_tls(setup.easy, access);
	set_how(setup.easy, call, stream);
	*ret = setup;
	return 0;
}

void http_setup_done(struct http_setup *setup)
{
	curl_slist_free_all(TAKE_PTR(setup->headers));
	curl_slist_free_all(TAKE_PTR(setup->connect_to));
}

int http_errno(CURLcode code)
{
	switch ((int)code) {
	case CURLE_OK:
		return 0;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	case CURLE_COULDNT_CONNECT:
		return -ECONNREFUSED;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return -EHOSTUNREACH;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_PARTIAL_FILE:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_GOT_NOTHING:
		return -ECONNRESET;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
		return -EKEYREJECTED;
	default:
		return -EIO;
	}
}
