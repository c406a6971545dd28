/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A connection from the accept to the last byte, in one thread.
 *
 *   HEADER --> SNIFF --> CONNECT --> RELAY --> (freed)
 *      |         |          |          |
 *      +---------+----------+----------+--> REFUSE --> (freed)
 *
 * HEADER (gateway): the PROXY header is read. SNIFF: the first bytes are read until they decide.
 * CONNECT: a gateway endpoint (node) or the destination (gateway) is being connected to. RELAY:
 * bytes go both ways. REFUSE: the client is being told why not.
 */
#include <jansson.h>

#include "proxy/worker.h"

enum conn_state {
	CONN_HEADER,
	CONN_SNIFF,
	CONN_CONNECT,
	CONN_RELAY,
	CONN_REFUSE,
	CONN_CLOSED,
};

struct http_relay;

struct conn {
	struct worker *worker;
	struct conn *next, **link; /* worker->conns */
	struct flow flow;
	struct sock down, up;
	struct pump out, in;           /* down to up, up to down */
	struct timer timer;            /* of the state in hand; in RELAY the idle check */
	struct later again;            /* one more turn, or the end */
	struct http_relay *http;       /* NULL when the payload is opaque */
	struct snapshot *snapshot;     /* while connecting: the gateways and service chosen from */
	struct dial dial;              /* gateway */
	const struct service *service; /* while connecting, inside snapshot; may be NULL */
	struct gateways *gateways;     /* node: keeps flow.gateway's memory */
	struct gateway_endpoint *trying; /* node: inside gateways */
	uint64_t active_ms;              /* when bytes moved last */
	uint64_t tried;                  /* node: gateway endpoints, a bit each */
	unsigned turn;
	enum conn_state state;
	bool keepalive_on;
	bool doomed;      /* deregistered, in its grace */
	bool aborted;     /* the upstream does not take any more */
	bool counted_pod; /* it has a place in its pod's count */
	bool early;       /* step 1 of the decision has been taken */
	bool told;        /* gateway: the name came with the header */
};

/* Starts a connection on an accepted socket, which it takes (closed on failure). On a node `source`
 * is the pod whose listener it came by and `dst` the original destination; on a gateway both come
 * with the PROXY header and are NULL. Limits have been checked and counted: conn gives the places
 * back. -errno.
 */
int conn_start(struct worker *w, int fd, const struct addr *remote, struct identity *source,
	       const struct addr *dst);

/* Logs and counts a connection that never became one (limits). The socket is reset and closed. */
void conn_refuse_early(struct worker *w, int fd, const struct addr *remote, struct identity *source,
		       const struct addr *dst, enum reason reason, const char *detail);

/* Judges it again by the worker's snapshot; what is no longer allowed is ended. */
void conn_judge_again(struct conn *c);

/* Ends it with a reset to both sides, logged with `reason`. */
void conn_abort(struct conn *c, enum reason reason, const char *detail);

/* One object for `sluicectl connections`, a new reference; NULL when out of memory. */
json_t *conn_print(const struct conn *c);

/* ---- between conn.c, conn_decide.c, conn_connect.c and http_relay.c ---- */

void conn_step(struct conn *c);

/* Tells the client in its protocol and closes; `status` as in refusal_write(). Logs and counts
 * unless that was done (`line` NULL).
 */
void conn_refuse(struct conn *c, enum reason reason, int status, const struct flow_line *line);

/* The verdict is in and allows: makes the way to the upstream. */
void conn_connect(struct conn *c);
void conn_connect_cancel(struct conn *c);
void conn_on_up_event(struct conn *c, uint32_t events); /* while connecting, node */
void conn_connect_expired(struct conn *c);

/* Closes in order, without a line. */
void conn_end_quietly(struct conn *c);

/* Connected: up's fd is being watched. */
void conn_relay(struct conn *c);

/* Reads what decides. Moves on by conn_connect() or conn_refuse(), or waits for more. */
void conn_read_header(struct conn *c);
void conn_sniff(struct conn *c);
void conn_sniff_expired(struct conn *c);
