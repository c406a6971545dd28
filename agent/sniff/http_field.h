/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What requests and responses share: lines, header fields, lists, and the fields that say how long
 * a message is (RFC 9112 2.2, 5, 6). Pure. Functions that return text return NULL when all is well,
 * else what is wrong (static).
 */
#include "base/span.h"
#include "sniff/tls_hello.h" /* enum sniff */

enum {
	HTTP_TOKEN = 1,  /* tchar (RFC 9110 5.6.2) */
	HTTP_TEXT = 2,   /* in a field value: HTAB, SP, visible, 0x80 and up */
	HTTP_TARGET = 4, /* in a request target: visible ASCII but '#' */
};
extern const uint8_t http_class[256];

/* How many bytes at the front of `in` are of `class`. */
size_t http_span(struct span in, uint8_t class);

struct http_field {
	struct span name, value; /* value without the white space around it */
};

/* Is this the field `name`, which is written in lower case? Inline: most names differ in length. */
static inline bool http_is(struct span name, const char *text)
{
	return name.len == strlen(text) && span_equal_nocase(name, text);
}

/* Cuts a line and its CRLF off `in`. FOUND, NEED_MORE, or BAD: a bare LF. */
enum sniff http_line_cut(struct span *in, struct span *ret_line);

const char *http_field_parse(struct span line, struct http_field *ret);

/* Cuts the next element that is not empty off a comma-separated list. False at the end. */
bool http_list_next(struct span *list, struct span *ret);

/* Digits only, all of `text`, at most INT64_MAX. */
bool http_number(struct span text, uint64_t *ret);

enum http_coding {
	HTTP_CODING_NONE, /* no Transfer-Encoding */
	HTTP_CODING_CHUNKED,
	HTTP_CODING_OTHER, /* one in which "chunked" does not occur */
};

/* What the fields said so far. All zero is the start. */
struct http_framing {
	bool has_length;
	uint64_t length;
	enum http_coding coding;
	bool close, keep_alive, upgrade; /* options of Connection */
};

/* Content-Length, Transfer-Encoding and Connection; any other field is passed over. */
const char *http_framing_add(struct http_framing *f, const struct http_field *field);

/* After the last field: what no single field could tell. */
const char *http_framing_check(const struct http_framing *f, int minor);

/* HTTP/1.1 stays open unless told otherwise, HTTP/1.0 closes. */
bool http_framing_keep_alive(const struct http_framing *f, int minor);
