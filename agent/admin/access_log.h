/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The access log: one line per connection (per request for HTTP), with Istio's field names. Lines
 * are formatted by the caller's thread and written by a thread of the log's own, so that a slow
 * disk or pipe holds no connection up.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/reason.h"
#include "base/span.h"

enum reporter {
	REPORTER_SOURCE,      /* node agent */
	REPORTER_DESTINATION, /* gateway */
};

/* Everything is borrowed for the call. Strings may be NULL or "" (printed as null in JSON, "-" in
 * TEXT; response_flags as "-" in both, as Envoy does), and spans may hold anything a peer sent.
 * Addresses of all zero are left out the same way.
 */
struct access_record {
	int64_t start_time_us; /* CLOCK_REALTIME, microseconds since 1970 */
	uint64_t duration_ms;
	const char *protocol; /* "TCP", "TLS", "HTTP/1.1", ... */
	struct span method, path, authority, user_agent;
	struct span requested_server_name;
	int response_code;          /* 0 outside HTTP */
	const char *response_flags; /* Envoy's: "-" "UH" "UF" "URX" "NR" "DC" "LR" ... */
	const char *connection_termination_details;
	uint64_t bytes_received, bytes_sent; /* from, to the downstream */
	struct addr downstream_remote_address, downstream_local_address;
	struct addr upstream_host, upstream_local_address;
	const char *upstream_cluster; /* "outbound|443||example.com" */
	const char *route_name;
	const char *request_id; /* UUID text */
	enum reporter reporter;
	bool allow;
	enum reason reason; /* in TEXT: where Envoy has %RESPONSE_CODE_DETAILS% */
	const char *source_namespace, *source_pod, *source_principal, *gateway;
};

/* The longest line, whatever is in the record: each field is cut to a bound of its own. */
#define ACCESS_LINE_MAX 32768

struct access_log;

/* `json`: else Istio's TEXT format. -errno when the file cannot be opened. The thread that writes
 * logs when it cannot, once, and when it can again.
 */
int access_log_open(struct access_log **ret, const char *file, bool json);

/* Any thread. Never blocks: when more than 16 MiB wait for the disk, lines are dropped and counted.
 * A line is in the file about 10 ms later.
 */
void access_log_write(struct access_log *log, const struct access_record *record);
void access_log_reopen(struct access_log *log); /* after rotation; any thread, does not wait */
uint64_t access_log_dropped(const struct access_log *log);

/* Writes what is waiting, for at most 2 s, and closes. NULL is fine. */
void access_log_close(struct access_log *log);

/* Pure: writes the line, '\n' included and no NUL, to `buf`. Returns its length. */
size_t access_record_format(const struct access_record *record, bool json,
			    char buf[static ACCESS_LINE_MAX]);

/* The same, malloc'ed and with a NUL. For tests. -ENOMEM. */
int access_record_print(const struct access_record *record, bool json, char **ret, size_t *ret_len);
