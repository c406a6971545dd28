/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/owned.h"
#include "sniff/host.h"

#define TEN     "aaaaaaaaaa"
#define LABEL63 TEN TEN TEN TEN TEN TEN "aaa"
#define NAME253 LABEL63 "." LABEL63 "." LABEL63 "." TEN TEN TEN TEN TEN TEN "a"

/* A literal with NUL in it, without its last NUL. */
#define BYTES(text)                                       \
	{                                                 \
		(const uint8_t *)(text), sizeof(text) - 1 \
	}

static const struct {
	struct span raw;
	enum host_kind kind;
	const char *name; /* normalised, or for BAD: why */
} cases[] = {
	{BYTES("example.com"), HOST_NAME, "example.com"},
	{BYTES("EXAMPLE.Com"), HOST_NAME, "example.com"},
	{BYTES("example.com."), HOST_NAME, "example.com"},
	{BYTES("localhost"), HOST_NAME, "localhost"},
	{BYTES("a_b.example.com"), HOST_NAME, "a_b.example.com"},
	{BYTES("_dmarc.example.com"), HOST_NAME, "_dmarc.example.com"},
	{BYTES("outbound_.80_._.x.svc"), HOST_NAME, "outbound_.80_._.x.svc"},
	{BYTES("xn--bcher-kva.example"), HOST_NAME, "xn--bcher-kva.example"},
	{BYTES("1.example"), HOST_NAME, "1.example"},
	{BYTES("12345"), HOST_NAME, "12345"},
	{BYTES("1.2.3.4.example"), HOST_NAME, "1.2.3.4.example"},
	{BYTES(LABEL63), HOST_NAME, LABEL63},
	{BYTES(NAME253), HOST_NAME, NAME253},
	{BYTES(NAME253 "."), HOST_NAME, NAME253},

	{BYTES("192.0.2.1"), HOST_LITERAL, NULL},
	{BYTES("192.0.2.1."), HOST_LITERAL, NULL},
	{BYTES("0.0.0.0"), HOST_LITERAL, NULL},
	{BYTES("::"), HOST_LITERAL, NULL},
	{BYTES("2001:db8::1"), HOST_LITERAL, NULL},
	{BYTES("2001:DB8::1"), HOST_LITERAL, NULL},
	{BYTES("[2001:db8::1]"), HOST_LITERAL, NULL},
	{BYTES("::ffff:192.0.2.1"), HOST_LITERAL, NULL},

	{BYTES(""), HOST_BAD, "empty host name"},
	{BYTES("."), HOST_BAD, "empty label in host name"},
	{BYTES(".."), HOST_BAD, "empty label in host name"},
	{BYTES(".example.com"), HOST_BAD, "empty label in host name"},
	{BYTES("a..example.com"), HOST_BAD, "empty label in host name"},
	{BYTES("example.com.."), HOST_BAD, "empty label in host name"},
	{BYTES(LABEL63 "a"), HOST_BAD, "no host name"},
	{BYTES(NAME253 "a"), HOST_BAD, "host name over 253 bytes"},
	{BYTES(NAME253 "a."), HOST_BAD, "host name over 253 bytes"},
	{BYTES("\0example.com"), HOST_BAD, "NUL in host name"},
	{BYTES("example.com\0"), HOST_BAD, "NUL in host name"},
	{BYTES("example.com\0.evil.net"), HOST_BAD, "NUL in host name"},
	{BYTES("exa\ample.com"), HOST_BAD, "control character in host name"},
	{BYTES("example.com\n"), HOST_BAD, "control character in host name"},
	{BYTES("example.com\x7f"), HOST_BAD, "control character in host name"},
	{BYTES("b\xc3\xbc.example"), HOST_BAD, "byte that no host name has"},
	{BYTES("exa mple.com"), HOST_BAD, "byte that no host name has"},
	{BYTES("*.example.com"), HOST_BAD, "byte that no host name has"},
	{BYTES("example.com:443"), HOST_BAD, "byte that no host name has"},
	{BYTES("user@example.com"), HOST_BAD, "byte that no host name has"},
	{BYTES("%s%n.example.com"), HOST_BAD, "byte that no host name has"},
	{BYTES("127.1"), HOST_BAD, "no host name"},
	{BYTES("256.1.1.1"), HOST_BAD, "no host name"},
	{BYTES("1.2.3.4.5"), HOST_BAD, "no host name"},
	{BYTES("010.0.0.1"), HOST_BAD, "no host name"},
	{BYTES("example.1"), HOST_BAD, "no host name"},
	{BYTES("[192.0.2.1]"), HOST_BAD, "byte that no host name has"},
	{BYTES("[example.com]"), HOST_BAD, "byte that no host name has"},
	{BYTES("[]"), HOST_BAD, "byte that no host name has"},
	{BYTES("[::1"), HOST_BAD, "byte that no host name has"},
	{BYTES("::1]"), HOST_BAD, "byte that no host name has"},
	{BYTES("[[::1]]"), HOST_BAD, "byte that no host name has"},
	{BYTES("::1."), HOST_BAD, "byte that no host name has"},
	{BYTES("fe80::1%eth0"), HOST_BAD, "byte that no host name has"},
	{BYTES("::1\0"), HOST_BAD, "byte that no host name has"},
	{BYTES("1:2:3:4:5:6:7:8:9"), HOST_BAD, "byte that no host name has"},
};

static void test_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED_MEM uint8_t *copy = malloc(cases[i].raw.len + 1); /* exact, for ASan */
		struct span raw = {copy, cases[i].raw.len}, name = {0};
		char buf[HOST_MAX + 1];
		enum host_kind kind;

		assert_non_null(copy);
		memcpy(copy, cases[i].raw.p, raw.len);
		kind = host_normalise(raw, buf, &name);
		if (kind != cases[i].kind)
			fail_msg("case %zu '%s': kind %d", i, cases[i].raw.p, kind);
		if (kind == HOST_NAME) {
			assert_string_equal(buf, cases[i].name);
			assert_ptr_equal(name.p, buf);
			assert_int_equal(name.len, strlen(buf));
		} else {
			assert_null(name.p);
		}
		if (kind == HOST_BAD)
			assert_string_equal(host_bad_why(raw), cases[i].name);
	}
}

/* What every single byte does inside a name. */
static void test_each_byte(void **state)
{
	(void)state;
	for (int c = 0; c < 256; c++) {
		uint8_t raw[] = {'a', (uint8_t)c, 'b'};
		char buf[HOST_MAX + 1];
		struct span name;
		bool good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
			    (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.';

		assert_int_equal(host_normalise((struct span){raw, 3}, buf, &name) == HOST_NAME,
				 good);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_each_byte),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
