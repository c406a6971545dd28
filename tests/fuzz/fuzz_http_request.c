/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fuzz.h"
#include "sniff/host.h"
#include "sniff/http_head.h"

#define MAX 65536

static enum sniff read_prefix(const uint8_t *data, size_t n, struct http_request *ret)
{
	return http_request_read((struct span){data, n}, MAX, ret);
}

static bool is_inside(struct span part, const uint8_t *data, size_t n)
{
	return part.len == 0 || (part.p >= data && part.p + part.len <= data + n);
}

static void check_good(const uint8_t *data, size_t size, enum sniff r,
		       const struct http_request *req)
{
	struct http_request part;
	char buf[HOST_MAX + 1];
	struct span name;

	REQUIRE(req->head_len > 0 && req->head_len <= size);
	REQUIRE(is_inside(req->method, data, req->head_len) && req->method.len > 0);
	REQUIRE(is_inside(req->target, data, req->head_len) && req->target.len > 0);
	REQUIRE(is_inside(req->raw_host, data, req->head_len));
	REQUIRE(is_inside(req->user_agent, data, req->head_len));
	REQUIRE(req->body != HTTP_BODY_UNTIL_CLOSE);
	REQUIRE((req->body == HTTP_BODY_LENGTH) == (req->content_length > 0));
	REQUIRE(req->content_length <= INT64_MAX);
	REQUIRE((r == SNIFF_FOUND) == (req->raw_host.len > 0));
	REQUIRE(!req->is_connect);
	if (req->host[0] != '\0') {
		REQUIRE(host_normalise(span_of(req->host), buf, &name) == HOST_NAME);
		REQUIRE(strcmp(buf, req->host) == 0);
	}
	/* The head decides, all of it and nothing behind it. */
	REQUIRE(read_prefix(data, req->head_len, &part) == r);
	REQUIRE(part.head_len == req->head_len);
	REQUIRE(read_prefix(data, req->head_len - 1, &part) == SNIFF_NEED_MORE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_request req, part;
	enum sniff r = read_prefix(data, size, &req), before;

	REQUIRE((r == SNIFF_BAD) == (req.why != NULL));
	REQUIRE((r == SNIFF_BAD) == (req.status != 0));
	if (r == SNIFF_FOUND || r == SNIFF_NO_NAME)
		check_good(data, size, r, &req);
	if (size == 0)
		return 0;
	before = read_prefix(data, (data[size - 1] << 8 | data[size / 2]) % size, &part);
	REQUIRE(before == SNIFF_NEED_MORE || before == r);
	before = read_prefix(data, size - 1, &part);
	REQUIRE(before == SNIFF_NEED_MORE || before == r);
	REQUIRE(before != SNIFF_BAD || strcmp(part.why, req.why) == 0);
	return 0;
}
