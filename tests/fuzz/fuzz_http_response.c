/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz.h"
#include "sniff/http_head.h"

#define MAX 65536

static enum sniff read_prefix(const uint8_t *data, size_t n, bool is_head,
			      struct http_response *ret)
{
	return http_response_read((struct span){data, n}, MAX, is_head, ret);
}

static void check(const uint8_t *data, size_t size, bool is_head)
{
	struct http_response res, part;
	enum sniff r = read_prefix(data, size, is_head, &res), before;

	REQUIRE(r == SNIFF_FOUND || r == SNIFF_NEED_MORE || r == SNIFF_BAD);
	REQUIRE((r == SNIFF_BAD) == (res.why != NULL));
	if (r == SNIFF_FOUND) {
		REQUIRE(res.head_len > 0 && res.head_len <= size);
		REQUIRE(res.status >= 100 && res.status <= 999);
		REQUIRE(!is_head || res.body == HTTP_BODY_NONE);
		REQUIRE((res.body == HTTP_BODY_LENGTH) == (res.content_length > 0));
		REQUIRE(res.body != HTTP_BODY_UNTIL_CLOSE || !res.keep_alive);
		REQUIRE(read_prefix(data, res.head_len, is_head, &part) == SNIFF_FOUND);
		REQUIRE(read_prefix(data, res.head_len - 1, is_head, &part) == SNIFF_NEED_MORE);
	}
	if (size > 0) {
		before = read_prefix(data, size - 1, is_head, &part);
		REQUIRE(before == SNIFF_NEED_MORE || before == r);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check(data, size, false);
	check(data, size, true);
	return 0;
}
