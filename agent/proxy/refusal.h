/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a refused client gets to see. Pure. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/reason.h"
#include "registry/decide.h"

#define REFUSAL_MAX 1024

/* TLS: a fatal alert (RFC 8446 6.2), unrecognized_name for what policy refuses. HTTP: a whole
 * response with a plain body that names host and reason; `status` 0 takes http_status_of(reason).
 * Others: nothing, which means a reset. `host` may be "" and is normalised. Returns the number of
 * bytes in buf.
 */
size_t refusal_write(enum spoken spoken, enum reason reason, int status, const char *host,
		     uint8_t buf[static REFUSAL_MAX]);

/* 403 for policy, 404 no route, 408, 400, 503 for trouble on the way. Never 502. */
int http_status_of(enum reason reason);

/* Envoy's response flag for the access log, "-" for none. */
const char *response_flags_of(enum reason reason);
