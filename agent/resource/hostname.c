/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/hostname.h"

#include <stddef.h>
#include <string.h>

#include "base/addr.h"

#define LABEL_MAX 63

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_label(const char *p, size_t len)
{
	if (len == 0 || len > LABEL_MAX || p[0] == '-' || p[len - 1] == '-')
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!is_alnum(p[i]) && p[i] != '-')
			return false;
	}
	return true;
}

bool hostname_is_label(const char *text)
{
	return is_label(text, strlen(text));
}

bool hostname_is_subdomain(const char *text)
{
	const char *dot;

	if (strlen(text) > HOSTNAME_MAX || strpbrk(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
		return false;
	for (; (dot = strchr(text, '.')); text = dot + 1) {
		if (!is_label(text, (size_t)(dot - text)))
			return false;
	}
	return hostname_is_label(text);
}

static bool is_digits(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i] < '0' || p[i] > '9')
			return false;
	}
	return true;
}

static const char *check_labels(const char *p, size_t len)
{
	for (;;) {
		const char *dot = memchr(p, '.', len);
		size_t label = dot ? (size_t)(dot - p) : len;

		if (label == 0)
			return "has an empty label: write a host name like www.example.com";
		if (label > LABEL_MAX)
			return "has a label of more than 63 bytes";
		if (!is_label(p, label))
			return "is no host name: labels are letters, digits and '-', and do not "
			       "begin or end with '-'";
		if (!dot)
			return is_digits(p, label) ? "ends in a label of digits alone, which no "
						     "host name does"
						   : NULL;
		p = dot + 1;
		len -= label + 1;
	}
}

static const char *check_whole(const char *text)
{
	struct addr ip;

	if (text[0] == '\0')
		return "is empty: write a host name like www.example.com";
	if (addr_parse_ip(text, &ip) == 0)
		return "is an IP address, not a host name: addresses go to spec.addresses";
	for (const char *p = text; *p; p++) {
		if ((unsigned char)*p >= 0x80)
			return "is not ASCII: write it in its A-label form (xn--...)";
	}
	if (strchr(text, '/') || strchr(text, ':'))
		return "is no host name: leave out scheme, port and path";
	return NULL;
}

const char *hostname_check(const char *text, enum hostname_kind kind, char ret[HOSTNAME_MAX + 1])
{
	size_t len = strlen(text), star = 0;
	const char *why = check_whole(text);

	if (why)
		return why;
	if (text[len - 1] == '.')
		len--;
	if (len > HOSTNAME_MAX)
		return "is longer than 253 bytes";
	if (memchr(text, '*', len)) {
		if (kind != HOSTNAME_WILDCARD)
			return "must be a full name without '*'";
		if (len == 1)
			return "would match every host: write *.example.com";
		if (strncmp(text, "*.", 2) != 0 || strchr(text + 1, '*'))
			return "may have '*' only as its whole first label: *.example.com";
		star = 2;
	}
	why = check_labels(text + star, len - star);
	if (why)
		return why;
	for (size_t i = 0; i < len; i++)
		ret[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
	ret[len] = '\0';
	return NULL;
}
