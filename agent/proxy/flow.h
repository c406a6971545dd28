/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a connection is, whatever carries it: whose, where to, the verdict, the counters. It knows
 * how to say so in the access log and the metrics, and nothing of sockets.
 */
#include <stdbool.h>
#include <stdint.h>

#include "admin/access_log.h"
#include "admin/metrics.h"
#include "base/addr.h"
#include "base/identity.h"
#include "registry/decide.h"

#define REQUEST_ID_BYTES 16
#define REQUEST_ID_TEXT  37

struct flow {
	uint8_t request_id[REQUEST_ID_BYTES];
	int64_t start_us;                     /* CLOCK_REALTIME */
	uint64_t start_ms;                    /* loop clock */
	struct identity *source;              /* a reference; NULL until known */
	struct addr remote;                   /* downstream's own address */
	struct addr dst;                      /* where the client meant to go */
	struct addr upstream, upstream_local; /* all zero until connected */
	char *name;         /* checked name, normalised; NULL when there is none */
	char *service_host; /* registered host that matched; NULL without a service. One malloc */
	const char *service_ns, *service_entry; /* inside service_host's memory */
	const char *gateway; /* borrowed from the snapshot's gateways, which the owner keeps */
	enum spoken spoken;
	enum reason reason; /* why it was refused or ended */
	bool allow;         /* the verdict */
	bool by_name;
	bool http; /* requests are logged one by one */
	bool logged;
	uint64_t received, sent;                 /* from and to downstream, payload only */
	uint64_t counted_received, counted_sent; /* of these, in the metrics already */
	struct tcp_series *series;               /* NULL until opened */
};

/* Where flows report to; shared by all workers. */
struct observers {
	enum reporter reporter;
	struct access_log *log;
	struct metrics *metrics;
	/* Hears of each refusal that is logged (borrowed), on the worker's thread. NULL: nobody. */
	void (*denied)(void *ctx, const struct access_record *record);
	void *ctx;
};

/* What only one line needs beside the flow. Everything may be zero. */
struct flow_line {
	struct span method, path, authority, user_agent, server_name;
	int response_code;
	uint64_t received, sent;
	int64_t start_us;
	uint64_t duration_ms;
	const char *protocol; /* NULL: by what was spoken */
	const char *detail;   /* connection_termination_details; static text or NULL */
	const char *flags;    /* NULL: by the flow's reason */
};

/* Remembers the name, and the service (may be NULL) that matched. -ENOMEM. */
int flow_set_name(struct flow *f, struct span name);
int flow_set_service(struct flow *f, const struct service *service);

/* The metrics' part of a connection's life. `opened` once it is allowed and connected. */
void flow_opened(struct flow *f, const struct observers *to);
void flow_count(struct flow *f); /* brings the byte counters up to date */
void flow_closed(struct flow *f, const struct observers *to);

/* Counts a refusal by reason and namespace. */
void flow_denied(const struct flow *f, const struct observers *to);

/* One access-log line. `allow` and `reason` may differ from the flow's: a request can be refused on
 * a connection that was allowed.
 */
void flow_log(const struct flow *f, const struct observers *to, const struct flow_line *line,
	      bool allow, enum reason reason);

/* One istio_requests_total. */
void flow_count_request(const struct flow *f, const struct observers *to, int response_code,
			const char *flags);

const char *flow_request_id(const struct flow *f, char buf[static REQUEST_ID_TEXT]); /* UUID text */

void flow_done(struct flow *f);
