/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Borrowed bytes, and the only way our parsers read them: cutting pieces off the front, each cut
 * checked against the length. Pure, any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Not terminated, may hold NUL. `p` may be NULL when `len` is 0. Owned by somebody else. */
struct span {
	const uint8_t *p;
	size_t len;
};

static inline struct span span_of(const char *text)
{
	return (struct span){(const uint8_t *)text, strlen(text)};
}

/* Cuts `n` bytes off the front of `in`. False, and nothing written, when there are fewer. */
static inline bool span_cut(struct span *in, size_t n, struct span *ret)
{
	if (n > in->len)
		return false;
	*ret = (struct span){in->p, n};
	if (n > 0) {
		in->p += n;
		in->len -= n;
	}
	return true;
}

/* Cuts a big-endian number of `width` (at most 8) bytes. */
static inline bool span_cut_num(struct span *in, size_t width, uint64_t *ret)
{
	struct span head;
	uint64_t n = 0;

	if (!span_cut(in, width, &head))
		return false;
	for (size_t i = 0; i < width; i++)
		n = n << 8 | head.p[i];
	*ret = n;
	return true;
}

/* Cuts a vector with a big-endian length of `width` bytes in front of it (RFC 8446, 3.4). */
static inline bool span_cut_vec(struct span *in, size_t width, struct span *ret)
{
	struct span tmp = *in;
	uint64_t n;

	if (!span_cut_num(&tmp, width, &n) || !span_cut(&tmp, (size_t)n, ret))
		return false;
	*in = tmp;
	return true;
}

static inline bool span_equal(struct span a, struct span b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

/* Compares with ASCII letters folded; `text` is NUL-terminated. */
bool span_equal_nocase(struct span a, const char *text);
