/* SPDX-License-Identifier: Apache-2.0 */
#include "base/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"

static const uint8_t v4_prefix[12] = {[10] = 0xff, [11] = 0xff};

bool addr_is_v4(const struct addr *a)
{
	return memcmp(a->ip, v4_prefix, sizeof(v4_prefix)) == 0;
}

bool addr_is_link_local(const struct addr *a)
{
	return a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80;
}

bool addr_ip_equal(const struct addr *a, const struct addr *b)
{
	return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
	return a->port == b->port && addr_ip_equal(a, b);
}

int addr_parse_ip(const char *text, struct addr *ret)
{
	struct addr a = {0};

	if (inet_pton(AF_INET, text, &a.ip[12]) == 1)
		memcpy(a.ip, v4_prefix, sizeof(v4_prefix));
	else if (inet_pton(AF_INET6, text, a.ip) != 1)
		return -EINVAL;
	*ret = a;
	return 0;
}

int addr_parse(const char *text, struct addr *ret)
{
	char host[INET6_ADDRSTRLEN + 2];
	const char *colon = strrchr(text, ':');
	struct addr a;
	size_t n;
	int r;

	if (!colon)
		return -EINVAL;
	n = (size_t)(colon - text);
	if (n >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = '\0';

	if (host[0] == '[' && n > 2 && host[n - 1] == ']') {
		host[n - 1] = '\0';
		memmove(host, host + 1, n - 1);
		if (!strchr(host, ':'))
			return -EINVAL;
	} else if (strchr(host, ':')) {
		return -EINVAL; /* IPv6 without brackets is ambiguous */
	}

	r = addr_parse_ip(host, &a);
	if (r < 0)
		return r;
	if (num_parse_port(colon + 1, &a.port) < 0)
		return -EINVAL;
	*ret = a;
	return 0;
}

int addr_parse_listen(const char *text, struct addr *ret)
{
	struct addr a = {0};

	if (text[0] != ':')
		return addr_parse(text, ret);
	if (num_parse_port(text + 1, &a.port) < 0)
		return -EINVAL;
	*ret = a;
	return 0;
}

static void mask(uint8_t ip[16], unsigned bits)
{
	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = bits > i * 8 ? bits - i * 8 : 0;

		if (keep < 8)
			ip[i] &= (uint8_t)(0xff00 >> keep);
	}
}

int cidr_parse(const char *text, struct cidr *ret)
{
	const char *slash = strchr(text, '/');
	char host[INET6_ADDRSTRLEN];
	size_t n = slash ? (size_t)(slash - text) : strlen(text);
	struct cidr c = {0};
	struct addr a;
	uint64_t bits;

	if (n >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = '\0';
	if (addr_parse_ip(host, &a) < 0)
		return -EINVAL;

	bits = strchr(host, ':') ? 128 : 32;
	if (slash && num_parse_u64(slash + 1, 0, bits, &bits) < 0)
		return -EINVAL;
	if (!strchr(host, ':'))
		bits += 96;
	memcpy(c.ip, a.ip, sizeof(c.ip));
	c.bits = (uint8_t)bits;
	mask(c.ip, c.bits);
	*ret = c;
	return 0;
}

bool cidr_contains(const struct cidr *net, const struct addr *a)
{
	uint8_t ip[16];

	memcpy(ip, a->ip, sizeof(ip));
	mask(ip, net->bits);
	return memcmp(ip, net->ip, sizeof(ip)) == 0;
}

bool cidr_is_v4(const struct cidr *net)
{
	return net->bits >= 96 && memcmp(net->ip, v4_prefix, sizeof(v4_prefix)) == 0;
}

const char *addr_print_ip(const struct addr *a, char buf[static ADDR_TEXT])
{
	if (addr_is_v4(a))
		inet_ntop(AF_INET, &a->ip[12], buf, ADDR_TEXT);
	else
		inet_ntop(AF_INET6, a->ip, buf, ADDR_TEXT);
	return buf;
}

const char *addr_print(const struct addr *a, char buf[static ADDR_TEXT])
{
	char ip[ADDR_TEXT];

	addr_print_ip(a, ip);
	snprintf(buf, ADDR_TEXT, addr_is_v4(a) ? "%.46s:%u" : "[%.46s]:%u", ip, a->port);
	return buf;
}

const char *cidr_print(const struct cidr *net, char buf[static ADDR_TEXT])
{
	struct addr a = {0};
	char ip[ADDR_TEXT];

	memcpy(a.ip, net->ip, sizeof(a.ip));
	addr_print_ip(&a, ip);
	snprintf(buf, ADDR_TEXT, "%.46s/%u", ip, cidr_is_v4(net) ? net->bits - 96U : net->bits);
	return buf;
}

socklen_t addr_to_sockaddr(const struct addr *a, struct sockaddr_storage *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (addr_is_v4(a)) {
		struct sockaddr_in *in = (struct sockaddr_in *)ret;

		in->sin_family = AF_INET;
		in->sin_port = htons(a->port);
		memcpy(&in->sin_addr, &a->ip[12], 4);
		return sizeof(*in);
	}
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;

	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(a->port);
	memcpy(&in6->sin6_addr, a->ip, 16);
	return sizeof(*in6);
}

int addr_from_sockaddr(const struct sockaddr_storage *sa, struct addr *ret)
{
	struct addr a = {0};

	if (sa->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)sa;

		memcpy(a.ip, v4_prefix, sizeof(v4_prefix));
		memcpy(&a.ip[12], &in->sin_addr, 4);
		a.port = ntohs(in->sin_port);
	} else if (sa->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;

		memcpy(a.ip, &in6->sin6_addr, 16);
		a.port = ntohs(in6->sin6_port);
	} else {
		return -EAFNOSUPPORT;
	}
	*ret = a;
	return 0;
}
