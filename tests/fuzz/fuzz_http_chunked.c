/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz.h"
#include "sniff/http_head.h"

struct outcome {
	enum chunked r;
	size_t used;
	uint64_t left;
};

/* Feeds pieces of `step` bytes until it ends. */
static struct outcome feed(struct span in, size_t step)
{
	struct http_chunked c = {0};
	struct outcome out = {.r = CHUNKED_MORE};
	struct span piece;
	size_t used;

	while (in.len > 0 && (out.r == CHUNKED_MORE || out.r == CHUNKED_DATA)) {
		REQUIRE(span_cut(&in, step < in.len ? step : in.len, &piece));
		out.r = http_chunked_read(&c, piece, &used);
		REQUIRE(used <= piece.len);
		REQUIRE(out.r == CHUNKED_END || out.r == CHUNKED_BAD || used == piece.len);
		REQUIRE(out.r != CHUNKED_DATA || (c.left > 0 && c.left <= INT64_MAX));
		out.used += used;
	}
	out.left = c.left;
	return out;
}

/* Shows the framing only, as a relay does, and passes over the data. */
static struct outcome feed_framing(struct span in)
{
	struct http_chunked c = {0};
	struct outcome out = {.r = CHUNKED_MORE};
	struct span piece;
	size_t used;

	while (in.len > 0 && (out.r == CHUNKED_MORE || out.r == CHUNKED_DATA)) {
		if (out.r == CHUNKED_DATA && c.left > 0) {
			size_t n = c.left < in.len ? (size_t)c.left : in.len;

			REQUIRE(span_cut(&in, n, &piece));
			c.left -= n;
			out.used += n;
			out.r = c.left > 0 ? CHUNKED_DATA : CHUNKED_MORE;
			continue;
		}
		REQUIRE(span_cut(&in, 1, &piece));
		out.r = http_chunked_read(&c, piece, &used);
		out.used += used;
	}
	out.left = c.left;
	return out;
}

static void require_same(struct outcome a, struct outcome b)
{
	REQUIRE(a.r == b.r && a.used == b.used && a.left == b.left);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span in = {data, size};
	struct outcome whole = feed(in, size);

	require_same(feed(in, 1), whole);
	require_same(feed_framing(in), whole);
	if (size > 0)
		require_same(feed(in, data[size - 1] % 16 + 2), whole);
	return 0;
}
