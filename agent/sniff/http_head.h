/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* HTTP/1 message heads (RFC 9112) and the framing of their bodies. Pure: no allocation, no logging.
 * Nothing is rewritten: a relay forwards the bytes that were read.
 */
#include "base/span.h"
#include "sniff/tls_hello.h" /* enum sniff */

enum http_body {
	HTTP_BODY_NONE,
	HTTP_BODY_LENGTH,
	HTTP_BODY_CHUNKED,
	HTTP_BODY_UNTIL_CLOSE, /* responses only */
};

struct http_request {
	struct span method, target; /* point into the input */
	char host[254];             /* normalised, no port; "" when the Host is an IP literal */
	struct span raw_host;       /* as sent, port included; empty when there is none */
	uint16_t port;              /* of the Host; 0 when it names none */
	struct span user_agent;
	int minor; /* HTTP/1.minor */
	enum http_body body;
	uint64_t content_length; /* for HTTP_BODY_LENGTH: 1 to INT64_MAX (0 is HTTP_BODY_NONE) */
	bool keep_alive;         /* the client means to go on after this request */
	bool upgrade_websocket;  /* GET, HTTP/1.1, no body, and Connection: upgrade */
	bool upgrade_h2c;        /* callers refuse it */
	bool expect_continue;
	bool is_head, is_connect;
	size_t head_len; /* leading empty lines and the final empty line included */
	int status;      /* on BAD: the answer to give, 400, 403, 431 or 505 */
	const char *why; /* static text on BAD, else NULL */
};

struct http_response {
	int status; /* 100 to 999 */
	int minor;
	enum http_body body;
	uint64_t content_length;
	bool keep_alive;
	size_t head_len;
	const char *why;
};

/* `in` is all that was read of this message. FOUND: a head with a Host (name or literal). NO_NAME:
 * a good HTTP/1.0 head without Host. NOT: the first bytes cannot be a method (a token of up to 32
 * bytes), or the first line is complete and is no request's. BAD: missing or double Host, obs-fold,
 * space before colon, bare CR or LF, Content-Length twice or with Transfer-Encoding, a coding other
 * than chunked, an absolute form that disagrees with Host or comes without, CONNECT (403), the
 * HTTP/2 preface, HTTP/0.9, other versions (505), a head longer than `max` (431) ...
 * Leniencies: up to 4 empty lines in front (RFC 9112 2.2), any method, 0x80 and up in values. Once
 * it says something else than NEED_MORE, more bytes do not change it. On BAD what was read so far
 * (method, target, raw_host) is there for the log; on NOT and NEED_MORE nothing is meaningful.
 */
enum sniff http_request_read(struct span in, size_t max, struct http_request *ret);

/* `request_is_head`: the response belongs to a HEAD request and has no body. FOUND, NEED_MORE or
 * BAD: framing that two readers could understand differently. Leniencies: no reason, nor the space
 * before it; a Transfer-Encoding in which chunked does not occur lasts until the close (RFC 9112
 * 6.3).
 */
enum sniff http_response_read(struct span in, size_t max, bool request_is_head,
			      struct http_response *ret);

/* Chunked framing (RFC 9112 7.1), fed in pieces. All zero is the start. At most 16 digits, 1 KiB a
 * size line and 8 KiB of trailers. Leniency: blanks after the size.
 */
struct http_chunked {
	uint64_t left;  /* data bytes of the chunk in hand still to come (CRLF not counted) */
	uint64_t size;  /* private: the size being read */
	uint16_t line;  /* private: bytes of the line in hand, bounded */
	uint8_t state;  /* private */
	uint8_t digits; /* private */
};

enum chunked {
	CHUNKED_MORE, /* all of `in` up to *ret_used is good framing or data; feed more */
	CHUNKED_DATA, /* as MORE, and the next ->left bytes are data that need not be shown */
	CHUNKED_END,  /* the body ended after *ret_used bytes */
	CHUNKED_BAD,
};

/* Reads framing from the front of `in` (data included where it is in `in`). *ret_used is how many
 * bytes were accepted. A relay may pass `left` data bytes on unseen and then subtract them.
 */
enum chunked http_chunked_read(struct http_chunked *c, struct span in, size_t *ret_used);
