/* SPDX-License-Identifier: Apache-2.0 */
#include "sniff/http_head.h"

#include "sniff/host.h"
#include "sniff/http_field.h"

#define EMPTY_LINES_MAX 4
#define METHOD_MAX      32
#define VERSION_LEN     8 /* HTTP/1.1 */

/* What is known of a request beyond what the caller gets, while its head is read. */
struct reading {
	struct http_request *ret;
	struct http_framing framing;
	bool has_host;
	struct span host; /* without port; brackets of a literal included */
	bool asks_websocket;
};

static enum sniff refuse(struct http_request *ret, int status, const char *why)
{
	ret->status = status;
	ret->why = why;
	return SNIFF_BAD;
}

/* ---- the request line ---- */

static enum sniff skip_empty_lines(struct span *in, struct http_request *ret)
{
	struct span line;

	for (int n = 0; in->len > 0; n++) {
		if (in->p[0] != '\r' && in->p[0] != '\n')
			return SNIFF_FOUND;
		if (n == EMPTY_LINES_MAX)
			return refuse(ret, 400, "too many empty lines");
		if (in->p[0] == '\n' || (in->len > 1 && in->p[1] != '\n'))
			return refuse(ret, 400, "bare CR or LF");
		if (!span_cut(in, 2, &line))
			return SNIFF_NEED_MORE;
	}
	return SNIFF_NEED_MORE;
}

/* For lines that are no good request line: was one meant? If so no address may excuse it. */
static bool looks_like_http(struct span line)
{
	static const char mark[] = " HTTP/";
	struct span rest = line, cut;

	for (size_t i = 0; i + sizeof(mark) - 1 <= line.len; i++) {
		if ((line.p[i] == ' ' || line.p[i] == '\t') &&
		    span_equal_nocase((struct span){line.p + i + 1, sizeof(mark) - 2}, mark + 1))
			return true;
	}
	/* HTTP/0.9: a second word that is a target. */
	span_cut(&rest, http_span(rest, HTTP_TOKEN), &cut);
	if (rest.len == 0 || http_class[rest.p[0]] & HTTP_TARGET)
		return false;
	while (rest.len > 0 && (rest.p[0] == ' ' || rest.p[0] == '\t'))
		span_cut(&rest, 1, &cut);
	if (rest.len > 0 && rest.p[0] == '/')
		return true;
	return span_cut(&rest, 5, &cut) && span_equal_nocase(cut, "http:");
}

/* Cuts the first line. NOT as soon as it cannot be a request's. */
static enum sniff first_line(struct span *in, struct span *ret_line, struct http_request *ret)
{
	size_t n = http_span(*in, HTTP_TOKEN);
	struct span seen, end;

	if (n == 0 || n > METHOD_MAX)
		return SNIFF_NOT;
	n = http_span(*in, HTTP_TEXT);
	if (n == in->len || (in->p[n] == '\r' && n + 1 == in->len))
		return SNIFF_NEED_MORE;

	span_cut(in, n, &seen);
	if (span_cut(in, 2, &end) && end.p[0] == '\r' && end.p[1] == '\n') {
		*ret_line = seen;
		return SNIFF_FOUND;
	}
	if (looks_like_http(seen))
		return refuse(ret, 400, "control character or bare LF in the request line");
	return SNIFF_NOT;
}

/* Cuts a word of `class` and the one space behind it. */
static bool cut_word(struct span *in, uint8_t class, struct span *ret)
{
	struct span sp;

	return span_cut(in, http_span(*in, class), ret) && ret->len > 0 && span_cut(in, 1, &sp) &&
	       sp.p[0] == ' ';
}

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

static bool is_version(struct span v)
{
	return v.len == VERSION_LEN && memcmp(v.p, "HTTP/", 5) == 0 && is_digit(v.p[5]) &&
	       v.p[6] == '.' && is_digit(v.p[7]);
}

static enum sniff check_version(struct span version, struct http_request *ret)
{
	if (version.p[5] == '2' && span_equal(ret->method, span_of("PRI")))
		return refuse(ret, 400, "HTTP/2");
	if (version.p[5] != '1' || version.p[7] > '1')
		return refuse(ret, 505, "HTTP version other than 1.0 and 1.1");
	ret->minor = version.p[7] - '0';
	return SNIFF_FOUND;
}

static enum sniff request_line(struct span *in, struct http_request *ret)
{
	struct span line, rest;
	enum sniff r;

	r = skip_empty_lines(in, ret);
	if (r != SNIFF_FOUND)
		return r;
	r = first_line(in, &line, ret);
	if (r != SNIFF_FOUND)
		return r;

	rest = line;
	if (!cut_word(&rest, HTTP_TOKEN, &ret->method) ||
	    !cut_word(&rest, HTTP_TARGET, &ret->target) || !is_version(rest))
		return looks_like_http(line) ? refuse(ret, 400, "malformed request line")
					     : SNIFF_NOT;
	ret->is_head = span_equal(ret->method, span_of("HEAD"));
	ret->is_connect = span_equal_nocase(ret->method, "CONNECT");
	return check_version(rest, ret);
}

/* ---- Host, and the target that must agree with it ---- */

/* Splits "name", "name:port" or "[v6]:port". *ret_port is 0 when there is none. */
static const char *authority_parse(struct span text, struct span *ret_host, uint16_t *ret_port)
{
	const uint8_t *colon;
	struct span rest = text, host, sep;
	uint64_t port = 0;

	if (text.len > 0 && text.p[0] == '[') {
		const uint8_t *end = memchr(text.p, ']', text.len);

		if (!end)
			return "malformed Host";
		span_cut(&rest, (size_t)(end - text.p) + 1, &host);
	} else {
		colon = text.len > 0 ? memchr(text.p, ':', text.len) : NULL;
		span_cut(&rest, colon ? (size_t)(colon - text.p) : text.len, &host);
	}
	if (span_cut(&rest, 1, &sep) && sep.p[0] != ':')
		return "malformed Host";
	if (rest.len > 0 &&
	    (rest.len > 5 || !http_number(rest, &port) || port == 0 || port > UINT16_MAX))
		return "malformed port in Host";
	*ret_host = host;
	*ret_port = (uint16_t)port;
	return NULL;
}

static const char *add_host(struct reading *q, struct span value)
{
	struct http_request *ret = q->ret;
	struct span name;
	const char *why;

	if (q->has_host)
		return "Host twice";
	q->has_host = true;
	ret->raw_host = value;
	why = authority_parse(value, &q->host, &ret->port);
	if (why)
		return why;
	switch (host_normalise(q->host, ret->host, &name)) {
	case HOST_NAME:
		return NULL;
	case HOST_LITERAL:
		ret->host[0] = '\0';
		return NULL;
	case HOST_BAD:
		break;
	}
	ret->host[0] = '\0';
	return host_bad_why(q->host);
}

/* The authority of an absolute form. False for any other form. */
static bool absolute_authority(struct span target, struct span *ret, uint16_t *ret_default_port)
{
	static const struct {
		const char *text;
		uint16_t port;
	} schemes[] = {{"http://", 80}, {"https://", 443}};

	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		struct span rest = target, scheme;
		size_t n = 0;

		if (!span_cut(&rest, strlen(schemes[i].text), &scheme) ||
		    !span_equal_nocase(scheme, schemes[i].text))
			continue;
		while (n < rest.len && rest.p[n] != '/' && rest.p[n] != '?')
			n++;
		span_cut(&rest, n, ret);
		*ret_default_port = schemes[i].port;
		return true;
	}
	return false;
}

/* The host alone: the same name however it is written, or the very same literal. */
static bool same_host(struct span a, struct span b)
{
	char abuf[HOST_MAX + 1], bbuf[HOST_MAX + 1];
	struct span aname, bname;

	if (host_normalise(a, abuf, &aname) != HOST_NAME ||
	    host_normalise(b, bbuf, &bname) != HOST_NAME)
		return span_equal(a, b);
	return span_equal(aname, bname);
}

static const char *check_target(const struct reading *q)
{
	const struct http_request *ret = q->ret;
	struct span authority, host;
	uint16_t port, default_port;

	if (ret->target.p[0] == '/')
		return NULL;
	if (span_equal(ret->target, span_of("*")))
		return span_equal(ret->method, span_of("OPTIONS")) ? NULL : "malformed target";
	if (!absolute_authority(ret->target, &authority, &default_port))
		return "malformed target";
	if (!q->has_host)
		return "absolute form without Host";
	if (authority_parse(authority, &host, &port))
		return "malformed target";
	if (!same_host(host, q->host) ||
	    (port ? port : default_port) != (ret->port ? ret->port : default_port))
		return "absolute form disagrees with Host";
	return NULL;
}

/* ---- the other fields ---- */

static void add_upgrade(struct reading *q, struct span value)
{
	struct span protocol;

	while (http_list_next(&value, &protocol)) {
		if (http_is(protocol, "websocket"))
			q->asks_websocket = true;
		else if (http_is(protocol, "h2c"))
			q->ret->upgrade_h2c = true;
	}
}

static const char *request_field(struct reading *q, const struct http_field *field)
{
	if (http_is(field->name, "host"))
		return add_host(q, field->value);
	if (http_is(field->name, "user-agent"))
		q->ret->user_agent = field->value;
	else if (http_is(field->name, "upgrade"))
		add_upgrade(q, field->value);
	else if (http_is(field->name, "http2-settings"))
		q->ret->upgrade_h2c = true;
	else if (http_is(field->name, "expect") && http_is(field->value, "100-continue"))
		q->ret->expect_continue = true;
	return http_framing_add(&q->framing, field);
}

/* The head is complete: what only all of its fields together can tell. */
static enum sniff request_finish(struct reading *q)
{
	struct http_request *ret = q->ret;
	const char *why = http_framing_check(&q->framing, ret->minor);

	if (ret->is_connect)
		return refuse(ret, 403, "CONNECT");
	if (!why)
		why = check_target(q);
	if (!why && q->framing.coding == HTTP_CODING_OTHER)
		why = "Transfer-Encoding other than chunked";
	if (!why && !q->has_host && ret->minor > 0)
		why = "no Host";
	if (why)
		return refuse(ret, 400, why);

	if (q->framing.coding == HTTP_CODING_CHUNKED) {
		ret->body = HTTP_BODY_CHUNKED;
	} else if (q->framing.length > 0) {
		ret->body = HTTP_BODY_LENGTH;
		ret->content_length = q->framing.length;
	}
	ret->keep_alive = http_framing_keep_alive(&q->framing, ret->minor);
	ret->upgrade_websocket = q->asks_websocket && q->framing.upgrade && ret->minor == 1 &&
				 ret->body == HTTP_BODY_NONE &&
				 span_equal(ret->method, span_of("GET"));
	return q->has_host ? SNIFF_FOUND : SNIFF_NO_NAME;
}

static enum sniff request_read(struct span *in, struct http_request *ret)
{
	struct reading q = {.ret = ret};
	enum sniff r;

	r = request_line(in, ret);
	if (r != SNIFF_FOUND)
		return r;
	for (;;) {
		struct http_field field;
		struct span line;
		const char *why;

		r = http_line_cut(in, &line);
		if (r == SNIFF_BAD)
			return refuse(ret, 400, "bare LF");
		if (r != SNIFF_FOUND)
			return r;
		if (line.len == 0)
			return request_finish(&q);
		why = http_field_parse(line, &field);
		if (!why)
			why = request_field(&q, &field);
		if (why)
			return refuse(ret, 400, why);
	}
}

enum sniff http_request_read(struct span in, size_t max, struct http_request *ret)
{
	struct span rest = {in.p, in.len < max ? in.len : max};
	size_t shown = rest.len;
	enum sniff r;

	*ret = (struct http_request){0};
	r = request_read(&rest, ret);
	if (r == SNIFF_NEED_MORE && in.len >= max)
		return refuse(ret, 431, "head longer than allowed");
	if (r == SNIFF_FOUND || r == SNIFF_NO_NAME)
		ret->head_len = shown - rest.len;
	return r;
}

/* ---- responses ---- */

static enum sniff status_line(struct span *in, struct http_response *ret)
{
	static const char start[] = "HTTP/1.";
	size_t n = sizeof(start) - 1;
	struct span line, version, sp, code;
	uint64_t status;
	enum sniff r;

	if (in->len > 0 && memcmp(in->p, start, in->len < n ? in->len : n) != 0)
		return SNIFF_BAD;
	r = http_line_cut(in, &line);
	if (r != SNIFF_FOUND)
		return r;
	if (!span_cut(&line, VERSION_LEN, &version) || version.p[7] < '0' || version.p[7] > '1')
		return SNIFF_BAD;
	if (!span_cut(&line, 1, &sp) || sp.p[0] != ' ' || !span_cut(&line, 3, &code) ||
	    !http_number(code, &status) || status < 100)
		return SNIFF_BAD;
	/* The space before an empty reason is often left out. */
	if ((line.len > 0 && line.p[0] != ' ') || http_span(line, HTTP_TEXT) != line.len)
		return SNIFF_BAD;
	ret->minor = version.p[7] - '0';
	ret->status = (int)status;
	return SNIFF_FOUND;
}

/* RFC 9112 6.3, and refusing where two readers could differ. */
static const char *response_body(const struct http_framing *f, bool request_is_head,
				 struct http_response *ret)
{
	bool never = ret->status < 200 || ret->status == 204;

	if (never && (f->coding != HTTP_CODING_NONE || f->length > 0))
		return "body announced where none can be";
	ret->keep_alive = http_framing_keep_alive(f, ret->minor);
	if (never || ret->status == 304 || request_is_head)
		return NULL;
	if (f->coding == HTTP_CODING_CHUNKED) {
		ret->body = HTTP_BODY_CHUNKED;
	} else if (f->has_length) {
		ret->body = f->length > 0 ? HTTP_BODY_LENGTH : HTTP_BODY_NONE;
		ret->content_length = f->length;
	} else {
		ret->body = HTTP_BODY_UNTIL_CLOSE;
		ret->keep_alive = false;
	}
	return NULL;
}

static enum sniff response_read(struct span *in, bool request_is_head, struct http_response *ret)
{
	struct http_framing framing = {0};
	enum sniff r;

	r = status_line(in, ret);
	if (r == SNIFF_BAD)
		ret->why = "malformed status line";
	if (r != SNIFF_FOUND)
		return r;
	for (;;) {
		struct http_field field;
		struct span line;

		r = http_line_cut(in, &line);
		if (r == SNIFF_BAD)
			ret->why = "bare LF";
		if (r != SNIFF_FOUND)
			return r;
		if (line.len == 0)
			break;
		ret->why = http_field_parse(line, &field);
		if (!ret->why)
			ret->why = http_framing_add(&framing, &field);
		if (ret->why)
			return SNIFF_BAD;
	}
	ret->why = http_framing_check(&framing, ret->minor);
	if (!ret->why)
		ret->why = response_body(&framing, request_is_head, ret);
	return ret->why ? SNIFF_BAD : SNIFF_FOUND;
}

enum sniff http_response_read(struct span in, size_t max, bool request_is_head,
			      struct http_response *ret)
{
	struct span rest = {in.p, in.len < max ? in.len : max};
	size_t shown = rest.len;
	enum sniff r;

	*ret = (struct http_response){0};
	r = response_read(&rest, request_is_head, ret);
	if (r == SNIFF_NEED_MORE && in.len >= max) {
		ret->why = "head longer than allowed";
		return SNIFF_BAD;
	}
	if (r == SNIFF_FOUND)
		ret->head_len = shown - rest.len;
	return r;
}
