/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A DNS server for tests, on a thread and a loopback port of its own: answers by script, and
 * misbehaves by script. Every function asserts.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/addr.h"
#include "base/span.h"

enum fake {
	FAKE_OK,             /* data: addresses, separated by spaces; none: an empty answer */
	FAKE_CNAME,          /* data: the alias' target, then addresses; the alias' TTL is 1 */
	FAKE_MANY,           /* data: how many addresses, from 127.1.0.0; too long for UDP */
	FAKE_TRUNCATED,      /* as OK, but by TCP only */
	FAKE_NX,             /* no such name */
	FAKE_SERVFAIL,       /* */
	FAKE_REFUSED,        /* */
	FAKE_SILENT,         /* never answers */
	FAKE_LOST,           /* as OK, but the first question is lost */
	FAKE_WRONG_ID,       /* 127.6.6.6 under another id, then as OK */
	FAKE_WRONG_QUESTION, /* 127.6.6.6 for another name, then as OK */
	FAKE_GARBAGE,        /* datagrams of rubbish, then as OK */
	FAKE_BROKEN,         /* an answer that promises more records than it has */
};

struct fake_rr {
	const char *name; /* "*.x" takes all below x */
	int family;
	enum fake how;
	uint32_t ttl;
	const char *data;
};

#define FAKE_MAX_RR 64
#define FAKE_QUERY  512
#define FAKE_REPLY  65536

struct fake_dns {
	const struct fake_rr *zone;
	size_t n;
	struct addr addr;
	pthread_t thread;
	int udp, tcp, stop;
	atomic_uint asked[FAKE_MAX_RR]; /* questions per row of the zone */
};

struct fake_query {
	uint8_t bytes[FAKE_QUERY];
	size_t len;     /* header and question only */
	char name[256]; /* with dots */
	int family;     /* 0: neither A nor AAAA */
};

struct fake_reply {
	uint8_t bytes[FAKE_REPLY];
	size_t len;
};

static inline bool fake_read_query(const uint8_t *p, size_t n, struct fake_query *ret)
{
	struct span in = {p, n}, label;
	uint64_t type, class;
	size_t len = 0;

	if (n > sizeof(ret->bytes) || !span_cut(&in, 12, &label))
		return false;
	ret->name[0] = '\0';
	while (span_cut_vec(&in, 1, &label) && label.len > 0)
		len += (size_t)snprintf(ret->name + len, sizeof(ret->name) - len, "%s%.*s",
					len > 0 ? "." : "", (int)label.len, label.p);
	if (!span_cut_num(&in, 2, &type) || !span_cut_num(&in, 2, &class))
		return false;
	ret->family = type == 1 ? AF_INET : type == 28 ? AF_INET6 : 0;
	ret->len = n - in.len;
	memcpy(ret->bytes, p, ret->len);
	return true;
}

static inline void fake_put(struct fake_reply *r, uint64_t value, size_t width)
{
	assert_true(r->len + width <= sizeof(r->bytes));
	while (width-- > 0)
		r->bytes[r->len++] = (uint8_t)(value >> width * 8);
}

static inline void fake_put_name(struct fake_reply *r, const char *name)
{
	while (*name) {
		size_t n = strcspn(name, ".");

		fake_put(r, n, 1);
		while (n-- > 0)
			fake_put(r, (uint8_t)*name++, 1);
		name += *name == '.';
	}
	fake_put(r, 0, 1);
}

static inline void fake_begin(struct fake_reply *r, const struct fake_query *q, unsigned rcode)
{
	memcpy(r->bytes, q->bytes, q->len);
	r->len = q->len;
	r->bytes[2] = 0x81; /* a response, recursion desired */
	r->bytes[3] = (uint8_t)(0x80 | rcode);
	memset(&r->bytes[6], 0, 6); /* answers, authority, additional: none yet */
}

/* `owner`: offset of its name in the reply. */
static inline void fake_put_addr(struct fake_reply *r, size_t owner, uint32_t ttl,
				 const struct addr *a, int family)
{
	fake_put(r, 0xc000 | owner, 2);
	fake_put(r, family == AF_INET ? 1 : 28, 2);
	fake_put(r, 1, 2);
	fake_put(r, ttl, 4);
	fake_put(r, family == AF_INET ? 4 : 16, 2);
	for (size_t i = family == AF_INET ? 12 : 0; i < 16; i++)
		fake_put(r, a->ip[i], 1);
	if (++r->bytes[7] == 0)
		r->bytes[6]++;
}

static inline void fake_put_addrs(struct fake_reply *r, size_t owner, const struct fake_rr *rr,
				  const char *list)
{
	char copy[1024], *save = NULL;
	struct addr a;

	snprintf(copy, sizeof(copy), "%s", list ? list : "");
	for (char *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save)) {
		assert_int_equal(addr_parse_ip(t, &a), 0);
		fake_put_addr(r, owner, rr->ttl, &a, rr->family);
	}
}

static inline void fake_put_alias(struct fake_reply *r, const struct fake_rr *rr)
{
	const char *rest = strchr(rr->data, ' ');
	char target[256];
	size_t at, owner;

	snprintf(target, sizeof(target), "%.*s", (int)(rest - rr->data), rr->data);
	fake_put(r, 0xc00c, 2);
	fake_put(r, 5, 2);
	fake_put(r, 1, 2);
	fake_put(r, 1, 4);
	at = r->len;
	fake_put(r, 0, 2);
	owner = r->len;
	fake_put_name(r, target);
	r->bytes[at + 1] = (uint8_t)(r->len - owner);
	r->bytes[7]++;
	fake_put_addrs(r, owner, rr, rest);
}

static inline void fake_put_many(struct fake_reply *r, const struct fake_rr *rr)
{
	int n = atoi(rr->data);

	for (int i = 0; i < n; i++) {
		struct addr a = {.ip = {[10] = 0xff, 0xff, 127, 1, (uint8_t)(i >> 8), (uint8_t)i}};

		fake_put_addr(r, 12, rr->ttl, &a, AF_INET);
	}
}

/* The good answer. */
static inline void fake_answer(struct fake_reply *r, const struct fake_query *q,
			       const struct fake_rr *rr)
{
	unsigned rcode = rr->how == FAKE_NX         ? 3
			 : rr->how == FAKE_SERVFAIL ? 2
			 : rr->how == FAKE_REFUSED  ? 5
						    : 0;

	fake_begin(r, q, rcode);
	if (rcode)
		return;
	if (rr->how == FAKE_CNAME)
		fake_put_alias(r, rr);
	else if (rr->how == FAKE_MANY)
		fake_put_many(r, rr);
	else
		fake_put_addrs(r, 12, rr, rr->data);
	if (rr->how == FAKE_BROKEN)
		r->bytes[6] = 7;
}

static inline void fake_send(int fd, const struct fake_reply *r, const struct sockaddr *to,
			     socklen_t len)
{
	(void)!sendto(fd, r->bytes, r->len, 0, to, len);
}

/* What somebody else might send first. */
static inline void fake_send_lie(int fd, const struct fake_query *q, const struct fake_rr *rr,
				 struct fake_reply *r, const struct sockaddr *to, socklen_t len)
{
	struct fake_rr lie = {.family = rr->family,
			      .ttl = 300,
			      .data = rr->family == AF_INET ? "127.6.6.6" : "::6:6:6"};

	fake_answer(r, q, &lie);
	if (rr->how == FAKE_WRONG_ID)
		r->bytes[0] ^= 0x55;
	else
		r->bytes[13] ^= 1; /* the first letter of the name */
	fake_send(fd, r, to, len);
}

static inline void fake_send_garbage(int fd, const struct fake_query *q, struct fake_reply *r,
				     const struct sockaddr *to, socklen_t len)
{
	fake_begin(r, q, 0);
	for (size_t n = 0; n < 12; n++) { /* shorter than a header */
		r->len = n;
		fake_send(fd, r, to, len);
	}
	r->len = q->len - 1; /* a question cut short */
	fake_send(fd, r, to, len);
	memset(r->bytes + 2, 0xc0, 300); /* the right id, then compression without end */
	r->len = 302;
	fake_send(fd, r, to, len);
}

static inline const struct fake_rr *fake_find(struct fake_dns *s, const struct fake_query *q)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct fake_rr *rr = &s->zone[i];
		size_t n = strlen(rr->name), m = strlen(q->name);
		bool match = rr->name[0] == '*' ? m >= n && strcasecmp(q->name + m - (n - 1),
								       rr->name + 1) == 0
						: strcasecmp(q->name, rr->name) == 0;

		if (match && rr->family == q->family)
			return rr;
	}
	return NULL;
}

static inline void fake_serve_udp(struct fake_dns *s, struct fake_reply *r)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct sockaddr *to = (struct sockaddr *)&sa;
	uint8_t in[FAKE_QUERY];
	struct fake_query q;
	const struct fake_rr *rr;
	ssize_t n = recvfrom(s->udp, in, sizeof(in), 0, to, &len);
	unsigned before;

	if (n < 0 || !fake_read_query(in, (size_t)n, &q))
		return;
	rr = fake_find(s, &q);
	if (!rr) {
		fake_begin(r, &q, 0);
		fake_send(s->udp, r, to, len);
		return;
	}
	before = atomic_fetch_add(&s->asked[rr - s->zone], 1);
	if (rr->how == FAKE_SILENT || (rr->how == FAKE_LOST && before == 0))
		return;
	if (rr->how == FAKE_WRONG_ID || rr->how == FAKE_WRONG_QUESTION)
		fake_send_lie(s->udp, &q, rr, r, to, len);
	if (rr->how == FAKE_GARBAGE)
		fake_send_garbage(s->udp, &q, r, to, len);
	fake_answer(r, &q, rr);
	if (rr->how == FAKE_TRUNCATED || r->len > 1232) {
		fake_begin(r, &q, 0);
		r->bytes[2] |= 0x02;
	}
	fake_send(s->udp, r, to, len);
}

static inline bool fake_recv_all(int fd, uint8_t *p, size_t n)
{
	return recv(fd, p, n, MSG_WAITALL) == (ssize_t)n;
}

/* One question per connection; the answer comes in two pieces. */
static inline void fake_serve_tcp(struct fake_dns *s, struct fake_reply *r)
{
	int fd = accept4(s->tcp, NULL, NULL, SOCK_CLOEXEC);
	const struct fake_rr *rr;
	uint8_t len[2], in[FAKE_QUERY];
	struct fake_query q;
	size_t n;

	if (fd < 0)
		return;
	if (!fake_recv_all(fd, len, 2) || (n = len[0] * 256U + len[1]) > sizeof(in) ||
	    !fake_recv_all(fd, in, n) || !fake_read_query(in, n, &q) || !(rr = fake_find(s, &q)))
		goto out;
	fake_answer(r, &q, rr);
	len[0] = (uint8_t)(r->len >> 8);
	len[1] = (uint8_t)r->len;
	n = r->len / 2;
	(void)!send(fd, len, 2, MSG_NOSIGNAL);
	(void)!send(fd, r->bytes, n, MSG_NOSIGNAL);
	(void)!send(fd, r->bytes + n, r->len - n, MSG_NOSIGNAL);
out:
	close(fd);
}

static inline void *fake_run(void *arg)
{
	struct fake_dns *s = arg;
	struct fake_reply *r = malloc(sizeof(*r));
	struct pollfd fds[] = {{.fd = s->udp, .events = POLLIN},
			       {.fd = s->tcp, .events = POLLIN},
			       {.fd = s->stop, .events = POLLIN}};

	while (r && poll(fds, 3, -1) > 0 && !fds[2].revents) {
		if (fds[0].revents)
			fake_serve_udp(s, r);
		if (fds[1].revents)
			fake_serve_tcp(s, r);
	}
	free(r);
	return NULL;
}

/* Binds UDP and TCP to one free port. */
static inline void fake_bind(struct fake_dns *s)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);

	for (int i = 0; i < 100; i++) {
		sa.sin_port = 0;
		s->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		s->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(bind(s->udp, (struct sockaddr *)&sa, len), 0);
		assert_int_equal(getsockname(s->udp, (struct sockaddr *)&sa, &len), 0);
		if (bind(s->tcp, (struct sockaddr *)&sa, len) == 0 && listen(s->tcp, 64) == 0) {
			addr_from_sockaddr((struct sockaddr_storage *)&sa, &s->addr);
			return;
		}
		close(s->udp);
		close(s->tcp);
	}
	fail_msg("no free port");
}

static inline void fake_start(struct fake_dns *s, const struct fake_rr *zone, size_t n)
{
	assert_true(n <= FAKE_MAX_RR);
	memset(s, 0, sizeof(*s));
	s->zone = zone;
	s->n = n;
	s->stop = eventfd(0, EFD_CLOEXEC);
	fake_bind(s);
	assert_int_equal(pthread_create(&s->thread, NULL, fake_run, s), 0);
}

static inline void fake_stop(struct fake_dns *s)
{
	eventfd_write(s->stop, 1);
	pthread_join(s->thread, NULL);
	close(s->udp);
	close(s->tcp);
	close(s->stop);
}

/* How often the name was asked for by UDP. */
static inline unsigned fake_asked(struct fake_dns *s, const char *name, int family)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->zone[i].family == family && strcmp(s->zone[i].name, name) == 0)
			return atomic_load(&s->asked[i]);
	fail_msg("no '%s' in the zone", name);
	return 0;
}
