/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The immutable table of registered external hosts. Built once from validated ServiceEntries, then
 * only read, by any number of threads. Pure: no fd, no clock, no log.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/reason.h"
#include "base/span.h"

/* Istio's pkg/config/protocol, external kinds. */
enum protocol {
	PROTOCOL_UNSET, /* no protocol given: decided by what the client says first */
	PROTOCOL_TCP,
	PROTOCOL_TLS,
	PROTOCOL_HTTPS,
	PROTOCOL_HTTP,
	PROTOCOL_HTTP2,
	PROTOCOL_GRPC,
	PROTOCOL_GRPC_WEB,
	PROTOCOL_MONGO,
	PROTOCOL_REDIS,
	PROTOCOL_MYSQL,
	PROTOCOL_UDP,
	PROTOCOL_N_,
};

enum resolution {
	RESOLUTION_NONE,
	RESOLUTION_STATIC,
	RESOLUTION_DNS,
	RESOLUTION_DNS_ROUND_ROBIN,
	RESOLUTION_DYNAMIC_DNS,
	RESOLUTION_N_,
};

const char *protocol_str(enum protocol protocol);         /* Istio's spelling; "" when unset */
const char *resolution_str(enum resolution resolution);   /* Istio's spelling */
int protocol_parse(const char *text, enum protocol *ret); /* case-insensitive; -EINVAL */
bool protocol_is_tls(enum protocol protocol);             /* TLS, HTTPS */
bool protocol_is_http(enum protocol protocol);            /* HTTP, HTTP2, GRPC, GRPC_WEB */
bool protocol_is_opaque(enum protocol protocol); /* TCP, MONGO, REDIS, MYSQL: never sniffed */

/* ---- what goes in: one decoded and validated ServiceEntry ---- */

struct entry_port {
	uint16_t number;
	uint16_t target_port; /* 0: not given */
	enum protocol protocol;
	const char *name; /* "" when not given */
};

struct entry_endpoint {
	const char *address; /* IP literal or host name */
	/* Port by name of the entry's port: target ports by index into `ports` of the entry, 0
	 * where the endpoint names none. n_ports of the entry long.
	 */
	const uint16_t *ports;
	uint32_t weight; /* 0: not given */
};

struct service_entry {
	const char *ns, *name;
	int64_t created; /* seconds since 1970, INT64_MAX when unknown: such entries are the
			    youngest */
	const char *const *hosts; /* lower-case A-labels, no trailing dot, "*.x" for wildcards */
	size_t n_hosts;
	const struct cidr *addresses;
	size_t n_addresses;
	const struct entry_port *ports;
	size_t n_ports;
	const struct entry_endpoint *endpoints;
	size_t n_endpoints;
	const char *const *export_to; /* empty: "*" */
	size_t n_export_to;
	enum resolution resolution;
	const char *source; /* "file:line" for messages */
};

/* ---- what comes out ---- */

struct endpoint {
	const char *host; /* name to resolve, or NULL when `addr` is meant */
	struct addr addr; /* port is always set */
	uint32_t weight;  /* 1 or more */
};

/* One host on one port of one ServiceEntry. Lives as long as its registry. */
struct service {
	const char *host;       /* "example.com" or "*.example.com" */
	const char *ns, *entry; /* the ServiceEntry it came from */
	uint16_t port;          /* the one pods connect to */
	uint16_t target_port;   /* the one the gateway connects to (of the host itself) */
	enum protocol protocol;
	enum resolution resolution;
	const struct endpoint *endpoints;
	size_t n_endpoints;
	const struct cidr *addresses; /* of the ServiceEntry */
	size_t n_addresses;
	const char *const *export_to; /* none: everybody; "." is resolved; "~" is nobody */
	size_t n_export_to;
};

struct registry;

/* Called for each conflict or oddity that the build survived. */
typedef void registry_warn_fn(void *ctx, const char *text);

/* Builds the table; copies all it keeps. `entries` in any order: where two claim the same host and
 * port, or the same address and port, the oldest (created, then namespace/name) wins in all
 * namespaces that both are exported to, and `warn` (may be NULL) hears of it, once for each. UDP
 * ports are left out, with a warning: no pod may send UDP. An entry's addresses lead to its first
 * host. -ENOMEM; -EINVAL when a host is empty or starts with a dot, or a prefix is over 128 bits;
 * -E2BIG beyond 2^30 of anything; -EIO without random numbers. One reference, for the caller.
 */
int registry_new(struct registry **ret, const struct service_entry *entries, size_t n,
		 registry_warn_fn *warn, void *ctx);

struct registry *registry_ref(struct registry *reg);
void registry_unref(struct registry *reg); /* NULL is fine; any thread */

size_t registry_n_hosts(const struct registry *reg);
size_t registry_n_services(const struct registry *reg);
uint64_t registry_generation(const struct registry *reg); /* process-wide, rising */
/* i < registry_n_services(); ordered by host, then port. */
const struct service *registry_service(const struct registry *reg, size_t i);

/* Most specific first: exact host, then the longest wildcard, among those that are registered on
 * this port and exported to `ns` ("" is no namespace: only "*" admits it). `name` is normalised
 * (sniff/host.h). *ret_reason is NONE; or, with NULL, how far the best candidate came:
 * HOST_NOT_REGISTERED, PORT_NOT_REGISTERED (a host matches, on other ports only) or NOT_EXPORTED
 * (host and port match, for other namespaces only). Any thread; no allocation; what it costs does
 * not depend on how much is registered.
 */
const struct service *registry_find_name(const struct registry *reg, struct span name,
					 uint16_t port, const char *ns, enum reason *ret_reason);

/* Longest prefix first among registered addresses on that port, exported to `ns`. The rest as
 * above; HOST_NOT_REGISTERED when no registered address holds `dst`. An IPv6 network never holds an
 * IPv4 address, not even ::/0.
 */
const struct service *registry_find_addr(const struct registry *reg, const struct addr *dst,
					 const char *ns, enum reason *ret_reason);
