/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/resolve.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/owned.h"
#include "sniff/host.h" /* HOST_MAX */

#define TRY_MS       1000 /* for an answer; doubled for each further round over the servers */
#define TRIES        2    /* rounds */
#define EDNS_BYTES   1232 /* fits any path unfragmented (DNS flag day 2020) */
#define SLOTS        4096 /* of the hash table; a power of two */
#define TTL_MIN_S    1
#define TTL_MAX_S    300
#define NEGATIVE_MS  5000
#define FAILED_MS    1000
#define SERVERS_TEXT 4096

/* What is known, or being asked, about one name and family. Belongs to those who point to it: the
 * table, the query in flight, each lookup.
 */
struct answer {
	unsigned refs;
	struct resolver *resolver;
	struct answer *next_in_slot;
	struct answer *older, *newer; /* by last use; only while in the table */
	struct lookup *waiting;
	uint64_t expires_ms;
	struct addr *addrs;
	size_t n;
	size_t slot;
	int family;
	int r;
	bool pending; /* the query is in flight */
	char name[];
};

/* A socket of c-ares. It closes the descriptor, we only watch it. */
struct dns_socket {
	struct watch watch;
	struct later later; /* frees it */
	struct resolver *resolver;
	struct dns_socket *next, **link;
	uint32_t events;
};

struct resolver {
	struct loop *loop;
	ares_channel channel;
	struct timer timer;
	struct dns_socket *sockets;
	struct answer *slots[SLOTS];
	struct answer *oldest, *newest;
	size_t n_answers, n_in_flight;
	uint64_t key[2];           /* of the hash */
	struct lookup *ready;      /* answered, not told yet; the last one first */
	struct lookup *delivering; /* being told */
	struct later deliver;      /* tells; frees the resolver once `closed` */
	bool closed;
};

uint64_t resolve_keep_ms(int r, int64_t ttl_s)
{
	if (r == -ENOENT)
		return NEGATIVE_MS;
	if (r < 0)
		return FAILED_MS;
	if (ttl_s < TTL_MIN_S)
		return TTL_MIN_S * 1000;
	return (uint64_t)(ttl_s < TTL_MAX_S ? ttl_s : TTL_MAX_S) * 1000;
}

/* ---- lists of lookups ---- */

static void lookup_push(struct lookup **list, struct lookup *l)
{
	l->next = *list;
	l->link = list;
	if (l->next)
		l->next->link = &l->next;
	*list = l;
}

static void lookup_unlink(struct lookup *l)
{
	*l->link = l->next;
	if (l->next)
		l->next->link = l->link;
	l->next = NULL;
	l->link = NULL;
}

static void lookup_move_all(struct lookup **from, struct lookup **to)
{
	while (*from) {
		struct lookup *l = *from;

		lookup_unlink(l);
		lookup_push(to, l);
	}
}

static void cancel_all(struct lookup **list)
{
	while (*list)
		lookup_cancel(*list);
}

/* ---- the table of answers ---- */

static void answer_unref(struct answer *a)
{
	if (--a->refs > 0)
		return;
	free(a->addrs);
	free(a);
}

/* Keyed, because names come from pods: who does not know the key cannot fill one slot. Each step
 * folds the 128-bit product of eight bytes with the key.
 */
static size_t slot_of(const struct resolver *res, const char *name, size_t len, int family)
{
	uint64_t h = res->key[0] ^ len ^ (uint64_t)family << 32;

	for (size_t i = 0; i < len; i += 8) {
		uint64_t chunk = 0;
		unsigned __int128 product;

		memcpy(&chunk, name + i, len - i < 8 ? len - i : 8);
		product = (unsigned __int128)(h ^ chunk) * res->key[1];
		h = (uint64_t)product ^ (uint64_t)(product >> 64);
	}
	return (h ^ h >> 32) & (SLOTS - 1);
}

static void age_unlink(struct resolver *res, struct answer *a)
{
	*(a->older ? &a->older->newer : &res->oldest) = a->newer;
	*(a->newer ? &a->newer->older : &res->newest) = a->older;
}

static void age_append(struct resolver *res, struct answer *a)
{
	a->older = res->newest;
	a->newer = NULL;
	*(res->newest ? &res->newest->newer : &res->oldest) = a;
	res->newest = a;
}

static void table_insert(struct resolver *res, struct answer *a)
{
	a->refs++;
	a->next_in_slot = res->slots[a->slot];
	res->slots[a->slot] = a;
	age_append(res, a);
	res->n_answers++;
}

static void table_remove(struct resolver *res, struct answer *a)
{
	struct answer **p = &res->slots[a->slot];

	while (*p != a)
		p = &(*p)->next_in_slot;
	*p = a->next_in_slot;
	age_unlink(res, a);
	res->n_answers--;
	answer_unref(a);
}

static struct answer *table_find(struct resolver *res, size_t slot, const char *name, int family)
{
	struct answer *a = res->slots[slot];

	while (a && (a->family != family || strcmp(a->name, name) != 0))
		a = a->next_in_slot;
	return a;
}

/* ---- telling ---- */

static void deliver(struct later *later)
{
	struct resolver *res = CONTAINER_OF(later, struct resolver, deliver);
	struct addr addrs[RESOLVE_MAX_ADDRS];

	if (res->closed) {
		free(res);
		return;
	}
	/* What done() starts anew waits for the next round. Moving turns the list around: those who
	 * became ready first are told first.
	 */
	lookup_move_all(&res->ready, &res->delivering);
	while (res->delivering) {
		struct lookup *l = res->delivering;
		struct answer *a = l->answer;
		size_t n = a->n;
		int r = a->r;

		/* A copy, since done() may do anything, and the answer may go with it. */
		if (n > 0)
			memcpy(addrs, a->addrs, n * sizeof(addrs[0]));
		lookup_cancel(l);
		l->done(l, r, addrs, n);
	}
}

static void answer_tell(struct answer *a)
{
	struct resolver *res = a->resolver;

	if (!a->waiting)
		return;
	lookup_move_all(&a->waiting, &res->ready);
	loop_later(res->loop, &res->deliver);
}

/* ---- from c-ares' answers to ours ---- */

/* c-ares' codes end here. */
static int status_to_errno(int status)
{
	switch (status) {
	case ARES_SUCCESS:
		return 0;
	case ARES_ENODATA:
	case ARES_ENOTFOUND:
	case ARES_EBADNAME: /* a name that cannot be asked for does not exist */
		return -ENOENT;
	case ARES_ETIMEOUT:
		return -ETIMEDOUT;
	case ARES_ECONNREFUSED:
		return -ECONNREFUSED;
	default:
		return -EIO;
	}
}

/* Writes addresses, and the lowest TTL of those and of the aliases that led to them. Returns how
 * many, or -errno.
 */
static int read_v4(const unsigned char *reply, int len, struct addr ret[static RESOLVE_MAX_ADDRS],
		   int64_t *ret_ttl_s)
{
	struct ares_addrttl found[RESOLVE_MAX_ADDRS];
	int n = ARRAY_SIZE(found);
	int r = status_to_errno(ares_parse_a_reply(reply, len, NULL, found, &n));

	if (r < 0)
		return r;
	for (int i = 0; i < n; i++) {
		ret[i] = (struct addr){.ip = {[10] = 0xff, [11] = 0xff}};
		memcpy(&ret[i].ip[12], &found[i].ipaddr, 4);
		if (i == 0 || found[i].ttl < *ret_ttl_s)
			*ret_ttl_s = found[i].ttl;
	}
	return n;
}

static int read_v6(const unsigned char *reply, int len, struct addr ret[static RESOLVE_MAX_ADDRS],
		   int64_t *ret_ttl_s)
{
	struct ares_addr6ttl found[RESOLVE_MAX_ADDRS];
	int n = ARRAY_SIZE(found);
	int r = status_to_errno(ares_parse_aaaa_reply(reply, len, NULL, found, &n));

	if (r < 0)
		return r;
	for (int i = 0; i < n; i++) {
		ret[i] = (struct addr){0};
		memcpy(ret[i].ip, &found[i].ip6addr, 16);
		if (i == 0 || found[i].ttl < *ret_ttl_s)
			*ret_ttl_s = found[i].ttl;
	}
	return n;
}

/* 0 or -errno, to be kept as the answer. */
static int answer_fill(struct answer *a, int status, const unsigned char *reply, int len,
		       int64_t *ret_ttl_s)
{
	struct addr addrs[RESOLVE_MAX_ADDRS];
	int n = status_to_errno(status);

	if (n < 0)
		return n;
	n = a->family == AF_INET ? read_v4(reply, len, addrs, ret_ttl_s)
				 : read_v6(reply, len, addrs, ret_ttl_s);
	if (n <= 0)
		return n < 0 ? n : -ENOENT;
	a->addrs = malloc((size_t)n * sizeof(addrs[0]));
	if (!a->addrs)
		return -EIO;
	memcpy(a->addrs, addrs, (size_t)n * sizeof(addrs[0]));
	a->n = (size_t)n;
	return 0;
}

static void on_reply(void *arg, int status, int timeouts, unsigned char *reply, int len)
{
	struct answer *a = arg;
	struct resolver *res = a->resolver;
	int64_t ttl_s = 0;

	(void)timeouts;
	res->n_in_flight--;
	a->pending = false;
	if (status == ARES_EDESTRUCTION) {
		cancel_all(&a->waiting);
	} else {
		a->r = answer_fill(a, status, reply, len, &ttl_s);
		a->expires_ms = loop_now_ms(res->loop) + resolve_keep_ms(a->r, ttl_s);
		answer_tell(a);
	}
	answer_unref(a);
}

/* ---- c-ares on the loop ---- */

/* c-ares walks all queries to find the next deadline, so it is asked only when the timer runs out;
 * in between, no query can be due sooner than one try from now.
 */
static void timer_shorten(struct resolver *res)
{
	uint64_t limit = loop_now_ms(res->loop) + TRY_MS;

	if (res->n_in_flight == 0)
		timer_stop(res->loop, &res->timer);
	else if (!timer_is_armed(&res->timer) || res->timer.deadline_ms > limit)
		timer_start(res->loop, &res->timer, TRY_MS);
}

static void on_timer(struct timer *t)
{
	struct resolver *res = CONTAINER_OF(t, struct resolver, timer);
	struct timeval limit = {.tv_sec = TRY_MS / 1000, .tv_usec = TRY_MS % 1000 * 1000}, left;

	ares_process_fd(res->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	if (res->n_in_flight == 0)
		return;
	left = *ares_timeout(res->channel, &limit, &left);
	timer_start(res->loop, &res->timer,
		    (uint64_t)left.tv_sec * 1000 + (uint64_t)left.tv_usec / 1000 + 1);
}

static void on_socket(struct watch *w, uint32_t events)
{
	struct dns_socket *s = CONTAINER_OF(w, struct dns_socket, watch);
	struct resolver *res = s->resolver;
	bool broken = events & (EPOLLERR | EPOLLHUP); /* reading or writing tells c-ares why */
	bool in = broken || events & EPOLLIN,
	     out = (broken || events & EPOLLOUT) && s->events & EPOLLOUT;

	ares_process_fd(res->channel, in ? w->fd : ARES_SOCKET_BAD, out ? w->fd : ARES_SOCKET_BAD);
	timer_shorten(res);
}

static void free_socket(struct later *later)
{
	free(CONTAINER_OF(later, struct dns_socket, later));
}

/* c-ares closes the descriptor right after this, which also ends the watch. */
static void socket_gone(struct dns_socket *s)
{
	struct resolver *res = s->resolver;

	watch_remove(res->loop, &s->watch);
	s->watch.fd = -1;
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	loop_later(res->loop, &s->later);
}

static struct dns_socket *socket_find(struct resolver *res, int fd)
{
	struct dns_socket *s = res->sockets;

	while (s && s->watch.fd != fd)
		s = s->next;
	return s;
}

/* When this fails, nobody reads the answer and the question times out. */
static void socket_watch(struct resolver *res, int fd, uint32_t events)
{
	OWNED_MEM struct dns_socket *s = calloc(1, sizeof(*s));

	if (!s)
		return;
	s->watch = (struct watch){.fd = fd, .on_event = on_socket};
	s->later.run = free_socket;
	s->resolver = res;
	s->events = events;
	if (watch_add(res->loop, &s->watch, events) < 0)
		return;
	s->next = res->sockets;
	s->link = &res->sockets;
	if (s->next)
		s->next->link = &s->next;
	res->sockets = TAKE_PTR(s);
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct resolver *res = arg;
	struct dns_socket *s = socket_find(res, fd);
	uint32_t events = (readable ? (uint32_t)EPOLLIN : 0) | (writable ? (uint32_t)EPOLLOUT : 0);

	if (!s) {
		if (events)
			socket_watch(res, fd, events);
	} else if (!events) {
		socket_gone(s);
	} else if (events != s->events) {
		s->events = events;
		watch_change(res->loop, &s->watch, events);
	}
}

/* ---- asking ---- */

/* *ret is borrowed: the table holds it. */
static int ask(struct resolver *res, size_t slot, const char *name, int family, struct answer **ret)
{
	size_t size = strlen(name) + 1;
	struct answer *a;

	if (res->n_in_flight >= RESOLVE_MAX_IN_FLIGHT)
		return -EAGAIN;
	a = calloc(1, sizeof(*a) + size);
	if (!a)
		return -ENOMEM;
	memcpy(a->name, name, size);
	a->resolver = res;
	a->family = family;
	a->slot = slot;

	if (res->n_answers >= RESOLVE_MAX_CACHED)
		table_remove(res, res->oldest);
	table_insert(res, a);

	a->refs++; /* the query's */
	a->pending = true;
	res->n_in_flight++;
	ares_query(res->channel, name, ns_c_in, family == AF_INET ? ns_t_a : ns_t_aaaa, on_reply,
		   a);
	timer_shorten(res);
	*ret = a;
	return 0;
}

int lookup_start(struct resolver *res, struct lookup *l, const char *name, int family)
{
	size_t len = strlen(name);
	struct answer *a;
	size_t slot;
	int r;

	if (len == 0 || len > HOST_MAX || (family != AF_INET && family != AF_INET6))
		return -EINVAL;
	slot = slot_of(res, name, len, family);
	a = table_find(res, slot, name, family);
	if (a && !a->pending && a->expires_ms <= loop_now_ms(res->loop)) {
		table_remove(res, a);
		a = NULL;
	}
	if (a) {
		age_unlink(res, a);
		age_append(res, a);
	} else {
		r = ask(res, slot, name, family, &a);
		if (r < 0)
			return r;
	}

	a->refs++;
	l->answer = a;
	l->resolver = res;
	lookup_push(&a->waiting, l);
	if (!a->pending)
		answer_tell(a);
	return 0;
}

void lookup_cancel(struct lookup *l)
{
	if (!l->resolver)
		return;
	lookup_unlink(l);
	l->resolver = NULL;
	answer_unref(TAKE_PTR(l->answer));
}

/* ---- the resolver ---- */

/* 0 servers: whatever /etc/resolv.conf said. */
static int set_servers(struct resolver *res, const struct addr *servers, size_t n)
{
	char text[SERVERS_TEXT] = "", one[ADDR_TEXT];
	size_t len = 0;

	if (n == 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (len + ADDR_TEXT + 1 > sizeof(text))
			return -E2BIG;
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", i > 0 ? "," : "",
					addr_print(&servers[i], one));
	}
	return status_to_errno(ares_set_servers_ports_csv(res->channel, text));
}

static int channel_open(struct resolver *res, bool system_servers)
{
	struct ares_options options = {
		.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS,
		.timeout = TRY_MS,
		.tries = TRIES,
		.ednspsz = EDNS_BYTES,
		.lookups = (char[]){"b"},
		.sock_state_cb = on_socket_state,
		.sock_state_cb_data = res,
		.resolvconf_path = (char[]){"/dev/null"},
	};
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ |
		   ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB | ARES_OPT_NOROTATE;

	if (!system_servers)
		mask |= ARES_OPT_RESOLVCONF;
	return status_to_errno(ares_init_options(&res->channel, &options, mask));
}

int resolver_new(struct resolver **ret, struct loop *loop, const struct addr *servers, size_t n)
{
	struct resolver *res = calloc(1, sizeof(*res));
	int r;

	if (!res)
		return -ENOMEM;
	res->loop = loop;
	res->timer.on_expire = on_timer;
	res->deliver.run = deliver;
	if (getrandom(res->key, sizeof(res->key), 0) != sizeof(res->key))
		r = -EIO;
	else
		r = channel_open(res, n == 0);
	res->key[1] |= 1; /* a factor of zero would fold everything into one slot */
	if (r == 0)
		r = set_servers(res, servers, n);
	if (r < 0) {
		resolver_free(res);
		return r;
	}
	*ret = res;
	return 0;
}

void resolver_free(struct resolver *res)
{
	if (!res)
		return;
	timer_stop(res->loop, &res->timer);
	cancel_all(&res->ready);
	cancel_all(&res->delivering);
	if (res->channel)
		ares_destroy(res->channel); /* and with it what waits for queries in flight */
	while (res->oldest)
		table_remove(res, res->oldest);

	res->closed = true;
	if (!res->deliver.queued)
		free(res);
}
