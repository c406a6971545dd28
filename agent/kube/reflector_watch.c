/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "kube/kube_json.h"
#include "kube/reflector_path.h"
#include "kube/reflector_state.h"

#define HEALTHY 10 /* times restart_ms: a watch that lived so long was a good one */

/* ---- events ---- */

/* Ends the stream, which is then treated as if the server had answered so in the first place. */
static int on_error(struct reflector *r, const json_t *status)
{
	const json_t *details = json_object_get(status, "details");
	json_int_t code = json_integer_value(json_object_get(status, "code"));
	json_int_t wait = json_integer_value(json_object_get(details, "retryAfterSeconds"));
	const char *reason = kube_json_text(status, "reason");

	if (strcmp(reason, "Expired") == 0 || strcmp(reason, "Gone") == 0)
		code = 410;
	r->error.status = code >= 400 && code < 600 ? (long)code : 500;
	r->error.retry_after = wait > 0 && wait < 86400 ? (unsigned)wait : 0;
	snprintf(r->error.text, sizeof(r->error.text), "%.100s (%.50s)",
		 kube_json_text(status, "message"), reason);
	return -ECANCELED;
}

static bool is_end_of_list(const json_t *bookmark)
{
	const json_t *notes = json_object_get(kube_json_meta(bookmark), "annotations");

	return strcmp(kube_json_text(notes, "k8s.io/initial-events-end"), "true") == 0;
}

static void end_initial(struct reflector *r)
{
	r->initial = false;
	r->status.watching = true;
	reflector_news(r, REFLECTOR_WATCHES);
	timer_stop(r->loop, &r->quiet);
	reflector_synced(r);
}

static int take_event(struct reflector *r, const char *type, json_t *object)
{
	if (strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0)
		return known_take(&r->known, object);
	if (strcmp(type, "DELETED") == 0)
		return known_drop(&r->known, object);
	return strcmp(type, "BOOKMARK") == 0 ? 0 : -EBADMSG;
}

/* What the events of a streaming list have for versions is in no order: only from its end on can
 * a watch go on from one.
 */
static int on_event(struct reflector *r, const json_t *event)
{
	const char *type = kube_json_text(event, "type");
	json_t *object = json_object_get(event, "object");
	const char *rv = kube_json_text(kube_json_meta(object), "resourceVersion");
	bool end = r->initial && strcmp(type, "BOOKMARK") == 0 && is_end_of_list(object);
	int error;

	if (strcmp(type, "ERROR") == 0)
		return on_error(r, object);
	error = rv[0] ? take_event(r, type, object) : -EBADMSG;
	if (error == 0 && (!r->initial || end))
		error = reflector_set_rv(r, rv);
	if (error < 0)
		return error;
	reflector_healthy(r);
	if (end)
		end_initial(r);
	else if (r->initial)
		timer_start(r->loop, &r->quiet, r->config.times.quiet_ms);
	return 0;
}

static void on_open(struct reflector *r)
{
	r->opened_ms = loop_now_ms(r->loop);
	r->status.watching = !r->initial;
	reflector_news(r, r->initial ? REFLECTOR_HEARS : REFLECTOR_WATCHES);
	if (r->initial)
		timer_start(r->loop, &r->quiet, r->config.times.quiet_ms);
	trouble_over(&r->trouble);
}

static int on_line(void *ctx, json_t *line)
{
	struct reflector *r = ctx;
	int error;

	if (!line) {
		on_open(r);
		return 0;
	}
	error = on_event(r, line);
	if (error == -EBADMSG)
		snprintf(r->error.text, sizeof(r->error.text),
			 "an event without type, object or resourceVersion");
	return error;
}

/* ---- its end ---- */

static void list_in_chunks(struct reflector *r)
{
	r->streaming = false;
	reflector_later(r, STEP_LIST, 0);
}

/* Not 401 and 403, which are no better with chunks; 404, 410 and 429 mean something else. */
static bool is_refusal(const struct kube_answer *answer)
{
	return answer->r == 0 && answer->status >= 400 && answer->status != 401 &&
	       answer->status != 403 && answer->status != 404 && answer->status != 410 &&
	       answer->status != 429;
}

/* A server that was set back to a backup has not seen our version yet, and will not for long. */
static bool is_ahead(const struct kube_answer *answer)
{
	const json_t *causes = json_object_get(json_object_get(answer->json, "details"), "causes");
	const json_t *cause;
	size_t i;

	json_array_foreach(causes, i, cause)
	{
		if (strcmp(kube_json_text(cause, "reason"), "ResourceVersionTooLarge") == 0)
			return true;
	}
	return false;
}

/* Watching from here would end the same way. */
static bool is_unusable(const struct kube_answer *answer)
{
	return answer->r == -EBADMSG || answer->r == -EMSGSIZE || is_ahead(answer);
}

static void on_initial_end(struct reflector *r, const struct kube_answer *answer)
{
	if (r->opened_ms > 0 || is_refusal(answer))
		list_in_chunks(r);
	else
		reflector_failed(r, STEP_LIST, answer);
}

static void on_watch_end(struct reflector *r, const struct kube_answer *answer)
{
	uint64_t lived_ms = r->opened_ms > 0 ? loop_now_ms(r->loop) - r->opened_ms : 0;
	unsigned restart_ms = r->config.times.restart_ms;

	if (lived_ms >= (uint64_t)restart_ms * HEALTHY)
		reflector_healthy(r);
	if (answer->r == 0 && answer->status == 200)
		reflector_later(r, STEP_WATCH, lived_ms < restart_ms ? restart_ms - lived_ms : 0);
	else
		reflector_failed(r, is_unusable(answer) ? STEP_LIST : STEP_WATCH, answer);
}

static void on_done(void *ctx, const struct kube_answer *answer)
{
	struct reflector *r = ctx;
	struct kube_answer why = *answer;

	r->request = NULL;
	r->status.watching = false;
	reflector_news(r, REFLECTOR_LOST);
	timer_stop(r->loop, &r->quiet);
	if (r->error.text[0])
		why.text = r->error.text;
	if (r->error.status > 0) {
		why.r = 0;
		why.status = r->error.status;
		why.retry_after = r->error.retry_after;
	}
	if (r->initial)
		on_initial_end(r, &why);
	else
		on_watch_end(r, &why);
}

/* A server that knows nothing of streaming lists sends what there is, and never says that it was
 * all.
 */
static void on_quiet(struct timer *timer)
{
	struct reflector *r = CONTAINER_OF(timer, struct reflector, quiet);

	kube_cancel(TAKE_PTR(r->request));
	list_in_chunks(r);
}

/* ---- starting ---- */

static int start_stream(struct reflector *r, const char *rv)
{
	const struct reflector_times *times = &r->config.times;
	unsigned seconds = times->watch_s + reflector_random() % (times->watch_s + 1);
	OWNED_MEM char *path = path_watch(&r->config, r->version, rv, seconds);
	struct kube_call call = {.method = "GET", .path = path};

	if (!path)
		return -ENOMEM;
	call.timeout_ms = seconds * 1000 + times->quiet_ms;
	r->opened_ms = 0;
	r->error.status = 0;
	r->error.text[0] = '\0';
	r->quiet.on_expire = on_quiet;
	r->initial = !rv;
	return kube_stream(r->client, &call, on_line, on_done, r, &r->request);
}

int reflector_watch(struct reflector *r)
{
	return start_stream(r, r->rv);
}

int reflector_watch_list(struct reflector *r)
{
	return start_stream(r, NULL);
}
