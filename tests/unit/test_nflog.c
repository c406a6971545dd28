/* SPDX-License-Identifier: Apache-2.0 */

/* The reports of tests/corpus/nflog, in the byte order of little-endian machines as netlink is in
 * the machine's own.
 */
#include "pod/nflog.h"

#include "corpus.h"

#include "base/owned.h"

/* "PREFIX REASON PROTOCOL SOURCE DESTINATION", as in the manifest. */
static void print(const struct refused_packet *p, char *ret, size_t size)
{
	char src[ADDR_TEXT], dst[ADDR_TEXT], word[NFLOG_PROTOCOL_MAX];

	snprintf(ret, size, "%s %s %s %s %s", p->prefix, reason_str(nflog_reason(p)),
		 nflog_protocol_str(p->proto, p->dst.port, word), addr_print(&p->src, src),
		 addr_print(&p->dst, dst));
}

static void check(const char *name, const json_t *expect, struct span in)
{
	struct refused_packet packet;
	enum nflog kind;
	char got[512];
	size_t n = 0;

	while ((kind = nflog_read(&in, &packet)) != NFLOG_END) {
		const char *want = json_string_value(json_array_get(expect, n));

		if (kind != NFLOG_PACKET)
			continue;
		print(&packet, got, sizeof(got));
		if (!want || strcmp(got, want) != 0)
			fail_msg("%s: got '%s', not '%s'", name, got, want ?: "nothing");
		n++;
	}
	if (n != json_array_size(expect))
		fail_msg("%s: %zu packets, not %zu", name, n, json_array_size(expect));
	assert_int_equal(in.len, 0);
}

static void test_corpus(void **state)
{
	json_t *list = corpus_manifest("nflog"), *entry;
	size_t i;

	(void)state;
	json_array_foreach(list, i, entry)
	{
		struct span in = corpus_file("nflog", entry);
		/* Alone in memory of its own: sanitizers see what is read behind it. */
		uint8_t *copy = malloc(in.len + !in.len);

		assert_non_null(copy);
		memcpy(copy, in.p, in.len);
		free((void *)in.p);
		check(corpus_str(entry, "name"), json_object_get(entry, "expect"),
		      (struct span){copy, in.len});
		free(copy);
	}
	json_decref(list);
}

/* Wherever a packet is cut off: what is said is true of the whole one. */
static void test_cut_packets(void **state)
{
	static const uint8_t v4[] = {0x46, 0,   0,    32,   0,    0,    0x40, 0,   64, 17,   0,
				     0,    192, 0,    2,    2,    198,  51,   100, 7,  0x94, 4,
				     0,    0,   0x9c, 0x40, 0x01, 0xbb, 0,    8,   0,  0};
	struct refused_packet p = {.prefix = "kept"};

	(void)state;
	for (size_t n = 0; n <= sizeof(v4); n++) {
		uint8_t *copy = malloc(n + !n);
		bool is_packet;

		assert_non_null(copy);
		memcpy(copy, v4, n);
		is_packet = nflog_read_packet((struct span){copy, n}, &p);
		free(copy);
		assert_int_equal(is_packet, n >= 20);
		assert_string_equal(p.prefix, "kept");
		if (!is_packet)
			continue;
		assert_int_equal(p.proto, 17);
		assert_int_equal(p.src.port, n >= 28 ? 40000 : 0);
		assert_int_equal(p.dst.port, n >= 28 ? 443 : 0);
	}
}

static void test_protocol_words(void **state)
{
	static const struct {
		uint8_t proto;
		uint16_t dport;
		const char *want;
	} cases[] = {
		{17, 53, "UDP"},
		{17, 443, "QUIC"},
		{6, 443, "TCP"},
		{1, 0, "ICMP"},
		{58, 0, "ICMPv6"},
		{132, 443, "SCTP"},
		{2, 0, "IGMP"},
		{4, 0, "IPIP"},
		{41, 0, "6in4"},
		{47, 0, "GRE"},
		{50, 0, "ESP"},
		{51, 0, "AH"},
		{136, 1, "UDPLite"},
		{33, 1, "DCCP"},
		{0, 0, "IP protocol 0"},
		{115, 0, "IP protocol 115"},
		{255, 0, "IP protocol 255"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char buf[NFLOG_PROTOCOL_MAX];

		assert_string_equal(nflog_protocol_str(cases[i].proto, cases[i].dport, buf),
				    cases[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_corpus),
		cmocka_unit_test(test_cut_packets),
		cmocka_unit_test(test_protocol_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
