/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One thread of the data path: a loop, its connections, its pipes, and (on a gateway) its dialer.
 * Everything here but worker_post() is for the worker's own thread.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "gateway/dial.h"
#include "net/loop.h"
#include "proxy/flow.h"
#include "proxy/origin.h"
#include "proxy/pump.h"
#include "proxy/snapshot.h"

struct conn;

/* What all workers of an agent share; set before they start. */
struct shared {
	struct observers observers;
	enum role role;
	struct proof proof;
	uint64_t max_connections, max_connections_per_pod;
	atomic_uint connections; /* open now, all workers */
	_Atomic uint64_t accepted, limited, header_refused, accept_failed;
};

struct worker {
	struct shared *shared;
	struct loop *loop;
	pthread_t thread;
	unsigned index;
	struct snapshot *snapshot; /* in force for new connections */
	struct pump_env env;
	struct dialer *dialer; /* Gateway only */
	struct conn *conns;    /* all of this worker, newest first */
	struct conn *sweep;    /* next one to be judged again after a new snapshot */
	struct later sweeper;
	uint8_t random[512]; /* for request ids, refilled when used up */
	unsigned random_left;
	int spare_fd; /* given up to accept and refuse one more when descriptors run out */
	bool draining;
};

/* Sixteen random bytes. */
void worker_request_id(struct worker *w, uint8_t ret[static 16]);
