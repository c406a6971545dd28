/* SPDX-License-Identifier: Apache-2.0 */
#include "base/num.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define TEN_YEARS_MS (10ULL * 365 * 24 * 3600 * 1000)

/* Reads digits from *text on and moves it. -EINVAL without a digit, -ERANGE on overflow. */
static int digits(const char **text, uint64_t *ret)
{
	const char *p = *text;
	uint64_t n = 0;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
			return -ERANGE;
	}
	*text = p;
	*ret = n;
	return 0;
}

int num_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t n;
	int r;

	r = digits(&text, &n);
	if (r < 0)
		return r;
	if (*text != '\0')
		return -EINVAL;
	if (n < min || n > max)
		return -ERANGE;
	*ret = n;
	return 0;
}

int num_parse_port(const char *text, uint16_t *ret)
{
	uint64_t n;
	int r;

	r = num_parse_u64(text, 1, UINT16_MAX, &n);
	if (r < 0)
		return r;
	*ret = (uint16_t)n;
	return 0;
}

int num_parse_duration_ms(const char *text, uint64_t *ret)
{
	static const struct {
		const char *suffix; /* "ms" before "m": the longer one first */
		uint64_t ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
	uint64_t total = 0;

	if (*text == '\0')
		return -EINVAL;
	while (*text != '\0') {
		uint64_t n;
		size_t u;
		int r;

		r = digits(&text, &n);
		if (r < 0)
			return r;
		for (u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
			if (strncmp(text, units[u].suffix, strlen(units[u].suffix)) == 0)
				break;
		}
		if (u == sizeof(units) / sizeof(units[0]))
			return -EINVAL;
		text += strlen(units[u].suffix);
		if (__builtin_mul_overflow(n, units[u].ms, &n) ||
		    __builtin_add_overflow(total, n, &total) || total > TEN_YEARS_MS)
			return -ERANGE;
	}
	*ret = total;
	return 0;
}
