/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/reflector.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "base/owned.h"
#include "kube/kube_json.h"
#include "kube/reflector_path.h"
#include "kube/reflector_state.h"

#define CHUNK           500
#define CHUNK_BYTES     ((size_t)8 * 1024 * 1024) /* JSON that is read takes up to 70 times that */
#define RETRY_AFTER_MAX 600                       /* seconds: whatever the server says */
#define MISSING_SURE    3

uint32_t reflector_random(void)
{
	uint32_t n = 0;

	/* Without one all agents come at once, no worse. */
	if (getrandom(&n, sizeof(n), 0) != sizeof(n))
		return 0;
	return n;
}

/* ---- what comes next ---- */

void reflector_later(struct reflector *r, enum reflector_step step, uint64_t delay_ms)
{
	r->next = step;
	timer_start(r->loop, &r->timer, delay_ms);
}

void reflector_news(struct reflector *r, enum reflector_news news)
{
	if (r->hooks.on_news)
		r->hooks.on_news(r->hooks.ctx, news);
}

static uint64_t failed_ms(struct reflector *r, const struct kube_answer *answer)
{
	bool busy = answer->status == 429 || answer->status == 503;
	uint64_t ms = answer->retry_after;

	if (answer->r == 0 && (answer->status == 404 || answer->status == 410))
		return backoff_first_free(&r->anew, reflector_random());
	if (answer->r < 0 || !busy || ms == 0)
		return backoff_next(&r->backoff, reflector_random());
	ms = (ms < RETRY_AFTER_MAX ? ms : RETRY_AFTER_MAX) * 1000;
	return ms + reflector_random() % (ms / 5 + 1);
}

void reflector_failed(struct reflector *r, enum reflector_step step,
		      const struct kube_answer *answer)
{
	bool gone = answer->r == 0 && answer->status == 410; /* too old: the token, or the rv */
	bool missing = answer->r == 0 && answer->status == 404;

	r->status.errors++;
	reflector_news(r, answer->r < 0 || answer->status >= 500 ? REFLECTOR_AWAY : REFLECTOR_LOST);
	snprintf(r->status.last_error, sizeof(r->status.last_error), "%s", answer->text);
	if (!gone && !missing)
		trouble_note(&r->trouble, answer, loop_now_ms(r->loop));
	if (gone)
		step = STEP_LIST;
	if (missing)
		step = STEP_FIND;
	reflector_later(r, step, failed_ms(r, answer));
}

static void failed_here(struct reflector *r, enum reflector_step step, int error)
{
	reflector_failed(r, step, &(struct kube_answer){.r = error, .text = strerror(-error)});
}

void reflector_healthy(struct reflector *r)
{
	backoff_reset(&r->backoff);
	backoff_reset(&r->anew);
}

int reflector_set_rv(struct reflector *r, const char *rv)
{
	char *copy = strdup(rv);

	if (!copy)
		return -ENOMEM;
	free(r->rv);
	r->rv = copy;
	return 0;
}

void reflector_synced(struct reflector *r)
{
	known_end(&r->known);
	if (r->status.synced)
		r->status.relists++;
	r->status.synced = true;
	r->hooks.on_synced(r->hooks.ctx);
}

/* ---- which version ---- */

static void declare_missing(struct reflector *r)
{
	if (r->status.served || !r->status.synced)
		log_info("%s are not served by %s (yet): there are none", r->trouble.what,
			 r->trouble.server);
	else if (r->known.table.n == 0)
		return; /* as before */
	r->status.served = false;
	known_begin(&r->known);
	known_end(&r->known);
	r->status.synced = true;
	r->hooks.on_synced(r->hooks.ctx);
}

/* When a CRD is deleted its objects are deleted first. If they were not, rather ask again: an API
 * server that has just been started says 404 until it has read its CRDs.
 */
static void on_missing(struct reflector *r)
{
	bool sure = ++r->missing >= MISSING_SURE;
	unsigned ms = r->config.times.missing_ms;

	if (r->status.synced && r->known.table.n == 0)
		sure = true;
	else if (!r->status.synced && !sure)
		ms /= 5; /* somebody waits for it */
	if (sure)
		declare_missing(r);
	reflector_later(r, STEP_FIND, ms + reflector_random() % (ms / 5 + 1));
}

static void on_served(struct served *s, const char *version, const struct kube_answer *failed)
{
	struct reflector *r = CONTAINER_OF(s, struct reflector, served);

	if (failed) {
		reflector_failed(r, STEP_FIND, failed);
		return;
	}
	r->version = version;
	if (!version) {
		trouble_over(&r->trouble);
		on_missing(r);
		return;
	}
	r->missing = 0;
	if (!r->status.served)
		log_info("watching %s (%s) at %s", r->trouble.what, version, r->trouble.server);
	r->status.served = true;
	r->streaming = true; /* it may be another server by now */
	reflector_later(r, STEP_LIST, 0);
}

/* ---- lists in chunks ---- */

static int take_items(struct reflector *r, const json_t *items)
{
	json_t *item;
	size_t i;

	json_array_foreach(items, i, item)
	{
		int error = known_take(&r->known, item);

		if (error == -EBADMSG) {
			r->status.errors++;
			log_debug("an item of %s without name or version, ignoring",
				  r->trouble.what);
		} else if (error < 0) {
			return error;
		}
	}
	return 0;
}

/* The version of a list is that of its first chunk: the others are of the same moment. */
static int take_chunk(struct reflector *r, const json_t *list)
{
	const json_t *meta = kube_json_meta(list), *items = json_object_get(list, "items");
	const char *rv = kube_json_text(meta, "resourceVersion");
	const char *token = kube_json_text(meta, "continue");
	char *next = NULL;
	int error;

	/* An empty list is `items: null` with some servers. */
	if (!rv[0] || !(json_is_array(items) || json_is_null(items)))
		return -EBADMSG;
	if (token[0]) {
		next = strdup(token);
		if (!next)
			return -ENOMEM;
	}
	error = r->token ? 0 : reflector_set_rv(r, rv);
	free(r->token);
	r->token = next;
	return error ?: take_items(r, items);
}

static void on_chunk(void *ctx, const struct kube_answer *answer)
{
	struct reflector *r = ctx;
	int error;

	r->request = NULL;
	if (answer->r == -EMSGSIZE && r->limit > 1) {
		r->limit = r->limit / 4 ?: 1; /* large objects: fewer of them, for now */
		reflector_later(r, STEP_CHUNK, 0);
		return;
	}
	if (answer->r < 0 || answer->status != 200) {
		reflector_failed(r, STEP_CHUNK, answer);
		return;
	}
	error = take_chunk(r, answer->json);
	if (error < 0) {
		reflector_failed(r, STEP_LIST,
				 &(struct kube_answer){.r = error, .text = "it is no list"});
		return;
	}
	trouble_over(&r->trouble);
	r->limit += r->limit / 4 + 1;
	if (r->limit > CHUNK)
		r->limit = CHUNK;
	if (r->token) {
		reflector_later(r, STEP_CHUNK, 0);
		return;
	}
	reflector_synced(r);
	reflector_later(r, STEP_WATCH, 0);
}

static int get_chunk(struct reflector *r)
{
	OWNED_MEM char *path = path_list(&r->config, r->version, r->limit, r->token);
	struct kube_call call = {.method = "GET", .path = path};

	if (!path)
		return -ENOMEM;
	if (r->limit > 1)
		call.max = CHUNK_BYTES;
	return kube_call(r->client, &call, on_chunk, r, &r->request);
}

static int start_list(struct reflector *r)
{
	known_begin(&r->known);
	free(TAKE_PTR(r->token));
	r->limit = CHUNK;
	return r->streaming ? reflector_watch_list(r) : get_chunk(r);
}

/* ---- steps ---- */

static int find_version(struct reflector *r)
{
	return served_ask(&r->served);
}

static void on_timer(struct timer *t)
{
	static int (*const steps[])(struct reflector * r) = {
		[STEP_FIND] = find_version,
		[STEP_LIST] = start_list,
		[STEP_CHUNK] = get_chunk,
		[STEP_WATCH] = reflector_watch,
	};
	struct reflector *r = CONTAINER_OF(t, struct reflector, timer);
	int error;

	_Static_assert(ARRAY_SIZE(steps) == STEP_N_, "a step without function");
	reflector_news(r, REFLECTOR_ASKS);
	error = steps[r->next](r);
	if (error < 0)
		failed_here(r, r->next, error);
}

/* ---- the reflector ---- */

static const char *keep(struct reflector *r, const char *text, bool *ok)
{
	const char *copy = text ? arena_dup(&r->mem, text, strlen(text)) : NULL;

	*ok = *ok && (copy || !text);
	return copy;
}

static int keep_config(struct reflector *r, const struct reflector_config *config)
{
	struct reflector_config *c = &r->config;
	const char **versions;
	size_t n = 0;
	bool ok = true;

	while (config->versions[n])
		n++;
	versions = arena_array(&r->mem, n + 1, sizeof(*versions));
	if (!versions)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		versions[i] = keep(r, config->versions[i], &ok);
	*c = *config;
	c->versions = versions;
	c->group = keep(r, config->group, &ok);
	c->resource = keep(r, config->resource, &ok);
	c->ns = keep(r, config->ns, &ok);
	c->field_selector = keep(r, config->field_selector, &ok);
	c->label_selector = keep(r, config->label_selector, &ok);
	r->trouble.what = arena_print(&r->mem, "%s%s%s", config->resource,
				      config->group[0] ? "." : "", config->group);
	return ok && r->trouble.what ? 0 : -ENOMEM;
}

static void fill_times(struct reflector_times *t)
{
	t->backoff_min_ms = t->backoff_min_ms ?: 800;
	t->backoff_max_ms = t->backoff_max_ms ?: 30000;
	t->missing_ms = t->missing_ms ?: 5000;
	t->quiet_ms = t->quiet_ms ?: 10000;
	t->restart_ms = t->restart_ms ?: 1000;
	t->watch_s = t->watch_s ?: 300;
}

int reflector_new(struct reflector **ret, struct kube_client *client, struct loop *loop,
		  const struct reflector_config *config, const struct reflector_hooks *hooks)
{
	struct reflector *r = calloc(1, sizeof(*r));
	int error;

	if (!r)
		return log_err(-ENOMEM, "cannot watch %s", config->resource);
	r->client = client;
	r->loop = loop;
	r->hooks = *hooks;
	r->timer.on_expire = on_timer;
	r->trouble.server = kube_client_server(client);
	error = keep_config(r, config);
	error = error ?: known_init(&r->known, &r->hooks);
	if (error < 0) {
		reflector_free(r);
		return log_err(error, "cannot watch %s", config->resource);
	}
	fill_times(&r->config.times);
	r->backoff = (struct backoff){.min_ms = r->config.times.backoff_min_ms,
				      .max_ms = r->config.times.backoff_max_ms};
	r->anew = r->backoff;
	r->served.client = client;
	r->served.config = &r->config;
	r->served.on_answer = on_served;
	reflector_later(r, STEP_FIND, 0);
	*ret = r;
	return 0;
}

void reflector_free(struct reflector *r)
{
	if (!r)
		return;
	timer_stop(r->loop, &r->timer);
	timer_stop(r->loop, &r->quiet);
	served_cancel(&r->served);
	kube_cancel(r->request);
	known_done(&r->known);
	free(r->rv);
	free(r->token);
	arena_done(&r->mem);
	free(r);
}

void reflector_hurry(struct reflector *r)
{
	if (timer_is_armed(&r->timer))
		timer_start(r->loop, &r->timer, 0);
}

void reflector_status(const struct reflector *r, struct reflector_status *ret)
{
	*ret = r->status;
	ret->objects = r->known.table.n;
}
