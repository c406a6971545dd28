/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/owned.h"
#include "corpus.h"
#include "sniff/proxy_v2.h"

#define BYTES(text)                                       \
	{                                                 \
		(const uint8_t *)(text), sizeof(text) - 1 \
	}
#define SIG   "\r\n\r\n\0\r\nQUIT\n"
#define ADDRS "\xc0\0\2\x0a\xc6\x33\x64\5\x9c\x40\1\xbb"

static struct proxy_v2 last;

static enum sniff read_header(struct span in)
{
	memset(&last, 0xaa, sizeof(last));
	return proxy_v2_read(in, &last);
}

/* ---- corpus ---- */

/* Where the manifest leaves a choice or our limits are stricter. */
static const struct {
	const char *name;
	enum sniff outcome;
} chosen[] = {
	{"v1_tcp4", SNIFF_BAD},
	{"v1_unknown", SNIFF_BAD},
	{"v1_108_no_crlf", SNIFF_BAD},
	{"sig_only", SNIFF_NEED_MORE},
	{"no_header", SNIFF_NEED_MORE},   /* not one byte yet */
	{"len_65535_partial", SNIFF_BAD}, /* claims more than we would read */
	{"tlv_after_header", SNIFF_FOUND},
	{"big_noop_4000", SNIFF_FOUND},
};

static enum sniff expected(const char *name, const char *expect)
{
	for (size_t i = 0; i < ARRAY_SIZE(chosen); i++) {
		if (strcmp(chosen[i].name, name) == 0)
			return chosen[i].outcome;
	}
	if (strncmp(expect, "abort", 5) == 0)
		return SNIFF_BAD;
	if (strncmp(expect, "ok", 2) != 0)
		fail_msg("%s: no idea what '%s' means", name, expect);
	return SNIFF_FOUND;
}

/* "ok src A dst B authority=C": what is written there must be what was read. */
static void check_words(const char *expect)
{
	char src[ADDR_TEXT], dst[ADDR_TEXT], name[254] = "", buf[ADDR_TEXT];
	const char *authority = strstr(expect, "authority=");

	if (sscanf(expect, "ok src %55s dst %55s", src, dst) == 2) {
		assert_true(last.has_addrs);
		assert_string_equal(addr_print(&last.src, buf), src);
		assert_string_equal(addr_print(&last.dst, buf), dst);
	}
	if (authority) {
		assert_int_equal(sscanf(authority, "authority=%253[^; ]", name), 1);
		assert_string_equal(last.authority, name);
	}
}

static void test_corpus(void **state)
{
	json_t *list = corpus_manifest("proxy_v2"), *entry;
	size_t i;

	(void)state;
	json_array_foreach(list, i, entry)
	{
		const char *name = corpus_str(entry, "name"), *expect = corpus_str(entry, "expect");
		struct span in = corpus_file("proxy_v2", entry);
		enum sniff got = corpus_read_prefix(in, in.len, read_header);

		if (got != expected(name, expect))
			fail_msg("%s: %s (%s), but '%s'", name, sniff_str(got), last.why ?: "",
				 expect);
		assert_int_equal(got == SNIFF_BAD, last.why != NULL);
		if (got == SNIFF_FOUND)
			check_words(expect);
		corpus_check_prefixes(name, in, read_header);
		free((void *)in.p);
	}
	json_decref(list);
}

static void read_named(const char *name)
{
	json_t *list = corpus_manifest("proxy_v2"), *entry;
	bool seen = false;
	size_t i;

	json_array_foreach(list, i, entry)
	{
		struct span in;

		if (strcmp(corpus_str(entry, "name"), name) != 0)
			continue;
		seen = true;
		in = corpus_file("proxy_v2", entry);
		read_header(in);
		free((void *)in.p);
	}
	assert_true(seen);
	json_decref(list);
}

static void test_corpus_details(void **state)
{
	(void)state;
	read_named("tcp4_all_tlvs");
	assert_string_equal(last.authority, "example.com");
	assert_string_equal(last.principal, "spiffe://cluster.local/ns/a/sa/b");
	assert_int_equal(last.unique_id_len, 5);
	assert_memory_equal(last.unique_id, "uid-1", 5);
	read_named("tcp4_crc_good");
	assert_true(last.has_crc);
	read_named("unique_id_128");
	assert_int_equal(last.unique_id_len, 128);
	read_named("authority_empty");
	assert_string_equal(last.authority, "");
	read_named("tlv_after_header");
	assert_int_equal(last.len, 16 + 20);
	read_named("local_with_tlv");
	assert_true(last.local);
	read_named("unix_stream");
	assert_false(last.has_addrs);
	read_named("proxy_unspec_with_tlv");
	assert_false(last.has_addrs);
	assert_string_equal(last.authority, "example.com");
	read_named("v1_tcp4");
	assert_string_equal(last.why, "PROXY version 1");
}

/* ---- headers made here: the TLVs behind a good TCP4 block ---- */

#define TLV(type, len, value) type "\0" len value

static const struct {
	struct span tlvs;
	const char *why; /* NULL: good */
} cases[] = {
	{BYTES(""), NULL},
	{BYTES(TLV("\2", "\6", "A.TEST")), NULL},
	{BYTES(TLV("\2", "\6", "a.test") TLV("\2", "\6", "a.test")), "a TLV twice"},
	{BYTES(TLV("\2", "\0", "") TLV("\2", "\0", "")), "a TLV twice"},
	{BYTES(TLV("\5", "\1", "a") TLV("\5", "\1", "a")), "a TLV twice"},
	{BYTES(TLV("\xe0", "\1", "a") TLV("\xe0", "\1", "b")), "a TLV twice"},
	{BYTES(TLV("\xe1", "\1", "a") TLV("\xe1", "\1", "b")), "a TLV twice"},
	{BYTES(TLV("\4", "\1", "a") TLV("\4", "\1", "b")), NULL}, /* NOOP may come often */
	{BYTES(TLV("\xee", "\1", "a") TLV("\xee", "\1", "b")), NULL},
	{BYTES(TLV("\2", "\7", "a.test\0")), "authority is no host name"},
	{BYTES(TLV("\2", "\6", "a test")), "authority is no host name"},
	{BYTES(TLV("\2", "\x0a", "a.test:443")), "authority is no host name"},
	{BYTES(TLV("\2", "\x09", "192.0.2.1")), "authority is an IP address"},
	{BYTES(TLV("\2", "\3", "::1")), "authority is an IP address"},
	{BYTES(TLV("\xe0", "\3", "a\0b")), "byte that no name has"},
	{BYTES(TLV("\xe1", "\3", "a\nb")), "byte that no name has"},
	{BYTES(TLV("\xe1", "\3", "a b")), "byte that no name has"},
	{BYTES(TLV("\xe1", "\3",
		   "a\x80"
		   "b")),
	 "byte that no name has"},
	{BYTES(TLV("\3", "\4", "\1\2\3\4")), "wrong CRC32C"},
	{BYTES(TLV("\3", "\5", "\1\2\3\4\5")), "CRC32C is not 4 bytes long"},
	{BYTES(TLV("\2", "\7", "a.test")), "TLVs overrun the header"},
	{BYTES("\2\0"), "TLVs overrun the header"},
	{BYTES("\2"), "TLVs overrun the header"},
	{BYTES("\2\xff\xff"), "TLVs overrun the header"},
};

/* A header with `body` behind the 16 bytes. Returns its length. */
static size_t make(uint8_t *buf, uint8_t family, const void *addrs, size_t n, struct span tlvs)
{
	memcpy(buf, SIG "\x21", 13);
	buf[13] = family;
	buf[14] = (uint8_t)((n + tlvs.len) >> 8);
	buf[15] = (uint8_t)(n + tlvs.len);
	memcpy(buf + 16, addrs, n);
	memcpy(buf + 16 + n, tlvs.p, tlvs.len);
	return 16 + n + tlvs.len;
}

static void test_tlvs(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t buf[512];
		struct span in = {buf, make(buf, 0x11, ADDRS, 12, cases[i].tlvs)};
		enum sniff r = corpus_read_prefix(in, in.len, read_header);

		if ((r == SNIFF_FOUND) != !cases[i].why || (r == SNIFF_BAD) != !!cases[i].why)
			fail_msg("case %zu: %s %s", i, sniff_str(r), last.why ?: "");
		if (cases[i].why)
			assert_string_equal(last.why, cases[i].why);
		corpus_check_prefixes("header", in, read_header);
	}
}

static void test_families(void **state)
{
	static const struct {
		uint8_t family;
		size_t n;
		enum sniff outcome;
	} families[] = {
		{0x11, 12, SNIFF_FOUND}, {0x11, 11, SNIFF_BAD},    {0x21, 36, SNIFF_FOUND},
		{0x21, 35, SNIFF_BAD},   {0x31, 216, SNIFF_FOUND}, {0x31, 215, SNIFF_BAD},
		{0x00, 0, SNIFF_FOUND},  {0x12, 12, SNIFF_BAD},    {0x22, 36, SNIFF_BAD},
		{0x32, 216, SNIFF_BAD},  {0x01, 0, SNIFF_BAD},     {0x10, 12, SNIFF_BAD},
		{0x13, 12, SNIFF_BAD},   {0x41, 12, SNIFF_BAD},
	};
	static const uint8_t zeros[216];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		struct span none = BYTES("");
		uint8_t buf[512];
		size_t n = make(buf, families[i].family, zeros, families[i].n, none);

		if (read_header((struct span){buf, n}) != families[i].outcome)
			fail_msg("family %#x, %zu bytes", families[i].family, families[i].n);
	}
}

static void test_lengths(void **state)
{
	uint8_t buf[PROXY_V2_READ_MAX] = SIG "\x21\x11";
	size_t most = PROXY_V2_READ_MAX - 16, noop = most - 12 - 3;

	(void)state;
	memcpy(buf + 16, ADDRS, 12);
	buf[28] = 4;
	buf[29] = (uint8_t)(noop >> 8);
	buf[30] = (uint8_t)noop;
	buf[14] = (uint8_t)(most >> 8);
	buf[15] = (uint8_t)most;
	assert_int_equal(read_header((struct span){buf, sizeof(buf)}), SNIFF_FOUND);
	assert_int_equal(last.len, PROXY_V2_READ_MAX);
	buf[14] = (uint8_t)((most + 1) >> 8);
	buf[15] = (uint8_t)(most + 1);
	assert_int_equal(read_header((struct span){buf, 15}), SNIFF_NEED_MORE);
	assert_int_equal(read_header((struct span){buf, 16}), SNIFF_BAD);
}

/* A TLV of `n` bytes 'x'. */
static enum sniff read_filled(uint8_t type, size_t n)
{
	uint8_t tlv[1024] = {type, (uint8_t)(n >> 8), (uint8_t)n}, buf[2048];

	memset(tlv + 3, 'x', n);
	return read_header(
		(struct span){buf, make(buf, 0x11, ADDRS, 12, (struct span){tlv, n + 3})});
}

static void test_value_limits(void **state)
{
	static const struct {
		uint8_t type;
		size_t most;
	} values[] = {{0x02, 63}, {0x05, 128}, {0xe0, 511}, {0xe1, 319}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		assert_int_equal(read_filled(values[i].type, values[i].most), SNIFF_FOUND);
		assert_int_equal(read_filled(values[i].type, values[i].most + 1), SNIFF_BAD);
	}
}

/* Bit by bit, as RFC 3720 defines it. */
static uint32_t slow_crc32c(const uint8_t *p, size_t n)
{
	uint32_t crc = 0xffffffff;

	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

/* Over the header as it is, its own four bytes zero. A second one is refused, whatever it says. */
static void test_checksums(void **state)
{
	struct span tlvs = BYTES(TLV("\3", "\4", "\0\0\0\0") TLV("\3", "\4", "\0\0\0\0"));

	(void)state;
	for (size_t n = 1; n <= 2; n++) {
		uint8_t buf[128];
		struct span in = {
			buf, make(buf, 0x11, ADDRS, 12, (struct span){tlvs.p, n * tlvs.len / 2})};
		uint32_t crc = slow_crc32c(buf, in.len);

		for (int i = 0; i < 4; i++)
			buf[28 + 3 + i] = (uint8_t)(crc >> (24 - 8 * i));
		assert_int_equal(read_header(in), n == 1 ? SNIFF_FOUND : SNIFF_BAD);
		if (n == 2)
			assert_string_equal(last.why, "a TLV twice");
	}
}

/* A flipped bit anywhere is noticed, by the checksum if by nothing else. Not where it would change
 * what the receiver must ignore (LOCAL), make it wait for more, or hide the checksum itself.
 */
static void test_crc_guards_every_bit(void **state)
{
	struct proxy_v2 header = {.has_addrs = true, .authority = "a.test", .pod = "ns/p"};
	uint8_t buf[PROXY_V2_MAX];
	int len = proxy_v2_write(&header, buf);

	(void)state;
	assert_true(len > 16);
	for (int i = 13; i < len; i++) {
		for (int bit = 0; bit < 8; bit++) {
			enum sniff r;

			buf[i] ^= (uint8_t)(1 << bit);
			r = read_header((struct span){buf, (size_t)len});
			if (r == SNIFF_FOUND && last.has_crc)
				fail_msg("bit %d of byte %d", bit, i);
			if (r == SNIFF_FOUND && i != len - 7)
				fail_msg("bit %d of byte %d hides the checksum", bit, i);
			buf[i] ^= (uint8_t)(1 << bit);
		}
	}
	assert_int_equal(read_header((struct span){buf, (size_t)len}), SNIFF_FOUND);
}

/* ---- writing ---- */

static uint32_t dice(void)
{
	static uint32_t x = 2463534242; /* xorshift: the same run every time */

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return x;
}

static void random_text(char *buf, size_t size, const char *alphabet)
{
	size_t n = dice() % size;

	for (size_t i = 0; i < n; i++)
		buf[i] = alphabet[dice() % strlen(alphabet)];
	buf[n] = '\0';
}

static void random_addr(struct addr *ret)
{
	*ret = (struct addr){.port = (uint16_t)dice()};
	if (dice() % 2)
		memset(ret->ip + 10, 0xff, 2); /* IPv4 */
	for (int i = ret->ip[10] ? 12 : 0; i < 16; i++)
		ret->ip[i] = (uint8_t)dice();
}

static void random_header(struct proxy_v2 *h)
{
	*h = (struct proxy_v2){.has_addrs = dice() % 8 != 0};
	if (h->has_addrs) {
		random_addr(&h->src);
		random_addr(&h->dst);
	}
	for (size_t n = 0; dice() % 5 != 0 && n < 4; n++)
		strcat(h->authority, n == 0 ? "a-_z09" : ".abc");
	random_text(h->principal, sizeof(h->principal), "spiffe://cluster.local/\"%~!");
	random_text(h->pod, sizeof(h->pod), "ns/pod-0");
	h->unique_id_len = (uint8_t)(dice() % (sizeof(h->unique_id) + 1));
	for (size_t i = 0; i < h->unique_id_len; i++)
		h->unique_id[i] = (uint8_t)dice();
}

static void test_round_trip(void **state)
{
	(void)state;
	for (int i = 0; i < 3000; i++) {
		uint8_t buf[PROXY_V2_MAX];
		struct proxy_v2 h;
		int len;

		random_header(&h);
		len = proxy_v2_write(&h, buf);
		assert_true(len > 16);
		assert_int_equal(read_header((struct span){buf, (size_t)len - 1}), SNIFF_NEED_MORE);
		if (read_header((struct span){buf, (size_t)len}) != SNIFF_FOUND)
			fail_msg("round %d: %s", i, last.why);
		assert_int_equal(last.len, len);
		assert_true(last.has_crc);
		assert_false(last.local);
		assert_int_equal(last.has_addrs, h.has_addrs);
		assert_true(addr_equal(&last.src, &h.src) && addr_equal(&last.dst, &h.dst));
		assert_string_equal(last.authority, h.authority);
		assert_string_equal(last.principal, h.principal);
		assert_string_equal(last.pod, h.pod);
		assert_int_equal(last.unique_id_len, h.unique_id_len);
		assert_memory_equal(last.unique_id, h.unique_id, sizeof(h.unique_id));
	}
}

static void test_write_families(void **state)
{
	struct proxy_v2 h = {.has_addrs = true};
	uint8_t buf[PROXY_V2_MAX];

	(void)state;
	assert_int_equal(addr_parse("192.0.2.10:40000", &h.src), 0);
	assert_int_equal(addr_parse("198.51.100.5:443", &h.dst), 0);
	assert_int_equal(proxy_v2_write(&h, buf), 16 + 12 + 7);
	assert_memory_equal(buf, SIG "\x21\x11\0\x13" ADDRS, 28);
	assert_int_equal(addr_parse("[2001:db8::5]:443", &h.dst), 0);
	assert_int_equal(proxy_v2_write(&h, buf), 16 + 36 + 7);
	assert_int_equal(buf[13], 0x21);
	assert_memory_equal(buf + 16, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\x0a", 16);
}

static void test_write_limits(void **state)
{
	struct proxy_v2 h = {.local = true}, full = {.has_addrs = true};
	uint8_t buf[PROXY_V2_MAX];

	(void)state;
	assert_int_equal(proxy_v2_write(&h, buf), 16);
	assert_memory_equal(buf, SIG "\x20\0\0\0", 16);
	assert_int_equal(read_header((struct span){buf, 16}), SNIFF_FOUND);
	assert_true(last.local);

	full.unique_id_len = 129;
	assert_int_equal(proxy_v2_write(&full, buf), -EMSGSIZE);
	full.unique_id_len = 128;
	memset(full.principal, 'x', sizeof(full.principal));
	assert_int_equal(proxy_v2_write(&full, buf), -EMSGSIZE);
	full.principal[511] = '\0';
	memset(full.pod, 'x', sizeof(full.pod) - 1);
	assert_true(proxy_v2_write(&full, buf) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_corpus),       cmocka_unit_test(test_corpus_details),
		cmocka_unit_test(test_tlvs),         cmocka_unit_test(test_families),
		cmocka_unit_test(test_lengths),      cmocka_unit_test(test_value_limits),
		cmocka_unit_test(test_checksums),    cmocka_unit_test(test_crc_guards_every_bit),
		cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_write_families),
		cmocka_unit_test(test_write_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
