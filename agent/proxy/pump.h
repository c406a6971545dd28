/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Moves bytes one way between two sockets: recv/send for small amounts, splice(2) through a
 * borrowed pipe for bulk. Holds memory only while bytes are in flight. One thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "net/loop.h"

/* A socket is registered once, for edges of both ways. */
#define SOCK_EDGES (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

/* A watched socket and what its last edges said. */
struct sock {
	struct watch watch;
	bool readable, writable;
	bool hup;   /* a FIN, RST or error is somewhere behind the bytes: read on until it shows */
	bool muted; /* not told of more to read: there is enough that nobody takes */
};

/* Takes note of edges. The other side may be full for long while every segment that comes in wakes
 * us for nothing: the second such edge is the last until what is there has been read.
 */
void sock_note(struct loop *loop, struct sock *s, uint32_t events);

/* Nothing more to read for now. */
void sock_drained(struct loop *loop, struct sock *s);

struct pipe {
	int fds[2];
	uint32_t used; /* bytes inside */
	struct pipe *next;
};

/* What the pumps of one worker share. */
struct pump_env {
	struct loop *loop;
	uint8_t *scratch; /* PUMP_SCRATCH bytes */
	struct pipe *pipes;
	unsigned n_idle_pipes, n_pipes, max_pipes;
};

#define PUMP_SCRATCH 65536u
#define PUMP_ALL     UINT64_MAX

struct pump {
	struct sock *from, *to;
	uint8_t *buf;               /* NULL while nothing waits */
	uint32_t off, ok, len, cap; /* [off, ok) may go out, [ok, len) is not judged yet */
	uint8_t streak;             /* big reads in a row */
	bool eof;                   /* `from` said FIN, all of it is in buf or pipe */
	bool shut;                  /* and `to` was told */
	bool paused;                /* the judge wants no more for now */
	struct pipe *pipe;          /* NULL unless bytes are in it */
	uint64_t run;               /* so many bytes to come may pass unseen; PUMP_ALL */
	uint64_t bytes;             /* read from `from` so far */
};

enum pump_result {
	PUMP_BLOCKED,     /* waits for an edge (or for the judge) */
	PUMP_AGAIN,       /* did its share for now; call again after the others had theirs */
	PUMP_DONE,        /* all bytes delivered and `to` shut down */
	PUMP_FROM_FAILED, /* reset or error; what was read before has been delivered or is lost */
	PUMP_TO_FAILED,
};

/* Looks at bytes that no run covers and says how many of them, from the front, may go out. It may
 * set
 * ->run (for what follows those) and ->paused. It is called again with the rest and more.
 */
struct judge {
	size_t (*look)(struct judge *j, struct pump *p, struct span in);
};

/* `judge` may be NULL when ->run is PUMP_ALL. *ret_errno is set on the FAILED results. */
enum pump_result pump_step(struct pump_env *env, struct pump *p, struct judge *judge,
			   int *ret_errno);

/* Puts bytes behind those that wait; `ok` of them (from the front) may go out, which must be none
 * while unjudged bytes wait. -ENOMEM.
 */
int pump_put(struct pump *p, const uint8_t *bytes, size_t n, size_t ok);

/* Puts cleared bytes before all that wait. -ENOMEM. */
int pump_put_front(struct pump *p, const uint8_t *bytes, size_t n);

/* Lets the judge look again at what waits (after ->paused was cleared). */
void pump_judge(struct pump *p, struct judge *judge);

bool pump_is_empty(const struct pump *p);             /* nothing waits inside */
void pump_drop(struct pump_env *env, struct pump *p); /* frees what waits */
void pump_env_done(struct pump_env *env);
