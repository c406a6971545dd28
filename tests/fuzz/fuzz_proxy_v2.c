/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fuzz.h"
#include "sniff/proxy_v2.h"

static enum sniff read_prefix(const uint8_t *data, size_t n, struct proxy_v2 *ret)
{
	return proxy_v2_read((struct span){data, n}, ret);
}

/* What was read can be written, and says the same when it is read again. */
static void check_round_trip(const struct proxy_v2 *h)
{
	uint8_t buf[PROXY_V2_MAX];
	struct proxy_v2 again;
	int len = proxy_v2_write(h, buf);

	REQUIRE(len > 0 && len <= PROXY_V2_MAX);
	REQUIRE(read_prefix(buf, (size_t)len, &again) == SNIFF_FOUND);
	REQUIRE(again.len == (size_t)len);
	REQUIRE(again.local == h->local);
	if (h->local)
		return;
	REQUIRE(again.has_crc);
	REQUIRE(again.has_addrs == h->has_addrs);
	REQUIRE(addr_equal(&again.src, &h->src) && addr_equal(&again.dst, &h->dst));
	REQUIRE(strcmp(again.authority, h->authority) == 0);
	REQUIRE(strcmp(again.principal, h->principal) == 0);
	REQUIRE(strcmp(again.pod, h->pod) == 0);
	REQUIRE(again.unique_id_len == h->unique_id_len);
	REQUIRE(memcmp(again.unique_id, h->unique_id, h->unique_id_len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_v2 h, part;
	enum sniff r = read_prefix(data, size, &h), before;

	REQUIRE(r == SNIFF_FOUND || r == SNIFF_NEED_MORE || r == SNIFF_BAD);
	REQUIRE((r == SNIFF_BAD) == (h.why != NULL));
	if (r == SNIFF_FOUND) {
		REQUIRE(h.len >= 16 && h.len <= size && h.len <= PROXY_V2_READ_MAX);
		REQUIRE(read_prefix(data, h.len - 1, &part) == SNIFF_NEED_MORE);
		check_round_trip(&h);
	}
	if (size > 0) {
		before = read_prefix(data, size - 1, &part);
		REQUIRE(before == SNIFF_NEED_MORE || before == r);
	}
	return 0;
}
