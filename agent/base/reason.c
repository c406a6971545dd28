/* SPDX-License-Identifier: Apache-2.0 */
#include "base/reason.h"

static const char *const words[] = {
	[REASON_NONE] = "",
	[REASON_HOST_NOT_REGISTERED] = "host_not_registered",
	[REASON_PORT_NOT_REGISTERED] = "port_not_registered",
	[REASON_NOT_EXPORTED] = "not_exported",
	[REASON_NO_SERVER_NAME] = "no_server_name",
	[REASON_MALFORMED_HELLO] = "malformed_hello",
	[REASON_HELLO_TIMEOUT] = "hello_timeout",
	[REASON_PROTOCOL_MISMATCH] = "protocol_mismatch",
	[REASON_NO_ROUTE] = "no_route",
	[REASON_POLICY_DENIED] = "policy_denied",
	[REASON_GATEWAY_UNAVAILABLE] = "gateway_unavailable",
	[REASON_TUNNEL_REFUSED] = "tunnel_refused",
	[REASON_RESOLVE_FAILED] = "resolve_failed",
	[REASON_PRIVATE_DESTINATION] = "private_destination",
	[REASON_UPSTREAM_FAILED] = "upstream_failed",
	[REASON_LIMIT_EXCEEDED] = "limit_exceeded",
	[REASON_DEREGISTERED] = "deregistered",
	[REASON_NOT_REGISTERED] = "not_registered",
	[REASON_BYPASS_ATTEMPT] = "bypass_attempt",
	[REASON_PROTOCOL_REFUSED] = "protocol_refused",
};
_Static_assert(sizeof(words) / sizeof(words[0]) == REASON_N_, "every reason has a word");

const char *reason_str(enum reason reason)
{
	return words[reason];
}
