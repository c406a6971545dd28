/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fuzz.h"
#include "sniff/host.h"
#include "sniff/tls_hello.h"

#define MAX 65536

static enum sniff read_prefix(const uint8_t *data, size_t n, struct tls_hello *ret)
{
	return tls_hello_read((struct span){data, n}, MAX, ret);
}

/* What was found is a name, and the one that was sent. */
static void check_name(const struct tls_hello *hello)
{
	char buf[HOST_MAX + 1];
	struct span name;

	REQUIRE(hello->name[0] != '\0');
	REQUIRE(host_normalise(span_of(hello->name), buf, &name) == HOST_NAME);
	REQUIRE(strcmp(buf, hello->name) == 0);
	REQUIRE(host_normalise(span_of(hello->raw_name), buf, &name) == HOST_NAME);
	REQUIRE(strcmp(buf, hello->name) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tls_hello whole, part;
	enum sniff r = read_prefix(data, size, &whole), before;

	REQUIRE((r == SNIFF_BAD) == (whole.why != NULL));
	if (r == SNIFF_FOUND)
		check_name(&whole);
	else
		REQUIRE(whole.name[0] == '\0');
	if (size == 0)
		return 0;
	/* However it is cut: less is NEED_MORE or already the same. */
	before = read_prefix(data, size > 1 ? (data[size - 1] << 8 | data[size / 2]) % size : 0,
			     &part);
	REQUIRE(before == SNIFF_NEED_MORE || before == r);
	before = read_prefix(data, size - 1, &part);
	REQUIRE(before == SNIFF_NEED_MORE || before == r);
	REQUIRE(before != r || strcmp(part.name, whole.name) == 0);
	return 0;
}
