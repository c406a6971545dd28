/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The data path as the control thread sees it: starts workers, gives them listeners and snapshots,
 * asks them what they do. For the control thread only.
 */
#include <jansson.h>

#include "net/loop.h"
#include "proxy/snapshot.h"
#include "proxy/flow.h"
#include "proxy/origin.h"

struct engine;
struct listener;

struct engine_stats {
	uint64_t connections, max_connections, max_connections_per_pod;
	uint64_t accepted, limited, header_refused, accept_failed;
};

/* Starts config->workers threads. Copies `observers`; takes a reference to `first`. Logs how many
 * descriptors it found and which limits follow. -errno.
 */
int engine_start(struct engine **ret, struct snapshot *first, const struct observers *observers);

/* New connections follow it at once; live ones are judged again. Takes a reference. -ENOMEM. */
int engine_publish(struct engine *engine, struct snapshot *snapshot);

/* Accepts on these listening, non-blocking sockets, which it takes (a negative one is passed over;
 * all are closed on failure). `source`: the pod behind them, or NULL for the tunnel. -ENOMEM.
 */
int engine_listen(struct engine *engine, struct identity *source, const int fds[], size_t n,
		  struct listener **ret);

/* The same for sockets that pods share: `origin` (copied) tells them apart. */
int engine_listen_shared(struct engine *engine, const struct origin *origin, const int fds[],
			 size_t n, struct listener **ret);

/* False: a socket of it was destroyed under us. */
bool engine_listener_is_alive(const struct listener *l);

/* Connections that came by a shared listener for this pod are ended. */
void engine_end_source(struct engine *engine, struct identity *source);

/* What proving connections are told; the same for the engine's whole life. */
const struct proof *engine_proof(const struct engine *engine);

/* Stops accepting; with `end` also ends the source's connections. The listener is gone after this.
 */
void engine_unlisten(struct engine *engine, struct listener *l, bool end);

void engine_stats(const struct engine *engine, struct engine_stats *ret);

/* Sum over workers, for egress.sourceIPs[i]. */
unsigned engine_ports_in_use(const struct engine *engine, size_t i);

/* Collects one JSON object per connection from all workers, then calls done() on `home`'s thread
 * with a new array (NULL when out of memory). -ENOMEM.
 */
int engine_print(struct engine *engine, struct loop *home, void (*done)(void *ctx, json_t *array),
		 void *ctx);

/* Ends every connection, joins the threads, frees. NULL is fine. */
void engine_stop(struct engine *engine);
