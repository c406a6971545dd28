/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fuzz.h"
#include "pod/nflog.h"

static bool is_inside(const char *text, const uint8_t *data, size_t size)
{
	const uint8_t *p = (const uint8_t *)text;

	return p >= data && p < data + size && memchr(p, '\0', (size_t)(data + size - p));
}

static void check_packet(const struct refused_packet *p, const uint8_t *data, size_t size)
{
	char buf[NFLOG_PROTOCOL_MAX];
	enum reason reason = nflog_reason(p);
	const char *word = nflog_protocol_str(p->proto, p->dst.port, buf);

	REQUIRE(p->prefix[0] == '\0' || is_inside(p->prefix, data, size));
	REQUIRE(reason == REASON_PROTOCOL_REFUSED || reason == REASON_BYPASS_ATTEMPT);
	REQUIRE(word[0] != '\0' && strlen(word) < NFLOG_PROTOCOL_MAX);
}

/* The bytes as a bundle of messages, and as one packet. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct refused_packet packet = {.prefix = ""};
	struct span in = {data, size};
	size_t before = size + 1;
	enum nflog kind;

	while ((kind = nflog_read(&in, &packet)) != NFLOG_END) {
		REQUIRE(kind == NFLOG_PACKET || kind == NFLOG_OTHER);
		REQUIRE(in.len < before); /* it goes on, whatever it reads */
		before = in.len;
		if (kind == NFLOG_PACKET)
			check_packet(&packet, data, size);
	}
	REQUIRE(in.len == 0);

	packet.prefix = "";
	if (nflog_read_packet((struct span){data, size}, &packet)) {
		REQUIRE(size >= 20);
		check_packet(&packet, data, size);
	}
	return 0;
}
