/* SPDX-License-Identifier: Apache-2.0 */
#include "net/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>

#include "base/owned.h"

#define BATCH 128

struct loop {
	int epfd;
	bool stop;
	uint64_t now_ms;
	struct later *later, **later_end;
	struct timer *timers;            /* root of the pairing heap */
	_Atomic(struct message *) inbox; /* newest first */
	struct watch wake;               /* eventfd: the inbox was empty and is not */
};

/* ---- timers: an intrusive pairing heap, so that arming one can never fail ---- */

static struct timer *meld(struct timer *a, struct timer *b)
{
	struct timer *tmp;

	if (!a)
		return b;
	if (!b)
		return a;
	if (b->deadline_ms < a->deadline_ms) {
		tmp = a;
		a = b;
		b = tmp;
	}
	b->next = a->child;
	if (b->next)
		b->next->link = &b->next;
	a->child = b;
	b->link = &a->child;
	return a;
}

/* The two-pass pairing of a list of heaps, without recursion: its length is up to the peers. */
static struct timer *meld_list(struct timer *list)
{
	struct timer *pairs = NULL, *root = NULL, *rest;

	while (list) {
		struct timer *a = list, *b = a->next;

		rest = b ? b->next : NULL;
		a->next = NULL;
		if (b)
			b->next = NULL;
		a = meld(a, b);
		a->next = pairs;
		pairs = a;
		list = rest;
	}
	while (pairs) {
		rest = pairs->next;
		pairs->next = NULL;
		root = meld(root, pairs);
		pairs = rest;
	}
	return root;
}

static void set_root(struct loop *loop, struct timer *root)
{
	loop->timers = root;
	if (root) {
		root->next = NULL;
		root->link = &loop->timers;
	}
}

bool timer_is_armed(const struct timer *t)
{
	return t->link != NULL;
}

void timer_stop(struct loop *loop, struct timer *t)
{
	struct timer *children;

	if (!t->link)
		return;
	*t->link = t->next;
	if (t->next)
		t->next->link = t->link;
	children = meld_list(t->child);
	t->child = t->next = NULL;
	t->link = NULL;
	set_root(loop, meld(loop->timers, children));
}

void timer_start(struct loop *loop, struct timer *t, uint64_t after_ms)
{
	timer_stop(loop, t);
	/* Not at once: what arms itself again from on_expire must not hold the loop for ever. */
	t->deadline_ms = loop->now_ms + (after_ms ?: 1);
	set_root(loop, meld(loop->timers, t));
}

static void run_timers(struct loop *loop)
{
	while (loop->timers && loop->timers->deadline_ms <= loop->now_ms && !loop->stop) {
		struct timer *t = loop->timers;

		timer_stop(loop, t);
		t->on_expire(t);
	}
}

/* ---- messages ---- */

void loop_post(struct loop *loop, struct message *m)
{
	struct message *head = atomic_load_explicit(&loop->inbox, memory_order_relaxed);
	int fd = loop->wake.fd;

	do {
		m->next = head;
	} while (!atomic_compare_exchange_weak_explicit(
		&loop->inbox, &head, m, memory_order_release, memory_order_relaxed));
	if (!head)
		eventfd_write(fd, 1);
}

static void run_messages(struct loop *loop)
{
	struct message *m = atomic_exchange_explicit(&loop->inbox, NULL, memory_order_acquire);
	struct message *oldest = NULL;

	while (m) {
		struct message *next = m->next;

		m->next = oldest;
		oldest = m;
		m = next;
	}
	while (oldest) {
		m = oldest;
		oldest = m->next;
		m->run(m);
	}
}

static void on_wake(struct watch *w, uint32_t events)
{
	struct loop *loop = CONTAINER_OF(w, struct loop, wake);
	eventfd_t n;

	(void)events;
	/* Cleared before the inbox is emptied: a message that comes in between wakes us again. */
	eventfd_read(w->fd, &n);
	run_messages(loop);
}

/* ---- the loop ---- */

static void update_clock(struct loop *loop)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	loop->now_ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int loop_new(struct loop **ret)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int r;

	if (!loop)
		return -ENOMEM;
	loop->wake = (struct watch){.fd = -1, .on_event = on_wake};
	loop->later_end = &loop->later;
	update_clock(loop);

	loop->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epfd < 0)
		goto fail;
	loop->wake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (loop->wake.fd < 0 || watch_add(loop, &loop->wake, EPOLLIN) < 0)
		goto fail;
	*ret = loop;
	return 0;
fail:
	r = -errno;
	loop_free(loop);
	return r;
}

static void run_later(struct loop *loop)
{
	struct later *l = loop->later;

	/* Only what is queued now: what those queue again waits for the next round. */
	loop->later = NULL;
	loop->later_end = &loop->later;
	while (l) {
		struct later *next = l->next;

		l->queued = false;
		l->next = NULL;
		l->run(l);
		l = next;
	}
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	run_messages(loop);
	while (loop->later)
		run_later(loop);
	watch_close(&loop->wake);
	if (loop->epfd >= 0)
		close(loop->epfd);
	free(loop);
}

uint64_t loop_now_ms(const struct loop *loop)
{
	return loop->now_ms;
}

void loop_stop(struct loop *loop)
{
	loop->stop = true;
}

void loop_later(struct loop *loop, struct later *l)
{
	if (l->queued)
		return;
	l->queued = true;
	l->next = NULL;
	*loop->later_end = l;
	loop->later_end = &l->next;
}

static int wait_ms(const struct loop *loop)
{
	uint64_t left;

	if (loop->later)
		return 0;
	if (!loop->timers)
		return -1;
	if (loop->timers->deadline_ms <= loop->now_ms)
		return 0;
	left = loop->timers->deadline_ms - loop->now_ms;
	return left > 60000 ? 60000 : (int)left;
}

int loop_run(struct loop *loop)
{
	struct epoll_event ready[BATCH];

	loop->stop = false;
	update_clock(loop);
	while (!loop->stop) {
		int n = epoll_wait(loop->epfd, ready, BATCH, wait_ms(loop));

		if (n < 0 && errno != EINTR)
			return -errno;
		update_clock(loop);
		for (int i = 0; i < n; i++) {
			struct watch *w = ready[i].data.ptr;

			if (w->fd >= 0) /* not closed by an earlier event of this batch */
				w->on_event(w, ready[i].events);
		}
		run_timers(loop);
		run_later(loop);
	}
	return 0;
}

static int control(struct loop *loop, int op, struct watch *w, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = w};

	return epoll_ctl(loop->epfd, op, w->fd, &event) < 0 ? -errno : 0;
}

int watch_add(struct loop *loop, struct watch *w, uint32_t events)
{
	return control(loop, EPOLL_CTL_ADD, w, events);
}

int watch_change(struct loop *loop, struct watch *w, uint32_t events)
{
	return control(loop, EPOLL_CTL_MOD, w, events);
}

void watch_remove(struct loop *loop, struct watch *w)
{
	if (w->fd >= 0)
		control(loop, EPOLL_CTL_DEL, w, 0);
}

void watch_close(struct watch *w)
{
	int fd = w->fd;

	w->fd = -1;
	owned_close(&fd);
}
