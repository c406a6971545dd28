/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Why a connection or request was refused or ended; the words are a contract (log field `reason`,
 * metric label, sluicectl).
 */
enum reason {
	REASON_NONE, /* nothing to complain of; prints as "" */
	REASON_HOST_NOT_REGISTERED,
	REASON_PORT_NOT_REGISTERED,
	REASON_NOT_EXPORTED,
	REASON_NO_SERVER_NAME,
	REASON_MALFORMED_HELLO,
	REASON_HELLO_TIMEOUT,
	REASON_PROTOCOL_MISMATCH,
	REASON_NO_ROUTE,
	REASON_POLICY_DENIED,
	REASON_GATEWAY_UNAVAILABLE,
	REASON_TUNNEL_REFUSED,
	REASON_RESOLVE_FAILED,
	REASON_PRIVATE_DESTINATION,
	REASON_UPSTREAM_FAILED,
	REASON_LIMIT_EXCEEDED,
	REASON_DEREGISTERED,
	REASON_NOT_REGISTERED,   /* ALLOW_ANY only: allowed, though nobody registered it */
	REASON_BYPASS_ATTEMPT,   /* the guard stopped what had gone around the redirection */
	REASON_PROTOCOL_REFUSED, /* UDP, QUIC, ICMP, ...: only TCP leaves */
	REASON_N_,
};

/* Static text, never NULL. */
const char *reason_str(enum reason reason);
