/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One epoll, its watches, timers and messages: what one thread does. Everything here is for the
 * loop's own thread only, except loop_post() and loop_free().
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct loop;

/* Embed one per fd in the object that owns the fd. */
struct watch {
	int fd; /* -1 once closed */
	void (*on_event)(struct watch *w, uint32_t events);
};

/* Embed one in any object that a callback may have to free, or that has to go on later. */
struct later {
	void (*run)(struct later *l);
	struct later *next;
	bool queued;
};

/* Embed one per deadline. All zero but on_expire is a valid idle timer. Never needs memory. */
struct timer {
	void (*on_expire)(struct timer *t);
	uint64_t deadline_ms;               /* loop_now_ms() clock */
	struct timer *child, *next, **link; /* pairing heap; link is NULL when idle */
};

/* From another thread: run() is called on the loop's thread, which then owns the message. */
struct message {
	void (*run)(struct message *m);
	struct message *next;
};

int loop_new(struct loop **ret);

/* When the thread that ran it has ended. Messages not delivered are run first. NULL is fine. */
void loop_free(struct loop *loop);

/* Runs until loop_stop(). 0 or -errno of epoll_wait. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* CLOCK_MONOTONIC in milliseconds, as of the batch in hand. */
uint64_t loop_now_ms(const struct loop *loop);

/* Watches w->fd for `events` (EPOLL* bits, EPOLLET and EPOLLEXCLUSIVE included). -errno. */
int watch_add(struct loop *loop, struct watch *w, uint32_t events);
int watch_change(struct loop *loop, struct watch *w, uint32_t events);

/* Stops watching and leaves the fd open; events already fetched for it may still come. */
void watch_remove(struct loop *loop, struct watch *w);

/* Closes the fd at once and sets it to -1; events already fetched for it are dropped. Fine on -1.
 */
void watch_close(struct watch *w);

/* Runs l once, after the events in hand are dealt with. The only safe place to free a watched
 * object. Queuing what is queued does nothing.
 */
void loop_later(struct loop *loop, struct later *l);

/* (Re)arms; on_expire is called once, `after_ms` from now. */
void timer_start(struct loop *loop, struct timer *t, uint64_t after_ms);
void timer_stop(struct loop *loop, struct timer *t); /* fine on an idle one */
bool timer_is_armed(const struct timer *t);

/* Any thread. Messages of one sender keep their order. */
void loop_post(struct loop *loop, struct message *m);
