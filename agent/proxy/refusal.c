/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/refusal.h"

#include <stdio.h>
#include <string.h>

/* RFC 8446 6 */
enum {
	ALERT_RECORD = 21,
	ALERT_FATAL = 2,
	ALERT_DECODE_ERROR = 50,
	ALERT_INTERNAL_ERROR = 80,
	ALERT_UNRECOGNIZED_NAME = 112,
};

static const struct {
	int status;
	uint8_t alert;
	const char *flags; /* Envoy's RESPONSE_FLAGS */
} looks[REASON_N_] = {
	[REASON_NONE] = {503, ALERT_INTERNAL_ERROR, "-"},
	[REASON_HOST_NOT_REGISTERED] = {403, ALERT_UNRECOGNIZED_NAME, "NR"},
	[REASON_PORT_NOT_REGISTERED] = {403, ALERT_UNRECOGNIZED_NAME, "NR"},
	[REASON_NOT_EXPORTED] = {403, ALERT_UNRECOGNIZED_NAME, "NR"},
	[REASON_NO_SERVER_NAME] = {403, ALERT_UNRECOGNIZED_NAME, "NR"},
	[REASON_MALFORMED_HELLO] = {400, ALERT_DECODE_ERROR, "DPE"},
	[REASON_HELLO_TIMEOUT] = {408, ALERT_DECODE_ERROR, "DT"},
	[REASON_PROTOCOL_MISMATCH] = {403, ALERT_UNRECOGNIZED_NAME, "DPE"},
	[REASON_NO_ROUTE] = {404, ALERT_UNRECOGNIZED_NAME, "NR"},
	[REASON_POLICY_DENIED] = {403, ALERT_UNRECOGNIZED_NAME, "UAEX"},
	[REASON_GATEWAY_UNAVAILABLE] = {503, ALERT_INTERNAL_ERROR, "UH"},
	[REASON_TUNNEL_REFUSED] = {503, ALERT_INTERNAL_ERROR, "UF"},
	[REASON_RESOLVE_FAILED] = {503, ALERT_INTERNAL_ERROR, "DF"},
	[REASON_PRIVATE_DESTINATION] = {403, ALERT_UNRECOGNIZED_NAME, "UAEX"},
	[REASON_UPSTREAM_FAILED] = {503, ALERT_INTERNAL_ERROR, "UF"},
	[REASON_LIMIT_EXCEEDED] = {503, ALERT_INTERNAL_ERROR, "UO"},
	[REASON_DEREGISTERED] = {403, ALERT_UNRECOGNIZED_NAME, "NR"},
	[REASON_NOT_REGISTERED] = {403, ALERT_UNRECOGNIZED_NAME, "-"},
	[REASON_BYPASS_ATTEMPT] = {403, ALERT_UNRECOGNIZED_NAME, "UAEX"},
	[REASON_PROTOCOL_REFUSED] = {403, ALERT_UNRECOGNIZED_NAME, "UAEX"},
};

int http_status_of(enum reason reason)
{
	return looks[reason].status;
}

const char *response_flags_of(enum reason reason)
{
	return looks[reason].flags;
}

static const char *status_text(int status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 403:
		return "Forbidden";
	case 404:
		return "Not Found";
	case 408:
		return "Request Timeout";
	case 421:
		return "Misdirected Request";
	case 431:
		return "Request Header Fields Too Large";
	case 505:
		return "HTTP Version Not Supported";
	default:
		return "Service Unavailable";
	}
}

static size_t http(enum reason reason, int status, const char *host, uint8_t *buf)
{
	char body[512];
	int n, len;

	n = snprintf(body, sizeof(body), "sluice: %s%.253s%s refused: %s\n",
		     *host ? "host '" : "request", host, *host ? "'" : "", reason_str(reason));
	len = snprintf((char *)buf, REFUSAL_MAX,
		       "HTTP/1.1 %d %s\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n"
		       "connection: close\r\n\r\n%s",
		       status, status_text(status), n, body);
	return (size_t)len;
}

size_t refusal_write(enum spoken spoken, enum reason reason, int status, const char *host,
		     uint8_t buf[static REFUSAL_MAX])
{
	const uint8_t alert[] = {ALERT_RECORD, 3, 3, 0, 2, ALERT_FATAL, looks[reason].alert};

	switch (spoken) {
	case SPOKEN_TLS:
		memcpy(buf, alert, sizeof(alert));
		return sizeof(alert);
	case SPOKEN_HTTP:
		return http(reason, status ?: looks[reason].status, host, buf);
	case SPOKEN_NOTHING:
	case SPOKEN_OTHER:
		return 0;
	}
	return 0;
}
