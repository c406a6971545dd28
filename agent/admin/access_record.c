/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/access_log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "admin/utf8.h"

/* How many bytes of each field are shown; the rest is cut off. */
enum {
	MAX_WORD = 32, /* method, protocol, response flags, reason */
	MAX_ID = 64,
	MAX_NAME = 256,
	MAX_CLUSTER = 320,
	MAX_USER_AGENT = 512,
	MAX_PRINCIPAL = 512,
	MAX_PATH = 1024,
};

/* One byte becomes at most six (\u001b). The room beside the values is for keys and numbers. */
_Static_assert(6 * (4 * MAX_WORD + MAX_ID + 7 * MAX_NAME + MAX_CLUSTER + MAX_USER_AGENT +
		    MAX_PRINCIPAL + MAX_PATH) +
			       2048 <=
		       ACCESS_LINE_MAX,
	       "a line fits whatever its fields hold");

enum style {
	STYLE_JSON,
	STYLE_QUOTED, /* TEXT, between quotes: "..." */
	STYLE_BARE,   /* TEXT, between spaces */
};

#define IN_QUOTES 1
#define IN_BARE   2

/* What may stand as it is. */
static const uint8_t plain[256] = {
	[' '] = IN_QUOTES,
	['!'] = IN_QUOTES | IN_BARE,
	['#' ... '['] = IN_QUOTES | IN_BARE,
	[']' ... '~'] = IN_QUOTES | IN_BARE,
};

static char *put(char *p, const char *text, size_t n)
{
	memcpy(p, text, n);
	return p + n;
}

#define PUT(p, literal) put(p, literal, sizeof(literal) - 1)

static char *put_hex(char *p, uint8_t byte)
{
	static const char digits[] = "0123456789abcdef";

	*p++ = digits[byte >> 4];
	*p++ = digits[byte & 15];
	return p;
}

static char *put_u64(char *p, uint64_t n)
{
	char tmp[20], *t = tmp + sizeof(tmp);

	do {
		*--t = (char)('0' + n % 10);
		n /= 10;
	} while (n > 0);
	return put(p, t, (size_t)(tmp + sizeof(tmp) - t));
}

static char *put_padded(char *p, unsigned n, int width)
{
	for (int i = width - 1; i >= 0; i--) {
		p[i] = (char)('0' + n % 10);
		n /= 10;
	}
	return p + width;
}

/* ---- values that a peer may have written ---- */

/* JSON has short forms for three of them (RFC 8259, 7). */
static char *escape_json(char *p, uint8_t c)
{
	switch (c) {
	case '"':
	case '\\':
		*p++ = '\\';
		*p++ = (char)c;
		return p;
	case '\n':
		return PUT(p, "\\n");
	case '\t':
		return PUT(p, "\\t");
	default:
		return put_hex(PUT(p, "\\u00"), c);
	}
}

/* U+0080 to U+009F steer terminals as ESC sequences do. */
static bool is_c1_control(const uint8_t *c)
{
	return c[0] == 0xc2 && c[1] < 0xa0;
}

/* One character that does not stand as it is: `step` bytes of it, 0 when it is none. */
static char *put_special(char *p, const uint8_t *c, size_t step, enum style style)
{
	bool as_is = step > 1 && !is_c1_control(c);

	if (as_is)
		return put(p, (const char *)c, step);
	if (style == STYLE_JSON) {
		if (step == 0)
			return PUT(p, UTF8_REPLACEMENT);
		return escape_json(p, c[step - 1]); /* the number of a C1 control is its 2nd byte */
	}
	for (size_t i = 0; i == 0 || i < step; i++)
		p = put_hex(PUT(p, "\\x"), c[i]);
	return p;
}

static char *put_escaped(char *p, struct span in, size_t max, enum style style)
{
	const uint8_t mask = style == STYLE_BARE ? IN_BARE : IN_QUOTES;
	size_t end = in.len < max ? in.len : max, i = 0;

	while (i < end) {
		size_t run = i, step;

		while (run < end && plain[in.p[run]] & mask)
			run++;
		p = put(p, (const char *)in.p + i, run - i);
		i = run;
		if (i == end)
			break;
		step = utf8_step(in.p + i, in.len - i);
		if (i + step > end)
			break; /* cut between characters, not within one */
		p = put_special(p, in.p + i, step, style);
		i += step > 0 ? step : 1;
	}
	return p;
}

static struct span text_span(const char *text)
{
	return text ? span_of(text) : (struct span){0};
}

/* ---- time and addresses: by hand, since this runs once per connection ---- */

/* The Gregorian calendar in eras of 400 years that begin on 1 March of year 0. */
static char *put_date(char *p, uint64_t days_since_1970)
{
	uint64_t days = days_since_1970 + 719468;
	unsigned era = (unsigned)(days / 146097), of_era = (unsigned)(days % 146097);
	unsigned year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	unsigned of_year = of_era - (365 * year + year / 4 - year / 100);
	unsigned month = (5 * of_year + 2) / 153; /* 0 is March */
	unsigned day = of_year - (153 * month + 2) / 5 + 1;

	month = month < 10 ? month + 3 : month - 9;
	p = put_padded(p, era * 400 + year + (month <= 2), 4);
	*p++ = '-';
	p = put_padded(p, month, 2);
	*p++ = '-';
	return put_padded(p, day, 2);
}

/* RFC 3339 with milliseconds. */
static char *put_time(char *p, int64_t us)
{
	uint64_t ms = us > 0 ? (uint64_t)us / 1000 : 0;
	unsigned of_day = (unsigned)(ms / 1000 % 86400);

	p = put_date(p, ms / 86400000);
	*p++ = 'T';
	p = put_padded(p, of_day / 3600, 2);
	*p++ = ':';
	p = put_padded(p, of_day / 60 % 60, 2);
	*p++ = ':';
	p = put_padded(p, of_day % 60, 2);
	*p++ = '.';
	p = put_padded(p, (unsigned)(ms % 1000), 3);
	*p++ = 'Z';
	return p;
}

static bool addr_is_absent(const struct addr *a)
{
	static const struct addr none;

	return addr_equal(a, &none);
}

static char *put_addr(char *p, const struct addr *a)
{
	char text[ADDR_TEXT];

	if (!addr_is_v4(a)) {
		addr_print(a, text);
		return put(p, text, strlen(text));
	}
	for (int i = 12; i < 16; i++) {
		p = put_u64(p, a->ip[i]);
		*p++ = i < 15 ? '.' : ':';
	}
	return put_u64(p, a->port);
}

/* ---- JSON ---- */

static char *json_span(char *p, struct span value, size_t max)
{
	if (value.len == 0)
		return PUT(p, "null");
	*p++ = '"';
	p = put_escaped(p, value, max, STYLE_JSON);
	*p++ = '"';
	return p;
}

static char *json_text(char *p, const char *value, size_t max)
{
	return json_span(p, text_span(value), max);
}

static char *json_addr(char *p, const struct addr *a)
{
	if (addr_is_absent(a))
		return PUT(p, "null");
	*p++ = '"';
	p = put_addr(p, a);
	*p++ = '"';
	return p;
}

static const char *or_dash(const char *text)
{
	return text && *text ? text : "-";
}

static uint64_t code_of(const struct access_record *r)
{
	return r->response_code > 0 ? (uint64_t)r->response_code : 0;
}

/* Istio's fields; what it calls them and what each means is its contract with log pipelines. */
static char *json_istio(char *p, const struct access_record *r)
{
	p = PUT(p, "{\"start_time\":\"");
	p = put_time(p, r->start_time_us);
	p = json_text(PUT(p, "\",\"protocol\":"), r->protocol, MAX_WORD);
	p = json_span(PUT(p, ",\"method\":"), r->method, MAX_WORD);
	p = json_span(PUT(p, ",\"path\":"), r->path, MAX_PATH);
	p = json_span(PUT(p, ",\"authority\":"), r->authority, MAX_NAME);
	p = json_span(PUT(p, ",\"user_agent\":"), r->user_agent, MAX_USER_AGENT);
	p = json_span(PUT(p, ",\"requested_server_name\":"), r->requested_server_name, MAX_NAME);
	p = put_u64(PUT(p, ",\"response_code\":"), code_of(r));
	p = json_text(PUT(p, ",\"response_flags\":"), or_dash(r->response_flags), MAX_WORD);
	p = json_text(PUT(p, ",\"connection_termination_details\":"),
		      r->connection_termination_details, MAX_NAME);
	p = put_u64(PUT(p, ",\"bytes_received\":"), r->bytes_received);
	p = put_u64(PUT(p, ",\"bytes_sent\":"), r->bytes_sent);
	p = put_u64(PUT(p, ",\"duration\":"), r->duration_ms);
	p = json_addr(PUT(p, ",\"downstream_remote_address\":"), &r->downstream_remote_address);
	p = json_addr(PUT(p, ",\"downstream_local_address\":"), &r->downstream_local_address);
	p = json_addr(PUT(p, ",\"upstream_host\":"), &r->upstream_host);
	p = json_addr(PUT(p, ",\"upstream_local_address\":"), &r->upstream_local_address);
	p = json_text(PUT(p, ",\"upstream_cluster\":"), r->upstream_cluster, MAX_CLUSTER);
	p = json_text(PUT(p, ",\"route_name\":"), r->route_name, MAX_NAME);
	return json_text(PUT(p, ",\"request_id\":"), r->request_id, MAX_ID);
}

static char *json_ours(char *p, const struct access_record *r)
{
	p = r->reporter == REPORTER_SOURCE ? PUT(p, ",\"reporter\":\"source\"")
					   : PUT(p, ",\"reporter\":\"destination\"");
	p = r->allow ? PUT(p, ",\"decision\":\"ALLOW\"") : PUT(p, ",\"decision\":\"DENY\"");
	p = json_text(PUT(p, ",\"reason\":"), reason_str(r->reason), MAX_WORD);
	p = json_text(PUT(p, ",\"source_namespace\":"), r->source_namespace, MAX_NAME);
	p = json_text(PUT(p, ",\"source_pod\":"), r->source_pod, MAX_NAME);
	p = json_text(PUT(p, ",\"source_principal\":"), r->source_principal, MAX_PRINCIPAL);
	p = json_text(PUT(p, ",\"gateway\":"), r->gateway, MAX_NAME);
	return PUT(p, "}\n");
}

/* ---- TEXT ---- */

static char *bare_span(char *p, struct span value, size_t max)
{
	if (value.len == 0)
		value = span_of("-");
	return put_escaped(p, value, max, STYLE_BARE);
}

static char *bare_text(char *p, const char *value, size_t max)
{
	return bare_span(p, text_span(value), max);
}

static char *quoted_span(char *p, struct span value, size_t max)
{
	if (value.len == 0)
		value = span_of("-");
	*p++ = '"';
	p = put_escaped(p, value, max, STYLE_QUOTED);
	*p++ = '"';
	return p;
}

static char *bare_addr(char *p, const struct addr *a)
{
	return addr_is_absent(a) ? PUT(p, "-") : put_addr(p, a);
}

/* Up to %X-ENVOY-UPSTREAM-SERVICE-TIME%, which only an Envoy behind us could tell. */
static char *text_head(char *p, const struct access_record *r)
{
	*p++ = '[';
	p = put_time(p, r->start_time_us);
	p = bare_span(PUT(p, "] \""), r->method, MAX_WORD);
	p = bare_span(PUT(p, " "), r->path, MAX_PATH);
	p = bare_text(PUT(p, " "), r->protocol, MAX_WORD);
	p = put_u64(PUT(p, "\" "), code_of(r));
	p = bare_text(PUT(p, " "), r->response_flags, MAX_WORD);
	p = bare_text(PUT(p, " "), reason_str(r->reason), MAX_WORD);
	p = bare_text(PUT(p, " "), r->connection_termination_details, MAX_NAME);
	p = put_u64(PUT(p, " \"-\" "), r->bytes_received);
	p = put_u64(PUT(p, " "), r->bytes_sent);
	p = put_u64(PUT(p, " "), r->duration_ms);
	return PUT(p, " -");
}

static char *text_tail(char *p, const struct access_record *r)
{
	p = quoted_span(PUT(p, " \"-\" "), r->user_agent, MAX_USER_AGENT);
	p = quoted_span(PUT(p, " "), text_span(r->request_id), MAX_ID);
	p = quoted_span(PUT(p, " "), r->authority, MAX_NAME);
	p = bare_addr(PUT(p, " \""), &r->upstream_host);
	p = bare_text(PUT(p, "\" "), r->upstream_cluster, MAX_CLUSTER);
	p = bare_addr(PUT(p, " "), &r->upstream_local_address);
	p = bare_addr(PUT(p, " "), &r->downstream_local_address);
	p = bare_addr(PUT(p, " "), &r->downstream_remote_address);
	p = bare_span(PUT(p, " "), r->requested_server_name, MAX_NAME);
	p = bare_text(PUT(p, " "), r->route_name, MAX_NAME);
	return PUT(p, "\n");
}

size_t access_record_format(const struct access_record *record, bool json,
			    char buf[static ACCESS_LINE_MAX])
{
	char *p = buf;

	if (json)
		p = json_ours(json_istio(p, record), record);
	else
		p = text_tail(text_head(p, record), record);
	return (size_t)(p - buf);
}

int access_record_print(const struct access_record *record, bool json, char **ret, size_t *ret_len)
{
	char *line = malloc(ACCESS_LINE_MAX + 1);
	size_t n;

	if (!line)
		return -ENOMEM;
	n = access_record_format(record, json, line);
	line[n] = '\0';
	*ret = line;
	*ret_len = n;
	return 0;
}
