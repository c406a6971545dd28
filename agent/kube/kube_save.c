/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/kube_save.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/owned.h"
#include "kube/cache.h"

#define IDLE 20 /* times as long as it took is there to be a rest */

/* One writing. Outlives the saver when its message is on its way. */
struct job {
	struct message message;
	struct kube_saver *saver; /* NULL: gone */
	pthread_t thread;
	const char *dir, *server; /* the saver's, which waits for the thread */
	struct entry_snapshot entries;
	json_t *parts;
	atomic_bool stop;
	uint64_t took_ms;
	int r;
};

struct kube_saver {
	struct loop *loop;
	char *dir, *server;
	unsigned after_ms;
	kube_take_fn *take;
	void *ctx;
	struct timer timer;
	struct job *job; /* running; NULL: none */
	bool dirty, told;
	uint64_t took_ms;
};

static uint64_t clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void write_now(struct job *job)
{
	struct cache_view view = {
		.server = job->server,
		.parts = job->parts,
		.entries = job->entries.list,
		.n = job->entries.n,
	};
	uint64_t start = clock_ms();

	job->r = cache_write(job->dir, &view, &job->stop);
	job->took_ms = clock_ms() - start;
	entry_snapshot_done(&job->entries);
	json_decref(job->parts);
	job->parts = NULL;
}

/* Once, until it works again: the next change tries again. */
static void tell_result(struct kube_saver *saver, int r)
{
	bool failed = r < 0 && r != -ECANCELED;

	if (failed && !saver->told)
		log_warn(r,
			 "cannot write '%s/" CACHE_FILE "', ignoring: a start while the API "
			 "server is away will know nothing",
			 saver->dir);
	else if (r == 0 && saver->told)
		log_info("'%s/" CACHE_FILE "' is written again", saver->dir);
	if (failed || r == 0)
		saver->told = failed;
}

static void arm(struct kube_saver *saver)
{
	uint64_t rest = saver->took_ms * IDLE;

	if (!timer_is_armed(&saver->timer))
		timer_start(saver->loop, &saver->timer,
			    rest > saver->after_ms ? rest : saver->after_ms);
}

static void on_done(struct message *m)
{
	struct job *job = CONTAINER_OF(m, struct job, message);
	struct kube_saver *saver = job->saver;

	if (saver) {
		pthread_join(job->thread, NULL);
		saver->job = NULL;
		saver->took_ms = job->took_ms;
		tell_result(saver, job->r);
		if (saver->dirty)
			arm(saver);
	}
	free(job);
}

static void *thread_main(void *arg)
{
	struct job *job = arg;
	struct loop *loop = job->saver->loop;

	pthread_setname_np(pthread_self(), "kube-cache");
	write_now(job);
	loop_post(loop, &job->message);
	return NULL;
}

static struct job *new_job(struct kube_saver *saver)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->message.run = on_done;
	job->saver = saver;
	job->dir = saver->dir;
	job->server = saver->server;
	if (saver->take(saver->ctx, &job->entries, &job->parts))
		return job;
	free(job);
	return NULL;
}

static void free_job(struct job *job)
{
	entry_snapshot_done(&job->entries);
	json_decref(job->parts);
	free(job);
}

static void on_timer(struct timer *t)
{
	struct kube_saver *saver = CONTAINER_OF(t, struct kube_saver, timer);
	struct job *job;
	int r;

	if (saver->job)
		return; /* it is dirty: the end of this one arms the next */
	job = new_job(saver);
	if (!job)
		return; /* stays dirty until something changes or it ends */
	r = -pthread_create(&job->thread, NULL, thread_main, job);
	if (r < 0) {
		free_job(job);
		tell_result(saver, r);
		return;
	}
	saver->job = job;
	saver->dirty = false;
}

int kube_saver_new(struct kube_saver **ret, struct loop *loop,
		   const struct kube_save_config *config)
{
	struct kube_saver *saver = calloc(1, sizeof(*saver));

	if (!saver)
		return -ENOMEM;
	saver->loop = loop;
	saver->after_ms = config->after_ms;
	saver->take = config->take;
	saver->ctx = config->ctx;
	saver->timer.on_expire = on_timer;
	saver->dir = strdup(config->dir);
	saver->server = strdup(config->server);
	if (!saver->dir || !saver->server) {
		kube_saver_free(saver);
		return -ENOMEM;
	}
	*ret = saver;
	return 0;
}

void kube_saver_touch(struct kube_saver *saver)
{
	if (!saver)
		return;
	saver->dirty = true;
	if (!saver->job)
		arm(saver);
}

static void end_job(struct kube_saver *saver)
{
	struct job *job = saver->job;

	atomic_store(&job->stop, true);
	pthread_join(job->thread, NULL);
	if (job->r < 0)
		saver->dirty = true;
	job->saver = NULL; /* its message is on its way and frees it */
	saver->job = NULL;
}

void kube_saver_free(struct kube_saver *saver)
{
	struct job *job;

	if (!saver)
		return;
	timer_stop(saver->loop, &saver->timer);
	if (saver->job)
		end_job(saver);
	job = saver->dirty ? new_job(saver) : NULL;
	if (job) {
		write_now(job);
		tell_result(saver, job->r);
		free_job(job);
	}
	free(saver->dir);
	free(saver->server);
	free(saver);
}
