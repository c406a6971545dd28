/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/client.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/owned.h"
#include "kube/access.h"
#include "kube/http.h"
#include "kube/http_json.h"
#include "kube/http_setup.h"
#include "kube/http_text.h"

#define TEXT_MAX 400   /* of what is told to people */
#define FIRST_MS 30000 /* for the headers of a stream */

struct kube_client {
	struct loop *loop;
	struct access *access;
	/* Each has connections of its own: libcurl would share none at all for calls once it has
	 * seen HTTP/1.1 from the same server.
	 */
	struct http *calls, *streams;
	struct kube_request *requests;
};

struct kube_request {
	struct http_transfer transfer;
	struct http_setup setup;
	struct kube_client *client;
	struct http *http; /* the client's, of one kind or the other */
	struct kube_request *next, **link;
	struct kube_call call;                   /* its texts are ours */
	int (*on_line)(void *ctx, json_t *line); /* NULL: no stream */
	kube_done_fn *done;
	void *ctx;
	struct http_text text;
	struct timer quiet;          /* of a stream */
	struct later gone;           /* frees it */
	long status;                 /* 0: no headers yet */
	int r;                       /* why we ended it, -errno */
	bool opened;                 /* a stream, and its user knows */
	bool renewed;                /* tried again after a 401 */
	bool over;                   /* nobody is called any more */
	char why[100];               /* the same in words; "" when errno says it */
	char error[CURL_ERROR_SIZE]; /* libcurl's */
};

static bool is_stream(const struct kube_request *req)
{
	return req->on_line && req->status == 200;
}

/* ---- a request's life ---- */

static void free_request(struct later *later)
{
	struct kube_request *req = CONTAINER_OF(later, struct kube_request, gone);

	http_text_done(&req->text);
	free((char *)req->call.method);
	free((char *)req->call.path);
	free((char *)req->call.body);
	free((char *)req->call.content_type);
	free(req);
}

static void stop_transfer(struct kube_request *req)
{
	timer_stop(req->client->loop, &req->quiet);
	http_stop(req->http, &req->transfer);
	http_setup_done(&req->setup);
}

void kube_cancel(struct kube_request *req)
{
	if (!req || req->over)
		return;
	req->over = true;
	stop_transfer(req);
	*req->link = req->next;
	if (req->next)
		req->next->link = req->link;
	req->gone.run = free_request;
	loop_later(req->client->loop,
		   &req->gone); /* we may have been called from one of its hooks */
}

static void finish(struct kube_request *req, const struct kube_answer *answer)
{
	kube_done_fn *done = req->done;
	void *ctx = req->ctx;

	kube_cancel(req);
	done(ctx, answer);
}

/* ---- what libcurl has to say ---- */

static size_t on_header(char *line, size_t size, size_t n, void *ctx)
{
	struct kube_request *req = ctx;
	long status = 0;

	if (n > 2 || size * n == 0)
		return size * n;
	/* The empty line behind the headers; 1xx are followed by others. */
	curl_easy_getinfo(req->transfer.easy, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200 || (line[0] != '\r' && line[0] != '\n'))
		return size * n;
	req->status = status;
	if (is_stream(req)) {
		timer_start(req->client->loop, &req->quiet, req->call.timeout_ms);
		if (req->call.timeout_ms == 0)
			timer_stop(req->client->loop, &req->quiet);
		http_wake(req->http, &req->transfer);
	}
	return size * n;
}

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
	struct kube_request *req = ctx;
	size_t max = is_stream(req) ? KUBE_LINE_MAX : req->call.max ?: KUBE_ANSWER_MAX;

	req->r = http_text_add(&req->text, p, size * n, max);
	if (req->r < 0) {
		if (req->r == -EMSGSIZE)
			snprintf(req->why, sizeof(req->why), "it is larger than %zu MiB",
				 max >> 20);
		return CURL_WRITEFUNC_ERROR;
	}
	if (is_stream(req)) {
		if (req->call.timeout_ms > 0)
			timer_start(req->client->loop, &req->quiet, req->call.timeout_ms);
		http_wake(req->http, &req->transfer);
	}
	return size * n;
}

/* ---- answers ---- */

/* The message of a Status object, else the beginning of the body, for a log. */
static const char *say(const struct kube_request *req, const json_t *json,
		       char buf[static TEXT_MAX])
{
	const char *message = json_string_value(json_object_get(json, "message"));
	size_t n = 0;

	if (!message)
		message = !json && req->text.p ? req->text.p : "";
	for (; *message && n < TEXT_MAX - 1; message++)
		buf[n++] = iscntrl((unsigned char)*message) ? ' ' : *message;
	buf[n] = '\0';
	if (n == 0)
		snprintf(buf, TEXT_MAX, "HTTP status %ld", req->status);
	return buf;
}

static unsigned retry_after(const struct kube_request *req)
{
	curl_off_t seconds = 0;

	curl_easy_getinfo(req->transfer.easy, CURLINFO_RETRY_AFTER, &seconds);
	return seconds > 0 ? (unsigned)(seconds < 86400 ? seconds : 86400) : 0;
}

static void tell_failed(struct kube_request *req, int r, const char *text)
{
	struct kube_answer answer = {.r = r, .status = req->status, .text = text};

	finish(req, &answer);
}

/* By us, or by its user. */
static void end_by(struct kube_request *req, int r)
{
	tell_failed(req, r, req->why[0] ? req->why : strerror(-r));
}

static void tell_answer(struct kube_request *req)
{
	struct kube_answer answer = {.status = req->status, .retry_after = retry_after(req)};
	json_error_t error;
	char text[TEXT_MAX];
	size_t len;
	char *body = http_text_rest(&req->text, &len);

	if (len > 0 && !is_stream(req))
		answer.json = http_json_read(body, len, &error);
	if (is_stream(req) && len > 0) {
		tell_failed(req, -ECONNRESET, "the stream ends in the middle of a line");
		return;
	}
	if (req->status < 300 && len > 0 && !answer.json) {
		snprintf(text, sizeof(text), "the answer is no JSON: %s", error.text);
		tell_failed(req, -EBADMSG, text);
		return;
	}
	answer.text = say(req, answer.json, text);
	finish(req, &answer);
	json_decref(answer.json);
}

/* ---- going on ---- */

static int begin(struct kube_request *req);

/* A token that was rotated meanwhile is behind most 401s. */
static bool try_again(struct kube_request *req)
{
	struct kube_client *client = req->client;
	int r;

	if (req->status != 401 || req->renewed ||
	    !access_renew(client->access, loop_now_ms(client->loop)))
		return false;
	req->renewed = true;
	stop_transfer(req);
	http_text_done(&req->text);
	req->status = 0;
	r = begin(req);
	if (r < 0)
		tell_failed(req, r, strerror(-r));
	return true;
}

/* Hooks may cancel the request, which then stays in memory until the loop comes round. */
static void tell_lines(struct kube_request *req)
{
	json_error_t error;
	size_t len;
	char *line;
	int r = 0;

	if (!req->opened) {
		req->opened = true;
		r = req->on_line(req->ctx, NULL);
	}
	while (r == 0 && !req->over && http_text_line(&req->text, &line, &len)) {
		json_t *json = http_json_read(line, len, &error);

		r = json ? req->on_line(req->ctx, json) : -EBADMSG;
		if (!json)
			snprintf(req->why, sizeof(req->why), "a line is no JSON: %.70s",
				 error.text);
		json_decref(json);
	}
	if (r < 0 && !req->over)
		end_by(req, r);
}

static void on_ready(struct http_transfer *t)
{
	struct kube_request *req = CONTAINER_OF(t, struct kube_request, transfer);

	if (is_stream(req))
		tell_lines(req);
	if (req->over || !t->ended)
		return;
	if (req->r < 0)
		end_by(req, req->r);
	else if (t->code != CURLE_OK)
		tell_failed(req, http_errno(t->code),
			    req->error[0] ? req->error : curl_easy_strerror(t->code));
	else if (!try_again(req))
		tell_answer(req);
}

static void on_quiet(struct timer *timer)
{
	struct kube_request *req = CONTAINER_OF(timer, struct kube_request, quiet);

	tell_failed(req, -ETIMEDOUT,
		    req->status ? "the stream has been silent for too long" : "no answer");
}

/* ---- starting ---- */

static int begin(struct kube_request *req)
{
	struct kube_client *client = req->client;
	CURL *easy;
	int r = http_setup(&req->setup, client->access, &req->call, req->on_line,
			   loop_now_ms(client->loop));

	if (r < 0)
		return r;
	easy = req->setup.easy;
	req->error[0] = '\0';
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, req->error);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, req);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, req);
	req->transfer.on_ready = on_ready;
	req->transfer.easy = TAKE_PTR(req->setup.easy);
	if (req->on_line)
		timer_start(client->loop, &req->quiet, FIRST_MS);
	return http_start(req->http, &req->transfer);
}

static int copy_call(struct kube_call *ret, const struct kube_call *call)
{
	ret->timeout_ms = call->timeout_ms;
	ret->max = call->max;
	ret->method = strdup(call->method);
	ret->path = strdup(call->path);
	ret->body = call->body ? strdup(call->body) : NULL;
	ret->content_type = call->content_type ? strdup(call->content_type) : NULL;
	if (!ret->method || !ret->path || (call->body && !ret->body) ||
	    (call->content_type && !ret->content_type))
		return -ENOMEM;
	return 0;
}

static int start(struct kube_client *client, const struct kube_call *call, struct kube_request what,
		 struct kube_request **ret)
{
	struct kube_request *req = malloc(sizeof(*req));
	int r;

	if (!req)
		return -ENOMEM;
	*req = what;
	req->client = client;
	req->http = req->on_line ? client->streams : client->calls;
	req->quiet.on_expire = on_quiet;
	req->next = client->requests;
	req->link = &client->requests;
	if (req->next)
		req->next->link = &req->next;
	client->requests = req;

	r = copy_call(&req->call, call);
	r = r ?: begin(req);
	if (r < 0) {
		kube_cancel(req);
		return r;
	}
	if (ret)
		*ret = req;
	return 0;
}

int kube_call(struct kube_client *client, const struct kube_call *call, kube_done_fn *done,
	      void *ctx, struct kube_request **ret)
{
	return start(client, call, (struct kube_request){.done = done, .ctx = ctx}, ret);
}

int kube_stream(struct kube_client *client, const struct kube_call *call,
		int (*on_line)(void *ctx, json_t *line), kube_done_fn *done, void *ctx,
		struct kube_request **ret)
{
	return start(client, call,
		     (struct kube_request){.on_line = on_line, .done = done, .ctx = ctx}, ret);
}

/* ---- the client ---- */

int kube_client_new(struct kube_client **ret, struct loop *loop, const struct kube_config *config)
{
	struct kube_client *client = calloc(1, sizeof(*client));
	int r;

	if (!client)
		return log_err(-ENOMEM, "cannot prepare for the Kubernetes API");
	client->loop = loop;
	r = access_open(&client->access, config);
	if (r == 0) {
		r = http_new(&client->calls, loop);
		r = r ?: http_new(&client->streams, loop);
		if (r < 0)
			log_err(r, "cannot prepare for the Kubernetes API");
	}
	if (r < 0) {
		kube_client_free(client);
		return r;
	}
	*ret = client;
	return 0;
}

void kube_client_free(struct kube_client *client)
{
	if (!client)
		return;
	while (client->requests)
		kube_cancel(client->requests);
	http_free(client->calls);
	http_free(client->streams);
	access_close(client->access);
	free(client);
}

const char *kube_client_server(const struct kube_client *client)
{
	return client->access->server;
}
