/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An agent, node or gateway: the control thread that owns everything else and wires it together. */
#include "admin/access_log.h"
#include "admin/admin.h"
#include "admin/metrics.h"
#include "cluster.h"
#include "config.h"
#include "pod/pods.h"
#include "proxy/engine.h"
#include "resource/source.h"
#include "tunnel/prober.h"

#define MAX_TUNNEL_LISTENERS 16

struct agent {
	struct loop *loop;
	const struct config *config;
	struct access_log *access_log;
	struct metrics *metrics;
	struct registry *registry; /* empty until the first load */
	struct gateways *gateways;
	struct peers *peers;     /* Gateway, tunnel.nodesOnly: nobody until nodes are known */
	struct cluster *cluster; /* NULL without registry.kubernetes */
	struct engine *engine;
	struct source *source;
	struct prober *prober;
	struct pods *pods; /* Node */
	struct admin *admin;
	struct listener *tunnel[MAX_TUNNEL_LISTENERS]; /* Gateway */
	size_t n_tunnel;
	struct watch signals;
	struct timer drain;
	uint64_t drain_until_ms;
	bool open;     /* listeners are there: the first registry has come */
	bool draining; /* SIGTERM was there */
	bool ending;   /* everything is being given back */
	int result;    /* what run returns */
};

/* Runs until SIGTERM or SIGINT. Takes the reference to `config`. Logs. 0 or -errno. */
int agent_run(const struct config *config);

/* For a node where no agent runs any more: takes away what it left in force, so that pods are as
 * they were before. While one runs: waits for its end, or -EBUSY. Logs. -errno.
 */
int agent_uninstall(const struct config *config, bool wait);

/* For cluster.c: what the API says has changed. Control thread; also while the agent ends. Takes
 * the reference to `peers`.
 */
void agent_gateways_changed(struct agent *a);
void agent_peers_changed(struct agent *a, struct peers *peers);

/* Starts the servers for people and scrapers (agent/routes.c). Logs. -errno. */
int routes_open(struct agent *a);
