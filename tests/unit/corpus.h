/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Reading tests/corpus from the repository's root, and cutting its inputs as a network would. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/span.h"
#include "sniff/tls_hello.h" /* enum sniff */

static inline const char *sniff_str(enum sniff r)
{
	static const char *const words[] = {"FOUND", "NEED_MORE", "NO_NAME", "NOT", "BAD"};

	return words[r];
}

static inline json_t *corpus_manifest(const char *folder)
{
	char path[256];
	json_error_t err;
	json_t *list;

	snprintf(path, sizeof(path), "tests/corpus/%s/manifest.json", folder);
	list = json_load_file(path, 0, &err);
	if (!json_is_array(list) || json_array_size(list) == 0)
		fail_msg("%s: %s", path, err.text);
	return list;
}

static inline const char *corpus_str(const json_t *entry, const char *key)
{
	return json_string_value(json_object_get(entry, key));
}

/* The bytes of an entry's file; NAME.bin when it names none. free() them. */
static inline struct span corpus_file(const char *folder, const json_t *entry)
{
	const char *file = corpus_str(entry, "file");
	const size_t most = 1 << 20;
	uint8_t *bytes = malloc(most);
	char path[256];
	FILE *f;
	size_t n;

	assert_non_null(bytes);
	if (file)
		snprintf(path, sizeof(path), "tests/corpus/%s/%s", folder, file);
	else
		snprintf(path, sizeof(path), "tests/corpus/%s/%s.bin", folder,
			 corpus_str(entry, "name"));
	f = fopen(path, "rb");
	if (!f)
		fail_msg("cannot open %s", path);
	n = fread(bytes, 1, most, f);
	fclose(f);
	assert_true(n < most);
	return (struct span){bytes, n};
}

/* Calls `read` with the first `n` bytes, alone in memory of their own so that sanitizers see what
 * is read behind them.
 */
static inline enum sniff corpus_read_prefix(struct span in, size_t n,
					    enum sniff (*read)(struct span))
{
	uint8_t *copy = malloc(n + !n);
	enum sniff r;

	assert_non_null(copy);
	if (n > 0)
		memcpy(copy, in.p, n);
	r = read((struct span){copy, n});
	free(copy);
	return r;
}

/* Byte by byte, but for the long middle of the few huge inputs. */
static inline size_t corpus_step(size_t n, size_t len)
{
	return len > 32768 && n > 4096 && n + 6000 < len ? 61 : 1;
}

/* Every prefix needs more until one decides; no further byte changes that. */
static inline void corpus_check_prefixes(const char *name, struct span in,
					 enum sniff (*read)(struct span))
{
	enum sniff whole = corpus_read_prefix(in, in.len, read);
	bool decided = false;

	for (size_t n = 0; n <= in.len; n += corpus_step(n, in.len)) {
		enum sniff r = corpus_read_prefix(in, n, read);

		decided = decided || r != SNIFF_NEED_MORE;
		if (r != (decided ? whole : SNIFF_NEED_MORE))
			fail_msg("%s: %zu of %zu bytes give %s, all give %s", name, n, in.len,
				 sniff_str(r), sniff_str(whole));
	}
}

/* As it would arrive in the pieces that the manifest names. */
static inline void corpus_check_cuts(const json_t *entry, struct span in,
				     enum sniff (*read)(struct span))
{
	const json_t *cuts = json_object_get(entry, "write_cuts"), *cut;
	enum sniff whole = corpus_read_prefix(in, in.len, read);
	size_t i;

	json_array_foreach(cuts, i, cut)
	{
		size_t n = (size_t)json_integer_value(cut);
		enum sniff r;

		assert_true(n <= in.len);
		r = corpus_read_prefix(in, n, read);
		if (r != SNIFF_NEED_MORE && r != whole)
			fail_msg("%s: cut at %zu gives %s, all give %s", corpus_str(entry, "name"),
				 n, sniff_str(r), sniff_str(whole));
	}
}
