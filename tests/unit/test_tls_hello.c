/* SPDX-License-Identifier: Apache-2.0 */
#include "base/owned.h"
#include "corpus.h"
#include "sniff/tls_hello.h"

#define MAX 65536

static struct tls_hello last; /* what the last call wrote */

static enum sniff read_hello(struct span in)
{
	memset(&last, 0xaa, sizeof(last)); /* it must not count on zeros */
	return tls_hello_read(in, MAX, &last);
}

/* ---- corpora ---- */

/* Well formed by the manifest, and still no name that we take. */
static const struct {
	const char *name;
	enum sniff outcome;
} stricter[] = {
	{"sni_ipv6", SNIFF_NO_NAME}, {"sni_ipv6_brackets", SNIFF_NO_NAME},
	{"sni_utf8", SNIFF_BAD},     {"sni_double_dot", SNIFF_BAD},
	{"sni_dot", SNIFF_BAD},      {"sni_space", SNIFF_BAD},
	{"sni_port", SNIFF_BAD},     {"sni_slash", SNIFF_BAD},
	{"sni_quote", SNIFF_BAD},    {"sni_pct", SNIFF_BAD},
	{"sni_len_254", SNIFF_BAD},  {"sni_len_255", SNIFF_BAD},
	{"sni_bel", SNIFF_BAD},
};

static enum sniff expected(const char *name, const char *class, const char *sni)
{
	for (size_t i = 0; i < ARRAY_SIZE(stricter); i++) {
		if (strcmp(stricter[i].name, name) == 0)
			return stricter[i].outcome;
	}
	if (strcmp(class, "ok") == 0)
		return sni ? SNIFF_FOUND : SNIFF_NO_NAME;
	if (strcmp(class, "not_tls") == 0)
		return SNIFF_NOT;
	if (strcmp(class, "need_more") == 0)
		return SNIFF_NEED_MORE;
	assert_true(strcmp(class, "malformed") == 0 || strcmp(class, "sslv2") == 0);
	return SNIFF_BAD;
}

/* `last` against the name of the manifest: folded, without trailing dot. */
static void check_name(const char *sni)
{
	size_t n = strlen(sni);

	assert_string_equal(last.raw_name, sni);
	if (sni[n - 1] == '.')
		n--;
	assert_int_equal(strlen(last.name), n);
	assert_true(span_equal_nocase((struct span){(const uint8_t *)sni, n}, last.name));
	for (const char *c = last.name; *c; c++)
		assert_false(*c >= 'A' && *c <= 'Z');
}

static void check_entry(const char *folder, const json_t *entry, const json_t *strict,
			const char *class)
{
	const char *name = corpus_str(entry, "name"), *sni = corpus_str(strict, "sni");
	struct span in = corpus_file(folder, entry);
	enum sniff want = expected(name, class, sni),
		   got = corpus_read_prefix(in, in.len, read_hello);

	if (got != want)
		fail_msg("%s: %s (%s), not %s", name, sniff_str(got), last.why ?: "",
			 sniff_str(want));
	if (got == SNIFF_FOUND)
		check_name(sni);
	else
		assert_string_equal(last.name, "");
	if (got == SNIFF_FOUND || got == SNIFF_NO_NAME)
		assert_int_equal(last.ech, corpus_str(strict, "ech") != NULL);
	assert_int_equal(got == SNIFF_BAD, last.why != NULL);
	corpus_check_prefixes(name, in, read_hello);
	corpus_check_cuts(entry, in, read_hello);
	free((void *)in.p);
}

static void test_corpus(void **state)
{
	json_t *list = corpus_manifest("clienthello"), *entry;
	size_t i;

	(void)state;
	json_array_foreach(list, i, entry)
	{
		const json_t *strict = json_object_get(entry, "strict");

		check_entry("clienthello", entry, strict, corpus_str(strict, "class"));
	}
	json_decref(list);
}

static void test_real_clients(void **state)
{
	json_t *list = corpus_manifest("real"), *entry;
	size_t i;

	(void)state;
	json_array_foreach(list, i, entry)
		check_entry("real", entry, entry, corpus_str(entry, "cls"));
	json_decref(list);
}

/* ---- hellos made here ---- */

struct made {
	uint8_t p[70000];
	size_t len;
};

static void add(struct made *m, const void *bytes, size_t n)
{
	assert_true(m->len + n <= sizeof(m->p));
	memcpy(m->p + m->len, bytes, n);
	m->len += n;
}

static void add_num(struct made *m, size_t width, size_t n)
{
	while (width-- > 0)
		add(m, &(uint8_t){(uint8_t)(n >> (8 * width))}, 1);
}

static void add_zeros(struct made *m, size_t n)
{
	while (n-- > 0)
		add_num(m, 1, 0);
}

struct shape {
	size_t session, suites, compression;
	struct span exts;
};

/* The handshake message, without records. */
static void make_hello(struct made *m, struct shape s)
{
	size_t body = 2 + 32 + 1 + s.session + 2 + s.suites + 1 + s.compression + 2 + s.exts.len;

	m->len = 0;
	add_num(m, 1, 1);
	add_num(m, 3, body);
	add_num(m, 2, 0x0303);
	add_zeros(m, 32);
	add_num(m, 1, s.session);
	add_zeros(m, s.session);
	add_num(m, 2, s.suites);
	add_zeros(m, s.suites);
	add_num(m, 1, s.compression);
	add_zeros(m, s.compression);
	add_num(m, 2, s.exts.len);
	add(m, s.exts.p, s.exts.len);
}

/* The same bytes in records of `size`. */
static void make_records(struct made *m, const struct made *hello, size_t size)
{
	m->len = 0;
	for (size_t at = 0; at < hello->len; at += size) {
		size_t n = hello->len - at < size ? hello->len - at : size;

		add_num(m, 1, 22);
		add_num(m, 2, 0x0301);
		add_num(m, 2, n);
		add(m, hello->p + at, n);
	}
}

#define BYTES(text)                                       \
	{                                                 \
		(const uint8_t *)(text), sizeof(text) - 1 \
	}
#define SNI "\0\0\0\x0b\0\x09\0\0\x06x.test" /* 15 bytes */

static const struct {
	const char *what;
	struct shape shape;
	enum sniff outcome;
	const char *text; /* the name, or why */
} shapes[] = {
	{"plain", {32, 2, 1, BYTES(SNI)}, SNIFF_FOUND, "x.test"},
	{"no session, many suites", {0, 400, 2, BYTES(SNI)}, SNIFF_FOUND, "x.test"},
	{"session id", {33, 2, 1, BYTES(SNI)}, SNIFF_BAD, "session id"},
	{"no suites", {0, 0, 1, BYTES(SNI)}, SNIFF_BAD, "cipher suites"},
	{"odd suites", {0, 3, 1, BYTES(SNI)}, SNIFF_BAD, "cipher suites"},
	{"no compression", {0, 2, 0, BYTES(SNI)}, SNIFF_BAD, "compression methods"},
	{"no extensions", {0, 2, 1, BYTES("")}, SNIFF_NO_NAME, ""},
	{"IPv4",
	 {0, 2, 1,
	  BYTES("\0\0\0\x0e\0\x0c\0\0\x09"
		"192.0.2.1")},
	 SNIFF_NO_NAME,
	 ""},
	{"two names",
	 {0, 2, 1, BYTES("\0\0\0\x0a\0\x08\0\0\1a\0\0\1b")},
	 SNIFF_BAD,
	 "two server names"},
	{"two extensions", {0, 2, 1, BYTES(SNI SNI)}, SNIFF_BAD, "two server_name extensions"},
	{"other twice",
	 {0, 2, 1, BYTES(SNI "\0\x17\0\0\0\x17\0\0")},
	 SNIFF_BAD,
	 "an extension twice"},
	{"type 65535 twice",
	 {0, 2, 1, BYTES("\xff\xff\0\0\xff\xff\0\0")},
	 SNIFF_BAD,
	 "an extension twice"},
	{"half an extension",
	 {0, 2, 1, BYTES(SNI "\0\x17\0")},
	 SNIFF_BAD,
	 "extensions: lengths do not add up"},
	{"NUL behind",
	 {0, 2, 1, BYTES("\0\0\0\x0b\0\x09\0\0\x06x.tes\0")},
	 SNIFF_BAD,
	 "NUL in host name"},
	{"ECH, outer name", {0, 2, 1, BYTES(SNI "\xfe\x0d\0\1\0")}, SNIFF_FOUND, "x.test"},
	{"name, then bad ALPN",
	 {0, 2, 1, BYTES(SNI "\0\x10\0\2\0\0")},
	 SNIFF_BAD,
	 "alpn: lengths do not add up"},
};

static void test_shapes(void **state)
{
	static struct made hello, wire;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		const size_t sizes[] = {16384, 100, 7, 1};

		make_hello(&hello, shapes[i].shape);
		for (size_t j = 0; j < ARRAY_SIZE(sizes); j++) {
			struct span in = {wire.p, 0};
			enum sniff r;

			make_records(&wire, &hello, sizes[j]);
			in.len = wire.len;
			r = corpus_read_prefix(in, in.len, read_hello);
			if (r != shapes[i].outcome)
				fail_msg("%s: %s %s", shapes[i].what, sniff_str(r), last.why ?: "");
			assert_string_equal(r == SNIFF_BAD ? last.why : last.name, shapes[i].text);
			corpus_check_prefixes(shapes[i].what, in, read_hello);
		}
	}
}

/* A real hello in records of every size says the same. */
static void test_every_record_size(void **state)
{
	static struct made hello, wire;
	json_t *list = corpus_manifest("real");
	struct span in = corpus_file("real", json_array_get(list, 0));

	(void)state;
	assert_true(in.len > 5);
	add(&hello, in.p + 5, in.len - 5);
	for (size_t size = 1; size <= hello.len; size++) {
		make_records(&wire, &hello, size);
		assert_int_equal(read_hello((struct span){wire.p, wire.len}), SNIFF_FOUND);
		assert_string_equal(last.name, "host.example");
		assert_int_equal(read_hello((struct span){wire.p, wire.len - 1}), SNIFF_NEED_MORE);
	}
	free((void *)in.p);
	json_decref(list);
}

static const struct {
	struct span in;
	size_t max;
	enum sniff outcome;
	const char *why;
} limits[] = {
	/* A record may not be longer than 2^14, nor than what is allowed. */
	{BYTES("\x16\x03\x01\x40\x01"), MAX, SNIFF_BAD, "record over 16384 bytes"},
	{BYTES("\x16\x03\x01\x40\x00"), MAX, SNIFF_NEED_MORE, NULL},
	{BYTES("\x16\x03\x01\x40\x00"), 16388, SNIFF_BAD, "hello longer than allowed"},
	{BYTES("\x16\x03\x01\x40\x00"), 16389, SNIFF_NEED_MORE, NULL},
	{BYTES("\x16\x03\x01\x00\x00"), MAX, SNIFF_BAD, "empty record"},
	/* The hello's own length: 5 + 4 + n. */
	{BYTES("\x16\x03\x01\x00\x04\x01\x00\x00\x5c"), 100, SNIFF_BAD,
	 "hello longer than allowed"},
	{BYTES("\x16\x03\x01\x00\x04\x01\x00\x00\x5b"), 100, SNIFF_NEED_MORE, NULL},
	{BYTES("\x16\x03\x01\x00\x04\x01\xff\xff\xff"), MAX, SNIFF_BAD,
	 "hello longer than allowed"},
	{BYTES("\x16\x03\x01\x00\x01\x01"), 6, SNIFF_BAD, "hello longer than allowed"},
	/* First bytes. */
	{BYTES("\x80"), MAX, SNIFF_NEED_MORE, NULL},
	{BYTES("\x80\x2e\x01\x00"), MAX, SNIFF_NEED_MORE, NULL},
	{BYTES("\x80\x2e\x01\x00\x02"), MAX, SNIFF_BAD, "SSLv2 hello"},
	{BYTES("\x80\x2e\x01\x03\x03"), MAX, SNIFF_BAD, "SSLv2 hello"},
	{BYTES("\x80\x2e\x01\x00\x05"), MAX, SNIFF_NOT, NULL},
	{BYTES("\x80\x2e\x04"), MAX, SNIFF_NOT, NULL},
	{BYTES("\x16\x02"), MAX, SNIFF_NOT, NULL},
	{BYTES("\x16\x03"), MAX, SNIFF_NEED_MORE, NULL},
	{BYTES("G"), MAX, SNIFF_NOT, NULL},
	{BYTES(""), MAX, SNIFF_NEED_MORE, NULL},
};

static void test_limits(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		enum sniff r = tls_hello_read(limits[i].in, limits[i].max, &last);

		if (r != limits[i].outcome)
			fail_msg("case %zu: %s (%s)", i, sniff_str(r), last.why ?: "");
		if (limits[i].why)
			assert_string_equal(last.why, limits[i].why);
		else
			assert_null(last.why);
	}
}

/* Exactly as long as allowed is allowed, one byte more is not. */
static void test_max_is_exact(void **state)
{
	static struct made hello, wire;

	(void)state;
	make_hello(&hello, shapes[0].shape);
	make_records(&wire, &hello, 10);
	assert_int_equal(tls_hello_read((struct span){wire.p, wire.len}, wire.len, &last),
			 SNIFF_FOUND);
	assert_int_equal(tls_hello_read((struct span){wire.p, wire.len}, wire.len - 1, &last),
			 SNIFF_BAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_corpus), cmocka_unit_test(test_real_clients),
		cmocka_unit_test(test_shapes), cmocka_unit_test(test_every_record_size),
		cmocka_unit_test(test_limits), cmocka_unit_test(test_max_is_exact),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
