/* SPDX-License-Identifier: Apache-2.0 */
#include "base/owned.h"
#include "corpus.h"
#include "sniff/http_head.h"

#define MAX 65536
#define BYTES(text)                                       \
	{                                                 \
		(const uint8_t *)(text), sizeof(text) - 1 \
	}

static struct http_request req;
static struct http_response res;
static bool for_head;

static enum sniff read_request(struct span in)
{
	memset(&req, 0xaa, sizeof(req));
	return http_request_read(in, MAX, &req);
}

static enum sniff read_response(struct span in)
{
	memset(&res, 0xaa, sizeof(res));
	return http_response_read(in, MAX, for_head, &res);
}

/* ---- corpus ---- */

/* Where the manifest leaves a choice, speaks of what to do later, or the issue is stricter. */
static const struct {
	const char *name;
	enum sniff outcome;
	int status;
	const char *host;
} chosen[] = {
	{"host_missing_10", SNIFF_NO_NAME, 0, ""},
	{"absolute_form_no_host", SNIFF_BAD, 400, ""},
	{"host_ipv4", SNIFF_FOUND, 0, ""},
	{"host_ipv6_port", SNIFF_FOUND, 0, ""},
	{"http09", SNIFF_BAD, 400, ""},
	{"headers_70k", SNIFF_BAD, 431, ""},
	{"unfinished", SNIFF_NEED_MORE, 0, ""},
	{"port_in_sni_dnat_name", SNIFF_FOUND, 0, "outbound_.80_._.a.b.svc.cluster.local"},
};

static void expected(const char *name, const char *expect, enum sniff *ret, int *ret_status,
		     char host[254])
{
	for (size_t i = 0; i < ARRAY_SIZE(chosen); i++) {
		if (strcmp(chosen[i].name, name) == 0) {
			*ret = chosen[i].outcome;
			*ret_status = chosen[i].status;
			strcpy(host, chosen[i].host);
			return;
		}
	}
	host[0] = '\0';
	*ret_status = 400;
	*ret = SNIFF_BAD;
	if (strncmp(name, "h2_", 3) == 0)
		return; /* HTTP/2 in the clear is refused */
	if (sscanf(expect, "host %253[a-z0-9._-]", host) == 1) {
		*ret_status = 0;
		*ret = SNIFF_FOUND;
		return;
	}
	if (strncmp(expect, "400", 3) != 0)
		fail_msg("%s: no idea what '%s' means", name, expect);
}

static void test_corpus(void **state)
{
	json_t *list = corpus_manifest("http"), *entry;
	size_t i;

	(void)state;
	json_array_foreach(list, i, entry)
	{
		const char *name = corpus_str(entry, "name");
		struct span in = corpus_file("http", entry);
		enum sniff want, got;
		char host[254];
		int status;

		expected(name, corpus_str(entry, "expect"), &want, &status, host);
		got = corpus_read_prefix(in, in.len, read_request);
		if (got != want)
			fail_msg("%s: %s (%s), not %s", name, sniff_str(got), req.why ?: "",
				 sniff_str(want));
		assert_int_equal(req.status, status);
		assert_int_equal(got == SNIFF_BAD, req.why != NULL);
		if (got == SNIFF_FOUND) {
			assert_string_equal(req.host, host);
			assert_int_equal(req.head_len, in.len);
		}
		corpus_check_prefixes(name, in, read_request);
		corpus_check_cuts(entry, in, read_request);
		free((void *)in.p);
	}
	json_decref(list);
}

/* ---- requests: the outcome ---- */

#define L1   "GET / HTTP/1.1\r\n"
#define HOST "Host: a.test\r\n"
#define HEAD L1 HOST
#define POST "POST / HTTP/1.1\r\n" HOST
#define END  "\r\n"

static const struct {
	struct span in;
	enum sniff outcome;
	int status;
	const char *why; /* or the host */
} requests[] = {
	{BYTES(HEAD END), SNIFF_FOUND, 0, "a.test"},
	{BYTES(L1 "Host: A.Test.\r\n" END), SNIFF_FOUND, 0, "a.test"},
	{BYTES(L1 "Host: [::1]\r\n" END), SNIFF_FOUND, 0, ""},
	{BYTES("\r\n\r\n\r\n\r\n" HEAD END), SNIFF_FOUND, 0, "a.test"},
	{BYTES("\r\n\r\n\r\n\r\n\r\n" HEAD END), SNIFF_BAD, 400, "too many empty lines"},
	{BYTES("\n" HEAD END), SNIFF_BAD, 400, "bare CR or LF"},
	{BYTES("\r" HEAD END), SNIFF_BAD, 400, "bare CR or LF"},
	{BYTES(HEAD "X: \x80\xff\t~\r\n" END), SNIFF_FOUND, 0, "a.test"},
	{BYTES(HEAD "X:\r\n" END), SNIFF_FOUND, 0, "a.test"},

	/* other protocols */
	{BYTES("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"), SNIFF_NOT, 0, NULL},
	{BYTES("SSH-2.0-x\r\n"), SNIFF_NOT, 0, NULL},
	{BYTES("EHLO x\r\n"), SNIFF_NOT, 0, NULL},
	{BYTES("QUIT\r\n"), SNIFF_NOT, 0, NULL},
	{BYTES("QUIT\n"), SNIFF_NOT, 0, NULL},
	{BYTES("INVITE sip:a@b SIP/2.0\r\n"), SNIFF_NOT, 0, NULL},
	{BYTES("PROXY TCP4 192.0.2.1 198.51.100.5 40000 443\r\n"), SNIFF_NOT, 0, NULL},
	{BYTES("\0\0\0\x08\x04\xd2\x16\x2f"), SNIFF_NOT, 0, NULL},
	{BYTES("\r\n\r\n\0\r\nQUIT\n"), SNIFF_NOT, 0, NULL},
	{BYTES("A x\0y"), SNIFF_NOT, 0, NULL},
	{BYTES("{\"a\":1}"), SNIFF_NOT, 0, NULL},
	{BYTES("\x16\x03\x01"), SNIFF_NOT, 0, NULL},
	{BYTES("HTTP/1.1 200 OK\r\n"), SNIFF_NOT, 0, NULL},
	{BYTES("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), SNIFF_NEED_MORE, 0, NULL},
	{BYTES("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), SNIFF_NOT, 0, NULL},

	/* the request line */
	{BYTES("GET /\r\n"), SNIFF_BAD, 400, "malformed request line"},
	{BYTES("GET http://a.test/\r\n"), SNIFF_BAD, 400, "malformed request line"},
	{BYTES("GET  / HTTP/1.1\r\n"), SNIFF_BAD, 400, "malformed request line"},
	{BYTES("GET\t/ HTTP/1.1\r\n"), SNIFF_BAD, 400, "malformed request line"},
	{BYTES("GET / HTTP/1.1 \r\n"), SNIFF_BAD, 400, "malformed request line"},
	{BYTES("GET / http/1.1\r\n"), SNIFF_BAD, 400, "malformed request line"},
	{BYTES("GET / HTTP/1.\r\n"), SNIFF_BAD, 400, "malformed request line"},
	{BYTES("GET / HTTP/1.10\r\n"), SNIFF_BAD, 400, "malformed request line"},
	{BYTES("GET /a#b HTTP/1.1\r\n"), SNIFF_BAD, 400, "malformed request line"},
	{BYTES("GET /\xc3\xbc HTTP/1.1\r\n"), SNIFF_BAD, 400, "malformed request line"},
	{BYTES("GET / HTTP/1.1\n"), SNIFF_BAD, 400,
	 "control character or bare LF in the request line"},
	{BYTES("GET /\0"), SNIFF_BAD, 400, "control character or bare LF in the request line"},
	{BYTES("GET /\r/ HTTP/1.1\r\n"), SNIFF_BAD, 400,
	 "control character or bare LF in the request line"},
	{BYTES("GET / HTTP/1.2\r\n"), SNIFF_BAD, 505, "HTTP version other than 1.0 and 1.1"},
	{BYTES("GET / HTTP/0.9\r\n"), SNIFF_BAD, 505, "HTTP version other than 1.0 and 1.1"},
	{BYTES("GET / HTTP/3.0\r\n"), SNIFF_BAD, 505, "HTTP version other than 1.0 and 1.1"},
	{BYTES("PRI * HTTP/2.0\r\n"), SNIFF_BAD, 400, "HTTP/2"},
	{BYTES("CONNECT a.test:443 HTTP/1.1\r\n" HOST END), SNIFF_BAD, 403, "CONNECT"},
	{BYTES("connect a.test:443 HTTP/1.1\r\n" HOST END), SNIFF_BAD, 403, "CONNECT"},

	/* the target */
	{BYTES("OPTIONS * HTTP/1.1\r\n" HOST END), SNIFF_FOUND, 0, "a.test"},
	{BYTES("GET * HTTP/1.1\r\n" HOST END), SNIFF_BAD, 400, "malformed target"},
	{BYTES("GET a.test HTTP/1.1\r\n" HOST END), SNIFF_BAD, 400, "malformed target"},
	{BYTES("GET ftp://a.test/ HTTP/1.1\r\n" HOST END), SNIFF_BAD, 400, "malformed target"},
	{BYTES("GET http:///x HTTP/1.1\r\n" HOST END), SNIFF_BAD, 400,
	 "absolute form disagrees with Host"},
	{BYTES("GET http://a.test/x HTTP/1.1\r\n" HOST END), SNIFF_FOUND, 0, "a.test"},
	{BYTES("GET HTTP://A.TEST?x HTTP/1.1\r\n" HOST END), SNIFF_FOUND, 0, "a.test"},
	{BYTES("GET http://a.test:80/x HTTP/1.1\r\n" HOST END), SNIFF_FOUND, 0, "a.test"},
	{BYTES("GET https://a.test:443/x HTTP/1.1\r\n" HOST END), SNIFF_FOUND, 0, "a.test"},
	{BYTES("GET http://a.test/x HTTP/1.1\r\nHost: a.test:8080\r\n" END), SNIFF_BAD, 400,
	 "absolute form disagrees with Host"},
	{BYTES("GET http://a.test:8080/x HTTP/1.1\r\nHost: a.test:8080\r\n" END), SNIFF_FOUND, 0,
	 "a.test"},
	{BYTES("GET http://b.test/x HTTP/1.1\r\n" HOST END), SNIFF_BAD, 400,
	 "absolute form disagrees with Host"},
	{BYTES("GET http://b.test@a.test/x HTTP/1.1\r\n" HOST END), SNIFF_BAD, 400,
	 "absolute form disagrees with Host"},
	{BYTES("GET http://a.test\\@b.test/x HTTP/1.1\r\n" HOST END), SNIFF_BAD, 400,
	 "absolute form disagrees with Host"},
	{BYTES("GET http://a.test:x/ HTTP/1.1\r\n" HOST END), SNIFF_BAD, 400, "malformed target"},
	{BYTES("GET http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\n" END), SNIFF_FOUND, 0, ""},
	{BYTES("GET http://192.0.2.2/ HTTP/1.1\r\nHost: 192.0.2.1\r\n" END), SNIFF_BAD, 400,
	 "absolute form disagrees with Host"},
	{BYTES("GET http://a.test/ HTTP/1.0\r\n" END), SNIFF_BAD, 400,
	 "absolute form without Host"},

	/* Host */
	{BYTES(L1 END), SNIFF_BAD, 400, "no Host"},
	{BYTES("GET / HTTP/1.0\r\n" END), SNIFF_NO_NAME, 0, ""},
	{BYTES(L1 "Host:\r\n" END), SNIFF_BAD, 400, "empty host name"},
	{BYTES(HEAD "Host: b.test\r\n" END), SNIFF_BAD, 400, "Host twice"},
	{BYTES(L1 "Host: a.test:0\r\n" END), SNIFF_BAD, 400, "malformed port in Host"},
	{BYTES(L1 "Host: a.test:65536\r\n" END), SNIFF_BAD, 400, "malformed port in Host"},
	{BYTES(L1 "Host: a.test:000080\r\n" END), SNIFF_BAD, 400, "malformed port in Host"},
	{BYTES(L1 "Host: a.test:80:80\r\n" END), SNIFF_BAD, 400, "malformed port in Host"},
	{BYTES(L1 "Host: ::1\r\n" END), SNIFF_BAD, 400, "malformed port in Host"},
	{BYTES(L1 "Host: [::1\r\n" END), SNIFF_BAD, 400, "malformed Host"},
	{BYTES(L1 "Host: [::1]x\r\n" END), SNIFF_BAD, 400, "malformed Host"},
	{BYTES(L1 "Host: a..test\r\n" END), SNIFF_BAD, 400, "empty label in host name"},
	{BYTES(L1 "Host: a.test\0\r\n" END), SNIFF_BAD, 400, "control character in a header"},

	/* lines */
	{BYTES(L1 " Host: a.test\r\n" END), SNIFF_BAD, 400, "folded header line"},
	{BYTES(HEAD "\tx\r\n" END), SNIFF_BAD, 400, "folded header line"},
	{BYTES(HEAD "X : y\r\n" END), SNIFF_BAD, 400, "space in or after a header name"},
	{BYTES(HEAD "X\t: y\r\n" END), SNIFF_BAD, 400, "space in or after a header name"},
	{BYTES(HEAD ": y\r\n" END), SNIFF_BAD, 400, "header name is no token"},
	{BYTES(HEAD "X(: y\r\n" END), SNIFF_BAD, 400, "header name is no token"},
	{BYTES(HEAD "X\r\n" END), SNIFF_BAD, 400, "header line without colon"},
	{BYTES(HEAD "X: y\n" END), SNIFF_BAD, 400, "bare LF"},
	{BYTES(HEAD "\n"), SNIFF_BAD, 400, "bare LF"},
	{BYTES(HEAD "X: a\rb\r\n" END), SNIFF_BAD, 400, "control character in a header"},
	{BYTES(HEAD "X: a\0b\r\n" END), SNIFF_BAD, 400, "control character in a header"},
	{BYTES(HEAD "X: a\x7f\r\n" END), SNIFF_BAD, 400, "control character in a header"},

	/* framing */
	{BYTES(POST "Content-Length: 5\r\nContent-Length: 5\r\n" END), SNIFF_BAD, 400,
	 "Content-Length twice"},
	{BYTES(POST "Content-Length: 5, 5\r\n" END), SNIFF_BAD, 400, "Content-Length is no number"},
	{BYTES(POST "Content-Length: +5\r\n" END), SNIFF_BAD, 400, "Content-Length is no number"},
	{BYTES(POST "Content-Length: -5\r\n" END), SNIFF_BAD, 400, "Content-Length is no number"},
	{BYTES(POST "Content-Length: 0x5\r\n" END), SNIFF_BAD, 400, "Content-Length is no number"},
	{BYTES(POST "Content-Length:\r\n" END), SNIFF_BAD, 400, "Content-Length is no number"},
	{BYTES(POST "Content-Length: 9223372036854775808\r\n" END), SNIFF_BAD, 400,
	 "Content-Length is no number"},
	{BYTES(POST "Content-Length: 18446744073709551617\r\n" END), SNIFF_BAD, 400,
	 "Content-Length is no number"},
	{BYTES(POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END), SNIFF_BAD, 400,
	 "Content-Length with Transfer-Encoding"},
	{BYTES(POST "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n" END), SNIFF_BAD, 400,
	 "Content-Length with Transfer-Encoding"},
	{BYTES(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END), SNIFF_BAD,
	 400, "Transfer-Encoding twice"},
	{BYTES(POST "Transfer-Encoding: identity\r\n" END), SNIFF_BAD, 400,
	 "Transfer-Encoding other than chunked"},
	{BYTES(POST "Transfer-Encoding: gzip, chunked\r\n" END), SNIFF_BAD, 400,
	 "Transfer-Encoding other than chunked"},
	{BYTES(POST "Transfer-Encoding: xchunked\r\n" END), SNIFF_BAD, 400,
	 "Transfer-Encoding other than chunked"},
	{BYTES(POST "Transfer-Encoding: chunked;a\r\n" END), SNIFF_BAD, 400,
	 "Transfer-Encoding other than chunked"},
	{BYTES(POST "Transfer-Encoding: \x0b"
		    "chunked\r\n" END),
	 SNIFF_BAD, 400, "control character in a header"},
	{BYTES(POST "Transfer-Encoding:\r\n" END), SNIFF_BAD, 400,
	 "Transfer-Encoding other than chunked"},
	{BYTES("POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n" END), SNIFF_BAD, 400,
	 "Transfer-Encoding in HTTP/1.0"},
	{BYTES(HEAD "Connection: close, Host\r\n" END), SNIFF_BAD, 400,
	 "Connection names a header that must stay"},
};

static void test_requests(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		enum sniff r = corpus_read_prefix(requests[i].in, requests[i].in.len, read_request);
		const char *text = r == SNIFF_BAD ? req.why : req.host;

		if (r != requests[i].outcome)
			fail_msg("case %zu '%s': %s %s", i, requests[i].in.p, sniff_str(r),
				 req.why ?: "");
		assert_int_equal(req.status, requests[i].status);
		if (requests[i].why)
			assert_string_equal(text, requests[i].why);
		if (r == SNIFF_FOUND || r == SNIFF_NO_NAME)
			assert_int_equal(req.head_len, requests[i].in.len);
		corpus_check_prefixes("request", requests[i].in, read_request);
	}
}

/* ---- requests: what is told about a good one ---- */

enum {
	KEEP = 1,
	WEBSOCKET = 2,
	H2C = 4,
	EXPECT = 8,
	IS_HEAD = 16,
};

static const struct {
	const char *in;
	enum http_body body;
	uint64_t length;
	unsigned flags;
} good[] = {
	{HEAD END, HTTP_BODY_NONE, 0, KEEP},
	{HEAD "Connection: close\r\n" END, HTTP_BODY_NONE, 0, 0},
	{HEAD "Connection: x, CLOSE\r\n" END, HTTP_BODY_NONE, 0, 0},
	{HEAD "Connection: keep-alive\r\nConnection: close\r\n" END, HTTP_BODY_NONE, 0, 0},
	{"GET / HTTP/1.0\r\n" HOST END, HTTP_BODY_NONE, 0, 0},
	{"GET / HTTP/1.0\r\n" HOST "Connection: Keep-Alive\r\n" END, HTTP_BODY_NONE, 0, KEEP},
	{"HEAD / HTTP/1.1\r\n" HOST END, HTTP_BODY_NONE, 0, KEEP | IS_HEAD},
	{POST "Content-Length: 0\r\n" END, HTTP_BODY_NONE, 0, KEEP},
	{POST "Content-Length: 7\r\n" END, HTTP_BODY_LENGTH, 7, KEEP},
	{POST "content-length:\t007 \r\n" END, HTTP_BODY_LENGTH, 7, KEEP},
	{POST "Content-Length: 9223372036854775807\r\n" END, HTTP_BODY_LENGTH, INT64_MAX, KEEP},
	{POST "Transfer-Encoding: Chunked\r\n" END, HTTP_BODY_CHUNKED, 0, KEEP},
	{POST "Expect: 100-Continue\r\nContent-Length: 7\r\n" END, HTTP_BODY_LENGTH, 7,
	 KEEP | EXPECT},
	{HEAD "Connection: Upgrade\r\nUpgrade: WebSocket\r\n" END, HTTP_BODY_NONE, 0,
	 KEEP | WEBSOCKET},
	{HEAD "Upgrade: websocket\r\n" END, HTTP_BODY_NONE, 0, KEEP},
	{HEAD "Connection: upgrade\r\nUpgrade: h2c\r\n" END, HTTP_BODY_NONE, 0, KEEP | H2C},
	{HEAD "Upgrade: x, h2c\r\n" END, HTTP_BODY_NONE, 0, KEEP | H2C},
	{HEAD "HTTP2-Settings: AAMAAABk\r\n" END, HTTP_BODY_NONE, 0, KEEP | H2C},
	{POST "Connection: upgrade\r\nUpgrade: websocket\r\n" END, HTTP_BODY_NONE, 0, KEEP},
	{HEAD "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n" END,
	 HTTP_BODY_LENGTH, 1, KEEP},
	{HEAD "Upgrade: websocket, h2c\r\nConnection: upgrade\r\n" END, HTTP_BODY_NONE, 0,
	 KEEP | WEBSOCKET | H2C},
};

static void test_good_requests(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		unsigned flags;

		if (read_request(span_of(good[i].in)) != SNIFF_FOUND)
			fail_msg("case %zu: %s", i, req.why);
		flags = (req.keep_alive ? KEEP : 0) | (req.upgrade_websocket ? WEBSOCKET : 0) |
			(req.upgrade_h2c ? H2C : 0) | (req.expect_continue ? EXPECT : 0) |
			(req.is_head ? IS_HEAD : 0);
		if (req.body != good[i].body || flags != good[i].flags)
			fail_msg("case %zu: body %d, flags %u", i, req.body, flags);
		assert_int_equal(req.content_length, good[i].length);
		assert_null(req.why);
	}
}

static void assert_span(struct span got, const char *want)
{
	if (!span_equal(got, span_of(want)))
		fail_msg("'%.*s' is not '%s'", (int)got.len, got.p, want);
}

static void test_request_parts(void **state)
{
	static const char in[] =
		"\r\nPOST /p?q HTTP/1.0\r\nuser-agent: curl/8 \r\nHost:  A.Test:8443 \r\n"
		"Content-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n";

	(void)state;
	assert_int_equal(read_request(span_of(in)), SNIFF_FOUND);
	assert_span(req.method, "POST");
	assert_span(req.target, "/p?q");
	assert_span(req.user_agent, "curl/8");
	assert_span(req.raw_host, "A.Test:8443");
	assert_string_equal(req.host, "a.test");
	assert_int_equal(req.port, 8443);
	assert_int_equal(req.minor, 0);
	assert_int_equal(req.head_len,
			 strstr(in, "abcGET") - in); /* the body is not its business */
}

static void test_request_max(void **state)
{
	static const char in[] = HEAD END;
	struct span all = span_of(in), short_of = {all.p, all.len - 1};

	(void)state;
	assert_int_equal(http_request_read(all, all.len, &req), SNIFF_FOUND);
	assert_int_equal(http_request_read(all, all.len - 1, &req), SNIFF_BAD);
	assert_int_equal(req.status, 431);
	assert_int_equal(http_request_read(short_of, all.len, &req), SNIFF_NEED_MORE);
	assert_int_equal(http_request_read(short_of, all.len - 1, &req), SNIFF_BAD);
	assert_int_equal(req.status, 431);
}

/* ---- responses ---- */

#define OK "HTTP/1.1 200 OK\r\n"

static const struct {
	struct span in;
	bool head; /* to a HEAD request */
	enum sniff outcome;
	int status;
	enum http_body body;
	uint64_t length;
	bool keep_alive;
} responses[] = {
	{BYTES(OK "Content-Length: 3\r\n" END), false, SNIFF_FOUND, 200, HTTP_BODY_LENGTH, 3, true},
	{BYTES(OK "Content-Length: 0\r\n" END), false, SNIFF_FOUND, 200, HTTP_BODY_NONE, 0, true},
	{BYTES(OK "Content-Length: 3\r\nConnection: close\r\n" END), false, SNIFF_FOUND, 200,
	 HTTP_BODY_LENGTH, 3, false},
	{BYTES(OK "Transfer-Encoding: chunked\r\n" END), false, SNIFF_FOUND, 200, HTTP_BODY_CHUNKED,
	 0, true},
	{BYTES(OK END), false, SNIFF_FOUND, 200, HTTP_BODY_UNTIL_CLOSE, 0, false},
	{BYTES(OK "Transfer-Encoding: identity\r\n" END), false, SNIFF_FOUND, 200,
	 HTTP_BODY_UNTIL_CLOSE, 0, false},
	{BYTES(OK "Content-Length: 3\r\n" END), true, SNIFF_FOUND, 200, HTTP_BODY_NONE, 0, true},
	{BYTES(OK "Transfer-Encoding: chunked\r\n" END), true, SNIFF_FOUND, 200, HTTP_BODY_NONE, 0,
	 true},
	{BYTES(OK END), true, SNIFF_FOUND, 200, HTTP_BODY_NONE, 0, true},
	{BYTES("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n" END), false, SNIFF_FOUND, 200,
	 HTTP_BODY_LENGTH, 3, false},
	{BYTES("HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n" END), false,
	 SNIFF_FOUND, 200, HTTP_BODY_LENGTH, 3, true},
	{BYTES("HTTP/1.1 100 Continue\r\n" END), false, SNIFF_FOUND, 100, HTTP_BODY_NONE, 0, true},
	{BYTES("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n" END), false,
	 SNIFF_FOUND, 101, HTTP_BODY_NONE, 0, true},
	{BYTES("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n" END), false, SNIFF_FOUND, 204,
	 HTTP_BODY_NONE, 0, true},
	{BYTES("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n" END), false, SNIFF_FOUND, 304,
	 HTTP_BODY_NONE, 0, true},
	{BYTES("HTTP/1.1 404 \r\nContent-Length: 3\r\n" END), false, SNIFF_FOUND, 404,
	 HTTP_BODY_LENGTH, 3, true},
	{BYTES("HTTP/1.1 404\r\nContent-Length: 3\r\n" END), false, SNIFF_FOUND, 404,
	 HTTP_BODY_LENGTH, 3, true},
	{BYTES("HTTP/1.1 999 g\xfcltig\r\nContent-Length: 3\r\n" END), false, SNIFF_FOUND, 999,
	 HTTP_BODY_LENGTH, 3, true},
	{BYTES(OK "X: \xe4\r\nContent-Length: 3\r\n" END), false, SNIFF_FOUND, 200,
	 HTTP_BODY_LENGTH, 3, true},

	{BYTES(OK "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n" END), false, SNIFF_BAD, 0,
	 0, 0, false},
	{BYTES(OK "Content-Length: 3\r\nContent-Length: 4\r\n" END), false, SNIFF_BAD, 0, 0, 0,
	 false},
	{BYTES(OK "Content-Length: 3, 3\r\n" END), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES(OK "Transfer-Encoding: gzip, chunked\r\n" END), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES(OK "Transfer-Encoding: chunked, identity\r\n" END), false, SNIFF_BAD, 0, 0, 0,
	 false},
	{BYTES(OK "Transfer-Encoding:\r\n" END), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n" END), false, SNIFF_BAD, 0, 0, 0,
	 false},
	{BYTES("HTTP/1.1 204 No\r\nContent-Length: 3\r\n" END), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES("HTTP/1.1 100 Go\r\nTransfer-Encoding: chunked\r\n" END), false, SNIFF_BAD, 0, 0, 0,
	 false},
	{BYTES(OK " folded\r\n" END), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES(OK "X : y\r\n" END), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES(OK "X: a\0\r\n" END), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES("HTTP/1.1 200 OK\n"), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES("HTTP/1.1 099 OK\r\n"), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES("HTTP/1.1 20 OK\r\n"), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES("HTTP/1.1 2000\r\n"), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES("HTTP/1.1  200\r\n"), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES("HTTP/1.2 200 OK\r\n"), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES("HTTP/2"), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES("\r\n"), false, SNIFF_BAD, 0, 0, 0, false},
	{BYTES("SSH-2.0"), false, SNIFF_BAD, 0, 0, 0, false},
};

static void test_responses(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(responses); i++) {
		struct span in = responses[i].in;
		enum sniff r;

		for_head = responses[i].head;
		r = corpus_read_prefix(in, in.len, read_response);
		if (r != responses[i].outcome)
			fail_msg("case %zu '%s': %s %s", i, in.p, sniff_str(r), res.why ?: "");
		corpus_check_prefixes("response", in, read_response);
		read_response(in);
		assert_int_equal(r == SNIFF_BAD, res.why != NULL);
		if (r == SNIFF_BAD)
			continue;
		if (res.status != responses[i].status || res.body != responses[i].body ||
		    res.keep_alive != responses[i].keep_alive)
			fail_msg("case %zu: status %d, body %d, keep_alive %d", i, res.status,
				 res.body, res.keep_alive);
		if (res.body == HTTP_BODY_LENGTH)
			assert_int_equal(res.content_length, responses[i].length);
		assert_int_equal(res.head_len, in.len);
	}
}

static void test_response_max(void **state)
{
	struct span all = span_of(OK END);

	(void)state;
	assert_int_equal(http_response_read(all, all.len, false, &res), SNIFF_FOUND);
	assert_int_equal(http_response_read(all, all.len - 1, false, &res), SNIFF_BAD);
}

/* ---- chunked bodies ---- */

static const struct {
	struct span in;
	enum chunked outcome;
	size_t used; /* for END and BAD */
} bodies[] = {
	{BYTES("0\r\n\r\n"), CHUNKED_END, 5},
	{BYTES("0\r\n\r\nGET /"), CHUNKED_END, 5},
	{BYTES("3\r\nabc\r\n0\r\n\r\n"), CHUNKED_END, 13},
	{BYTES("003\r\n\r\n\n\r\n000\r\n\r\n"), CHUNKED_END, 17},
	{BYTES("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"), CHUNKED_END, 35},
	{BYTES("3;a=b;c=\"d\"\r\nabc\r\n0;x\r\n\r\n"), CHUNKED_END, 25},
	{BYTES("3  \r\nabc\r\n0\t;x\r\n\r\n"), CHUNKED_END, 18},
	{BYTES("0\r\nX: y\r\nZ:\r\n\r\n"), CHUNKED_END, 15},
	{BYTES("3\r\nab"), CHUNKED_DATA, 0},
	{BYTES("3\r\n"), CHUNKED_DATA, 0},
	{BYTES("7fffffffffffffff\r\nab"), CHUNKED_DATA, 0},
	{BYTES("3\r\nabc"), CHUNKED_MORE, 0},
	{BYTES("3\r"), CHUNKED_MORE, 0},
	{BYTES(""), CHUNKED_MORE, 0},

	{BYTES("\r\n"), CHUNKED_BAD, 0},
	{BYTES(";a\r\n"), CHUNKED_BAD, 0},
	{BYTES(" 3\r\n"), CHUNKED_BAD, 0},
	{BYTES("-3\r\n"), CHUNKED_BAD, 0},
	{BYTES("0x3\r\n"), CHUNKED_BAD, 1},
	{BYTES("3 3\r\n"), CHUNKED_BAD, 2},
	{BYTES("3\n"), CHUNKED_BAD, 1},
	{BYTES("3\rx"), CHUNKED_BAD, 2},
	{BYTES("3;a\n"), CHUNKED_BAD, 3},
	{BYTES("3;\0\r\n"), CHUNKED_BAD, 2},
	{BYTES("3\r\nabcd"), CHUNKED_BAD, 6},
	{BYTES("3\r\nabc\n"), CHUNKED_BAD, 6},
	{BYTES("3\r\nabc\rx"), CHUNKED_BAD, 7},
	{BYTES("8000000000000000\r\n"), CHUNKED_BAD, 17},
	{BYTES("ffffffffffffffff\r\n"), CHUNKED_BAD, 17},
	{BYTES("00000000000000001\r\n"), CHUNKED_BAD, 16},
	{BYTES("0\r\n x\r\n"), CHUNKED_BAD, 3},
	{BYTES("0\r\nX : y\r\n"), CHUNKED_BAD, 4},
	{BYTES("0\r\n:y\r\n"), CHUNKED_BAD, 3},
	{BYTES("0\r\nX\r\n"), CHUNKED_BAD, 4},
	{BYTES("0\r\nX: y\r\n folded\r\n"), CHUNKED_BAD, 9},
	{BYTES("0\r\nX: y\n"), CHUNKED_BAD, 7},
	{BYTES("0\r\n\n"), CHUNKED_BAD, 3},
};

/* Feeds pieces of `step` bytes. *ret_used counts all of them. */
static enum chunked feed(struct span in, size_t step, size_t *ret_used)
{
	struct http_chunked c = {0};
	enum chunked r = CHUNKED_MORE;
	struct span piece;

	*ret_used = 0;
	if (in.len == 0)
		return http_chunked_read(&c, in, ret_used);
	while (in.len > 0 && (r == CHUNKED_MORE || r == CHUNKED_DATA)) {
		size_t used;

		assert_true(span_cut(&in, step < in.len ? step : in.len, &piece));
		r = http_chunked_read(&c, piece, &used);
		*ret_used += used;
		if (r == CHUNKED_MORE || r == CHUNKED_DATA)
			assert_int_equal(used, piece.len);
	}
	return r;
}

static void test_chunked(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		for (size_t step = 1; step <= bodies[i].in.len + 1; step++) {
			size_t used;
			enum chunked r = feed(bodies[i].in, step, &used);

			if (r != bodies[i].outcome)
				fail_msg("'%s' by %zu: %d", bodies[i].in.p, step, r);
			if (r == CHUNKED_END || r == CHUNKED_BAD)
				assert_int_equal(used, bodies[i].used);
		}
	}
}

/* A relay shows the framing and passes the data on unseen. */
static void test_chunked_skipping_data(void **state)
{
	struct http_chunked c = {0};
	size_t used;

	(void)state;
	assert_int_equal(http_chunked_read(&c, span_of("10\r\nabc"), &used), CHUNKED_DATA);
	assert_int_equal(used, 7);
	assert_int_equal(c.left, 13);
	c.left -= 13;
	assert_int_equal(http_chunked_read(&c, span_of("\r\n2\r\n"), &used), CHUNKED_DATA);
	assert_int_equal(c.left, 2);
	c.left -= 2;
	assert_int_equal(http_chunked_read(&c, span_of("\r\n0\r\n\r\nx"), &used), CHUNKED_END);
	assert_int_equal(used, 7);
	assert_int_equal(http_chunked_read(&c, span_of("x"), &used), CHUNKED_END);
	assert_int_equal(used, 0);
}

/* `head`, then `n` bytes of 'x', then `tail`. */
static enum chunked feed_long(const char *head, size_t n, const char *tail)
{
	size_t len = strlen(head), used;
	OWNED_MEM uint8_t *in = malloc(len + n + strlen(tail));

	assert_non_null(in);
	memcpy(in, head, len);
	memset(in + len, 'x', n);
	memcpy(in + len + n, tail, strlen(tail));
	return feed((struct span){in, len + n + strlen(tail)}, 1000, &used);
}

static void test_chunked_limits(void **state)
{
	(void)state;
	assert_int_equal(feed_long("0;", 1024 - 4, "\r\n\r\n"), CHUNKED_END);
	assert_int_equal(feed_long("0;", 1024 - 3, "\r\n\r\n"), CHUNKED_BAD);
	assert_int_equal(feed_long("0\r\na:", 8192 - 6, "\r\n\r\n"), CHUNKED_END);
	assert_int_equal(feed_long("0\r\na:", 8192 - 5, "\r\n\r\n"), CHUNKED_BAD);
	assert_int_equal(feed_long("0\r\na:", 4096, "\r\nb:\r\n\r\n"), CHUNKED_END);
	assert_int_equal(feed_long("0\r\n", 9000, ""), CHUNKED_BAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_corpus),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_good_requests),
		cmocka_unit_test(test_request_parts),
		cmocka_unit_test(test_request_max),
		cmocka_unit_test(test_responses),
		cmocka_unit_test(test_response_max),
		cmocka_unit_test(test_chunked),
		cmocka_unit_test(test_chunked_skipping_data),
		cmocka_unit_test(test_chunked_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
