/* SPDX-License-Identifier: Apache-2.0 */
#include "sniff/host.h"

#include "base/addr.h"

#define LABEL_MAX 63
#define IPV6_TEXT 45 /* the longest, without brackets */

/* The folded byte, or 0 when no host name has it. */
static char fold(uint8_t c)
{
	if (c >= 'A' && c <= 'Z')
		return (char)(c | 0x20);
	if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_')
		return (char)c;
	return 0;
}

static bool is_ipv6(struct span raw)
{
	char text[IPV6_TEXT + 1];
	struct addr a;

	if (raw.len > 2 && raw.p[0] == '[' && raw.p[raw.len - 1] == ']')
		raw = (struct span){raw.p + 1, raw.len - 2};
	if (raw.len == 0 || raw.len > IPV6_TEXT || memchr(raw.p, '\0', raw.len) ||
	    !memchr(raw.p, ':', raw.len))
		return false;
	memcpy(text, raw.p, raw.len);
	text[raw.len] = '\0';
	return addr_parse_ip(text, &a) == 0;
}

static struct span without_dot(struct span raw)
{
	if (raw.len > 0 && raw.p[raw.len - 1] == '.')
		raw.len--;
	return raw;
}

enum host_kind host_normalise(struct span raw, char buf[static HOST_MAX + 1], struct span *ret_name)
{
	struct span name = without_dot(raw);
	bool dotted = false, numeric = true; /* of the label in hand: digits only */
	size_t label = 0;
	struct addr a;

	if (name.len == 0 || name.len > HOST_MAX)
		return HOST_BAD;
	for (size_t i = 0; i < name.len; i++) {
		uint8_t c = name.p[i];

		if (c == '.' && label > 0) {
			buf[i] = '.';
			label = 0;
			dotted = numeric = true;
			continue;
		}
		buf[i] = fold(c);
		if (buf[i] == '\0')
			return is_ipv6(raw) ? HOST_LITERAL : HOST_BAD;
		if (++label > LABEL_MAX)
			return HOST_BAD;
		numeric = numeric && c >= '0' && c <= '9';
	}
	if (label == 0)
		return HOST_BAD;
	buf[name.len] = '\0';
	if (dotted && numeric) /* some resolvers read "127.1" as an address: never a name */
		return addr_parse_ip(buf, &a) == 0 ? HOST_LITERAL : HOST_BAD;
	*ret_name = (struct span){(const uint8_t *)buf, name.len};
	return HOST_NAME;
}

const char *host_bad_why(struct span raw)
{
	struct span name = without_dot(raw);

	if (raw.len == 0)
		return "empty host name";
	if (name.len > HOST_MAX)
		return "host name over 253 bytes";
	for (size_t i = 0; i < raw.len; i++) {
		if (raw.p[i] == '\0')
			return "NUL in host name";
		if (raw.p[i] < ' ' || raw.p[i] == 0x7f)
			return "control character in host name";
		if (raw.p[i] != '.' && fold(raw.p[i]) == '\0')
			return "byte that no host name has";
	}
	if (name.len == 0 || name.p[0] == '.' || name.p[name.len - 1] == '.' ||
	    memmem(name.p, name.len, "..", 2))
		return "empty label in host name";
	return "no host name";
}
