/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An IP address with a port, and networks of them, as plain values. IPv4 is kept in its mapped form
 * ::ffff:a.b.c.d (RFC 4291, 2.5.5.2), so that there is one kind of address. Pure, any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct addr {
	uint8_t ip[16]; /* network order */
	uint16_t port;  /* host order */
};

struct cidr {
	uint8_t ip[16]; /* network order, host bits zero */
	uint8_t bits;   /* 0 to 128; an IPv4 /n is 96 + n */
};

/* Enough for "[ipv6]:65535" or "ipv6/128" and the NUL. */
#define ADDR_TEXT 56

bool addr_is_v4(const struct addr *a);
bool addr_is_link_local(const struct addr *a); /* fe80::/10 */
bool addr_ip_equal(const struct addr *a, const struct addr *b);
bool addr_equal(const struct addr *a, const struct addr *b);

/* Parses "192.0.2.1" or "2001:db8::1" (no brackets, no zone); the port becomes 0. -EINVAL. */
int addr_parse_ip(const char *text, struct addr *ret);

/* Parses "192.0.2.1:443" or "[2001:db8::1]:443". -EINVAL. */
int addr_parse(const char *text, struct addr *ret);

/* As addr_parse, and ":443" means the IPv6 wildcard (which takes IPv4 too). -EINVAL. */
int addr_parse_listen(const char *text, struct addr *ret);

/* Parses "10.0.0.0/8", "fd00::/8" or a bare address (its own network). Host bits are masked away.
 * -EINVAL.
 */
int cidr_parse(const char *text, struct cidr *ret);

bool cidr_contains(const struct cidr *net, const struct addr *a);
bool cidr_is_v4(const struct cidr *net);

/* Writes "192.0.2.1:443" / "[2001:db8::1]:443"; _ip without port and brackets. Returns buf. */
const char *addr_print(const struct addr *a, char buf[static ADDR_TEXT]);
const char *addr_print_ip(const struct addr *a, char buf[static ADDR_TEXT]);
const char *cidr_print(const struct cidr *net, char buf[static ADDR_TEXT]);

/* AF_INET for mapped addresses, AF_INET6 for all others. Returns the length used. */
socklen_t addr_to_sockaddr(const struct addr *a, struct sockaddr_storage *ret);

/* -EAFNOSUPPORT for other families. */
int addr_from_sockaddr(const struct sockaddr_storage *sa, struct addr *ret);
