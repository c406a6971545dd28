/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Listening sockets that all workers share, and what each worker keeps of them. */
#include <stdatomic.h>

#include "proxy/origin.h"
#include "proxy/worker.h"

/* One worker's watch on one socket. */
struct tap {
	struct watch watch;
	struct worker *worker;
	struct listener *listener;
	bool v6;
};

struct listener {
	atomic_uint refs;        /* one per worker, and the engine's */
	struct identity *source; /* NULL: the tunnel, or shared */
	struct origin origin;    /* find is NULL unless pods share the listener */
	atomic_bool dead;        /* somebody destroyed a socket under us */
	size_t n_fds, n_workers;
	int fds[2];
	struct {
		struct later unref; /* after the batch, when this worker has let go */
		struct tap taps[2];
	} of[]; /* by worker->index */
};

/* `origin` may be NULL. Takes the descriptors, not the failure: on -ENOMEM they stay the caller's.
 */
int listener_new(struct listener **ret, struct identity *source, const struct origin *origin,
		 const int fds[], size_t n, size_t n_workers);
void listener_unref(struct listener *l);

/* On the worker's thread. */
void listener_join(struct listener *l, struct worker *w);
void listener_leave(struct listener *l, struct worker *w);
