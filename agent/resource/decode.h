/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Text to validated ServiceEntries. Pure: no file, no log. A text is good only when report_result()
 * says so; its entries must not be used otherwise.
 */
#include "base/span.h"
#include "registry/registry.h"
#include "resource/arena.h"
#include "resource/report.h"

struct tree;

enum text_format {
	TEXT_YAML,
	TEXT_JSON,
};

/* Kinds of Istio that we know and do not use. */
enum skipped {
	SKIPPED_GATEWAY,
	SKIPPED_VIRTUAL_SERVICE,
	SKIPPED_DESTINATION_RULE,
	SKIPPED_SIDECAR,
	SKIPPED_ENVOY_FILTER,
	SKIPPED_WORKLOAD_ENTRY,
	SKIPPED_WORKLOAD_GROUP,
	SKIPPED_PROXY_CONFIG,
	SKIPPED_AUTHORIZATION_POLICY,
	SKIPPED_PEER_AUTHENTICATION,
	SKIPPED_REQUEST_AUTHENTICATION,
	SKIPPED_TELEMETRY,
	SKIPPED_WASM_PLUGIN,
	SKIPPED_N_,
};

const char *skipped_str(enum skipped kind); /* "Gateway" */

/* All zero is empty. What `entries` points to lives in `keep`. */
struct decoded {
	struct arena keep;
	struct service_entry *entries;
	size_t n, room;
	struct report report;
	unsigned skipped[SKIPPED_N_]; /* first line of each kind read past; 0: none */
};

/* Adds what `text` holds to `ret`. The first line of `text` is number `first_line` of `file`. */
void decode_text(struct decoded *ret, const char *file, struct span text, enum text_format format,
		 unsigned first_line);

/* The same of one document that was made elsewhere, which may go away afterwards. */
void decode_tree(struct decoded *ret, const char *file, const struct tree *root);

void decoded_done(struct decoded *decoded);
