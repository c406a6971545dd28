/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/source.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/owned.h"
#include "resource/load.h"
#include "resource/report.h"
#include "resource/watcher.h"

#define REBUILD_MIN_MS 20  /* changes that come together are one */
#define SAID_MAX       256 /* warnings that are remembered, so as not to say them at each change */

/* Lines of warnings at once, the last of them for how many more there are; then one each so often:
 * what they are about is not the administrator's alone.
 */
#define LINES_MAX     (REPORT_KEPT + 1)
#define LINE_AGAIN_MS 10000

struct source {
	struct loop *loop;
	pthread_t thread;
	source_publish_fn *publish;
	void *ctx;

	pthread_mutex_t lock;
	struct source_status status; /* under the lock */

	struct message stop;

	/* Of the thread alone from here. */
	bool stopping;
	struct watcher watcher;
	char **paths;
	size_t n;
	struct source_feed feed; /* open is NULL: none */
	struct load *load;       /* the files' last good entries; with a feed */
	struct timer rebuild;
	uint64_t build_ms; /* the last build took */
	uint64_t said[SAID_MAX];
	unsigned n_said;        /* ever */
	unsigned lines, unsaid; /* that there may be yet; warnings without one */
	uint64_t lines_ms;      /* when `lines` were counted */
};

static void free_paths(char **paths, size_t n)
{
	for (size_t i = 0; paths && i < n; i++)
		free(paths[i]);
	free(paths);
}

static int copy_paths(char ***ret, const char *const *paths, size_t n)
{
	char **copy = calloc(n + 1, sizeof(*copy));

	for (size_t i = 0; copy && i < n; i++) {
		copy[i] = strdup(paths[i]);
		if (!copy[i]) {
			free_paths(copy, i);
			return -ENOMEM;
		}
	}
	*ret = copy;
	return copy ? 0 : -ENOMEM;
}

/* ---- loading ---- */

static uint64_t clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Published before it is counted: who sees the count rise finds it in force. */
static void accept_load(struct source *s, struct registry *reg, uint64_t load_ms)
{
	s->publish(s->ctx, reg);
	pthread_mutex_lock(&s->lock);
	s->status.accepted++;
	s->status.load_ms = load_ms;
	s->status.loaded_at = time(NULL);
	s->status.last_error[0] = '\0';
	pthread_mutex_unlock(&s->lock);
}

static void ignore_warning(void *ctx, const char *text)
{
	(void)ctx;
	(void)text;
}

/* Nothing may pass until something good has been read. */
static void publish_empty(struct source *s)
{
	struct registry *reg;
	int r = registry_new(&reg, NULL, 0, ignore_warning, NULL);

	if (r < 0) {
		log_err(r, "cannot make an empty registry");
		return;
	}
	s->publish(s->ctx, reg);
	registry_unref(reg);
}

static void reject_load(struct source *s, const char *error)
{
	bool first;

	pthread_mutex_lock(&s->lock);
	first = s->status.accepted == 0 && s->status.rejected == 0;
	pthread_mutex_unlock(&s->lock);
	if (first)
		publish_empty(s);
	log_err(0, "registry refused as a whole, %s",
		first ? "nothing is registered until it is mended"
		      : "what was in force stays so until it is mended");

	pthread_mutex_lock(&s->lock);
	s->status.rejected++;
	snprintf(s->status.last_error, sizeof(s->status.last_error), "%s", error);
	pthread_mutex_unlock(&s->lock);
}

static uint64_t hash_text(const char *text)
{
	uint64_t hash = 0xcbf29ce484222325ULL;

	for (; *text; text++)
		hash = (hash ^ (uint8_t)*text) * 0x100000001b3ULL;
	return hash;
}

/* Each once, as long as it is remembered: the API changes many times a second. */
static void on_warning(void *ctx, const char *text)
{
	struct source *s = ctx;
	uint64_t hash = hash_text(text);

	for (unsigned i = 0; i < SAID_MAX; i++) {
		if (s->said[i] == hash)
			return;
	}
	s->said[s->n_said++ % SAID_MAX] = hash;
	if (s->lines <= 1) {
		s->unsaid++;
		return;
	}
	s->lines--;
	log_warn(0, "%s", text);
}

static void refill_lines(struct source *s)
{
	uint64_t now = clock_ms(), more = (now - s->lines_ms) / LINE_AGAIN_MS;

	s->lines_ms += more * LINE_AGAIN_MS;
	s->lines = more < LINES_MAX - s->lines ? s->lines + (unsigned)more : LINES_MAX;
}

static int build_now(struct source *s, uint64_t start, struct registry **ret)
{
	const struct service_entry *more = NULL;
	size_t n = 0;
	int r;

	if (s->feed.open && !s->feed.entries(s->feed.ctx, &more, &n))
		n = 0;
	refill_lines(s);
	r = load_build(s->load, more, n, on_warning, s, ret);
	if (s->unsaid > 0 && s->lines > 0) {
		s->lines--;
		log_warn(0, "and %u more warnings like these", s->unsaid);
		s->unsaid = 0;
	}
	s->build_ms = clock_ms() - start;
	return r;
}

static void load_now(struct source *s)
{
	const char *const *paths = (const char *const *)s->paths;
	uint64_t start = clock_ms();
	struct registry *reg = NULL;
	struct load *load = NULL;
	char error[1024] = "";
	int r;

	watcher_arm(&s->watcher, paths, s->n); /* first, so that no change is missed */
	if (load_read(paths, s->n, &load, error) < 0) {
		reject_load(s, error);
		return;
	}
	load_free(s->load);
	s->load = load;
	s->n_said = 0;
	memset(s->said, 0, sizeof(s->said));
	s->lines = LINES_MAX;
	r = build_now(s, start, &reg);
	if (r < 0) {
		reject_load(s, strerrordesc_np(-r));
		return;
	}
	log_info("registry loaded: %zu hosts, %zu services, %llu ms", registry_n_hosts(reg),
		 registry_n_services(reg), (unsigned long long)s->build_ms);
	accept_load(s, reg, s->build_ms);
	registry_unref(reg);
	if (!s->feed.open) {
		load_free(s->load);
		s->load = NULL;
	}
}

/* ---- what the feed has ---- */

static void on_rebuild(struct timer *t)
{
	struct source *s = CONTAINER_OF(t, struct source, rebuild);
	struct registry *reg = NULL;
	int r = build_now(s, clock_ms(), &reg);

	if (r < 0) {
		reject_load(s, strerrordesc_np(-r));
		return;
	}
	accept_load(s, reg, s->build_ms);
	registry_unref(reg);
}

/* A large registry is not built without pause: watches have to be read meanwhile. */
void source_changed(struct source *source)
{
	uint64_t wait = 2 * source->build_ms;

	if (!source->stopping && !timer_is_armed(&source->rebuild))
		timer_start(source->loop, &source->rebuild,
			    wait > REBUILD_MIN_MS ? wait : REBUILD_MIN_MS);
}

static void on_change(struct watcher *w)
{
	load_now(CONTAINER_OF(w, struct source, watcher));
}

/* ---- what other threads ask for ---- */

struct order {
	struct message message;
	struct source *source;
	char **paths; /* NULL: the same as before */
	size_t n;
};

static void on_reload(struct message *m)
{
	struct order *order = CONTAINER_OF(m, struct order, message);
	struct source *s = order->source;

	if (order->paths) {
		free_paths(s->paths, s->n);
		s->paths = order->paths;
		s->n = order->n;
	}
	free(order);
	if (!s->stopping) /* what is left at the end is delivered, too */
		load_now(s);
}

static void on_stop(struct message *m)
{
	struct source *s = CONTAINER_OF(m, struct source, stop);

	s->stopping = true;
	loop_stop(s->loop);
}

static void order_reload(struct source *s, char **paths, size_t n)
{
	struct order *order = malloc(sizeof(*order));

	if (!order) {
		log_err(-ENOMEM, "cannot reload the registry, ignoring");
		free_paths(paths, n);
		return;
	}
	*order = (struct order){.message.run = on_reload, .source = s, .paths = paths, .n = n};
	loop_post(s->loop, &order->message);
}

void source_reload(struct source *source)
{
	order_reload(source, NULL, 0);
}

void source_set_paths(struct source *source, const char *const *paths, size_t n)
{
	char **copy;
	int r = copy_paths(&copy, paths, n);

	if (r < 0)
		log_err(r, "cannot change the registry's files, ignoring");
	else
		order_reload(source, copy, n);
}

void source_status(struct source *source, struct source_status *ret)
{
	pthread_mutex_lock(&source->lock);
	*ret = source->status;
	pthread_mutex_unlock(&source->lock);
}

/* ---- the thread ---- */

static void *thread_main(void *arg)
{
	struct source *s = arg;
	int r;

	pthread_setname_np(pthread_self(), "source");
	if (s->feed.open)
		s->feed.open(s->feed.ctx, s->loop, s);
	load_now(s);
	r = loop_run(s->loop);
	if (r < 0)
		log_err(r, "the registry's files are no longer watched");
	s->stopping = true;
	timer_stop(s->loop, &s->rebuild);
	if (s->feed.open)
		s->feed.close(s->feed.ctx);
	return NULL;
}

static void free_source(struct source *s)
{
	watcher_done(&s->watcher);
	loop_free(s->loop);
	load_free(s->load);
	free_paths(s->paths, s->n);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int source_start(struct source **ret, const char *const *paths, size_t n,
		 const struct source_feed *feed, source_publish_fn *publish, void *ctx)
{
	struct source *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->publish = publish;
	s->ctx = ctx;
	s->n = n;
	if (feed)
		s->feed = *feed;
	s->rebuild.on_expire = on_rebuild;
	s->stop.run = on_stop;
	pthread_mutex_init(&s->lock, NULL);
	r = loop_new(&s->loop);
	watcher_init(&s->watcher, s->loop);
	s->watcher.on_change = on_change;
	if (r == 0)
		r = copy_paths(&s->paths, paths, n);
	if (r == 0)
		r = -pthread_create(&s->thread, NULL, thread_main, s);
	if (r < 0) {
		free_source(s);
		return r;
	}
	*ret = s;
	return 0;
}

void source_stop(struct source *source)
{
	if (!source)
		return;
	loop_post(source->loop, &source->stop);
	pthread_join(source->thread, NULL);
	free_source(source);
}
