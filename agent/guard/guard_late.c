/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/owned.h"
#include "guard/guard_ebpf.h"

#define LINK_ATTEMPTS 50 /* in a row */

struct job {
	struct message message;
	struct guard_late *late;
	struct job *next;    /* in the queue */
	struct job *pending; /* list of what is not delivered; loop's thread */
	bool attach, cancelled;
	uint32_t ifindex;
	unsigned dirs;
	int links[GUARD_DIR_N_]; /* attach: made; else to be closed */
	int r;
};

struct guard_late {
	struct loop *loop;
	struct guard_progs progs;
	void (*done)(void *ctx, uint32_t ifindex, const int links[GUARD_DIR_N_]);
	void *ctx;
	struct job *pending;
	bool closed; /* freed with the last that is pending */

	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct job *queue, **tail; /* under the lock */
	bool stop;
};

static void close_links(struct job *job)
{
	for (int i = 0; i < GUARD_DIR_N_; i++) {
		owned_close(&job->links[i]);
		job->links[i] = -1;
	}
}

/* ---- the loop's thread ---- */

static void push(struct guard_late *late, struct job *job)
{
	pthread_mutex_lock(&late->lock);
	job->next = NULL;
	*late->tail = job;
	late->tail = &job->next;
	pthread_cond_signal(&late->more);
	pthread_mutex_unlock(&late->lock);
}

static struct job *make_job(struct guard_late *late, uint32_t ifindex)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->late = late;
	job->ifindex = ifindex;
	for (int i = 0; i < GUARD_DIR_N_; i++)
		job->links[i] = -1;
	return job;
}

static void forget(struct guard_late *late, const struct job *job)
{
	struct job **p = &late->pending;

	while (*p != job)
		p = &(*p)->pending;
	*p = job->pending;
}

static void discard(struct guard_late *late)
{
	pthread_mutex_destroy(&late->lock);
	pthread_cond_destroy(&late->more);
	free(late);
}

static void on_made(struct message *m)
{
	struct job *job = CONTAINER_OF(m, struct job, message);
	struct guard_late *late = job->late;

	/* It will go one day. Those that wait for their turn come first. */
	if (job->r == -EEXIST && !job->cancelled && !late->closed) {
		job->r = 0;
		push(late, job);
		return;
	}
	forget(late, job);
	if (job->r < 0)
		log_debug("guard: no tcx link on interface %u: %s", job->ifindex,
			  strerrordesc_np(-job->r));
	if (late->closed) {
		close_links(job);
		free(job);
		if (!late->pending)
			discard(late);
	} else if (job->cancelled || job->r < 0) {
		job->attach = false;
		push(late, job);
	} else {
		late->done(late->ctx, job->ifindex, job->links);
		free(job);
	}
}

void guard_late_attach(struct guard_late *late, uint32_t ifindex, unsigned dirs)
{
	struct job *job;

	for (job = late->pending; job; job = job->pending) {
		if (job->ifindex == ifindex && !job->cancelled)
			return;
	}
	job = make_job(late, ifindex);
	if (!job)
		return; /* the filter that is in force stays */
	job->attach = true;
	job->dirs = dirs;
	job->message.run = on_made;
	job->pending = late->pending;
	late->pending = job;
	push(late, job);
}

void guard_late_cancel(struct guard_late *late, uint32_t ifindex)
{
	for (struct job *job = late->pending; job; job = job->pending) {
		if (job->ifindex == ifindex)
			job->cancelled = true;
	}
}

void guard_late_close(struct guard_late *late, int link_fd)
{
	struct job *job;

	if (link_fd < 0)
		return;
	job = make_job(late, 0);
	if (!job) {
		close(link_fd);
		return;
	}
	job->links[0] = link_fd;
	push(late, job);
}

/* ---- the other thread ---- */

static struct job *pop(struct guard_late *late)
{
	struct job *job;

	pthread_mutex_lock(&late->lock);
	while (!late->queue && !late->stop)
		pthread_cond_wait(&late->more, &late->lock);
	job = late->queue;
	if (job) {
		late->queue = job->next;
		if (!late->queue)
			late->tail = &late->queue;
	}
	pthread_mutex_unlock(&late->lock);
	return job;
}

static bool is_stopped(struct guard_late *late)
{
	bool stop;

	pthread_mutex_lock(&late->lock);
	stop = late->stop;
	pthread_mutex_unlock(&late->lock);
	return stop;
}

/* EEXIST: a link of ours that somebody unpinned is on its way out. The kernel frees it when an RCU
 * grace period and a work queue have had their turn (bpf_link_put()), and tells nobody.
 */
static int make_link(struct job *job, enum guard_dir dir)
{
	const struct timespec moment = {.tv_nsec = 10000000};

	for (int i = 0;; i++) {
		int fd = is_stopped(job->late)
				 ? -ECANCELED
				 : guard_tcx_attach(&job->late->progs, job->ifindex, dir);

		if (fd != -EEXIST || i == LINK_ATTEMPTS)
			return fd;
		nanosleep(&moment, NULL);
	}
}

static void make_links(struct job *job)
{
	for (int dir = 0; dir < GUARD_DIR_N_ && job->r == 0; dir++) {
		int fd;

		if (!(job->dirs & 1U << dir) || job->links[dir] >= 0)
			continue;
		fd = make_link(job, dir);
		job->links[dir] = fd < 0 ? -1 : fd;
		job->r = fd < 0 ? fd : 0;
	}
}

static void *run(void *arg)
{
	struct guard_late *late = arg;
	struct job *job;

	while ((job = pop(late))) {
		if (job->attach) {
			make_links(job);
			loop_post(late->loop, &job->message);
		} else {
			close_links(job);
			free(job);
		}
	}
	return NULL;
}

/* ---- beginning and end ---- */

/* Signals are for the threads that wait for them. */
static int start(struct guard_late *late)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&late->thread, NULL, run, late);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

int guard_late_new(struct guard_late **ret, struct loop *loop, const struct guard_progs *progs,
		   void (*done)(void *ctx, uint32_t ifindex, const int links[GUARD_DIR_N_]),
		   void *ctx)
{
	struct guard_late *late = calloc(1, sizeof(*late));
	int r;

	if (!late)
		return -ENOMEM;
	late->loop = loop;
	late->progs = *progs;
	late->done = done;
	late->ctx = ctx;
	late->tail = &late->queue;
	pthread_mutex_init(&late->lock, NULL);
	pthread_cond_init(&late->more, NULL);
	r = start(late);
	if (r < 0) {
		discard(late);
		return r;
	}
	*ret = late;
	return 0;
}

void guard_late_free(struct guard_late *late)
{
	if (!late)
		return;
	pthread_mutex_lock(&late->lock);
	late->stop = true;
	pthread_cond_signal(&late->more);
	pthread_mutex_unlock(&late->lock);
	pthread_join(late->thread, NULL);
	late->closed = true;
	if (!late->pending)
		discard(late);
}
