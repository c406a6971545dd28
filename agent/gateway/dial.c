/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/dial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/owned.h"
#include "gateway/egress.h"
#include "gateway/private.h"
#include "gateway/resolve.h"
#include "gateway/target.h"

/* RFC 8305, section 8. */
#define RESOLUTION_DELAY_MS 50
#define ATTEMPT_DELAY_MS    250

#define MAX_ATTEMPTS 16    /* sockets one dial may open */
#define SHUN_MS      10000 /* how long a family without a route comes second */

enum { V4, V6 };

struct dialer {
	struct loop *loop;
	struct resolver *resolver;
	struct egress egress;
	struct private_rules rules;
	struct cidr *cidrs; /* what the rules point to */
	uint64_t timeout_ms;
	uint64_t random;           /* state of draw() */
	uint64_t turn;             /* of DNS_ROUND_ROBIN */
	uint64_t shunned_until[2]; /* per family */
	struct job *jobs;
};

/* One family of the hop in hand: its question, and the addresses not tried yet. */
struct family {
	struct lookup lookup;
	struct job *job;
	struct addr addrs[RESOLVE_MAX_ADDRS];
	size_t n, next;
};

struct attempt {
	struct watch watch;
	struct job *job;
	struct addr dst;
};

/* What a dial is doing. Hops are taken one by one: a hop gives addresses, addresses become
 * attempts, the first attempt that connects wins. A further hop is taken when the addresses of the
 * one before are used up.
 *
 *	hop --(literal)----------------------+
 *	    --(name)--> lookups --(answer)---+--> addrs --(pace)--> attempts --> done()
 */
struct job {
	struct dial *d; /* NULL: over, only to be freed */
	struct dialer *dialer;
	struct job *next, **link;
	struct later later;    /* the first step, when no lookup will make it; then freeing */
	struct timer deadline; /* for everything */
	struct timer pace;     /* while it runs no attempt is started */
	struct family family[2];
	struct attempt attempts[MAX_ATTEMPTS];
	size_t n_attempts, n_open;
	uint64_t turn;    /* DNS_ROUND_ROBIN: which address is first */
	int wanted;       /* family of the address that the client meant */
	bool last_v6;     /* family of the last attempt */
	bool waited;      /* the resolution delay is spent */
	bool saw_private; /* an address was left out ... */
	bool saw_foreign; /* ... for being private, or of a family we have no address of */
	bool dst_refused; /* the client's own address, which is the only hop then */
	int resolve_r, attempt_r;
	struct cidr *registered; /* addresses of the ServiceEntry */
	size_t n_registered;
	char *text; /* where the hops' names live */
	size_t n_hops, next_hop;
	struct hop hops[];
};

static void job_step(struct job *j);

/* splitmix64. Spreads load, guards nothing. */
static uint64_t draw(struct dialer *dialer)
{
	uint64_t x = dialer->random += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* ---- the end of a job ---- */

static void job_free(struct job *j)
{
	free(j->registered);
	free(j->text);
	free(j);
}

/* Lets go of everything; freed later, since events of this batch may still point at the watches. */
static void job_retire(struct job *j)
{
	j->d->priv = NULL;
	j->d = NULL;
	*j->link = j->next;
	if (j->next)
		j->next->link = j->link;

	timer_stop(j->dialer->loop, &j->deadline);
	timer_stop(j->dialer->loop, &j->pace);
	lookup_cancel(&j->family[V4].lookup);
	lookup_cancel(&j->family[V6].lookup);
	for (size_t i = 0; i < j->n_attempts; i++)
		watch_close(&j->attempts[i].watch);
	loop_later(j->dialer->loop, &j->later);
}

static void job_fail(struct job *j, enum reason reason, int r)
{
	static const struct addr none;
	struct addr dst = j->n_attempts > 0 ? j->attempts[j->n_attempts - 1].dst : none;
	struct dial *d = j->d;

	job_retire(j);
	d->done(d, -1, reason, r, &dst, &none);
}

/* Everything was tried. What was tried last says most about why. */
static void job_give_up(struct job *j)
{
	if (j->n_attempts > 0)
		job_fail(j, REASON_UPSTREAM_FAILED, j->attempt_r);
	else if (j->saw_foreign)
		job_fail(j, REASON_UPSTREAM_FAILED, -EAFNOSUPPORT);
	else if (j->saw_private)
		job_fail(j, REASON_PRIVATE_DESTINATION, -EACCES);
	else
		job_fail(j, REASON_RESOLVE_FAILED, j->resolve_r);
}

static void on_deadline(struct timer *t)
{
	struct job *j = CONTAINER_OF(t, struct job, deadline);

	job_fail(j, j->n_attempts > 0 ? REASON_UPSTREAM_FAILED : REASON_RESOLVE_FAILED, -ETIMEDOUT);
}

/* ---- attempts ---- */

static void attempt_failed(struct attempt *a, int r)
{
	struct job *j = a->job;

	watch_close(&a->watch);
	j->n_open--;
	j->attempt_r = r;
	timer_stop(j->dialer->loop, &j->pace);
	job_step(j);
}

static void attempt_won(struct attempt *a)
{
	struct job *j = a->job;
	struct dialer *dialer = j->dialer;
	struct dial *d = j->d;
	struct addr dst = a->dst, src;
	int r = egress_settle(a->watch.fd, &src);
	int fd;

	if (r < 0) {
		attempt_failed(a, r);
		return;
	}
	if (!d->keep_watch)
		watch_remove(dialer->loop, &a->watch);
	fd = TAKE_FD(a->watch.fd);
	egress_take(&dialer->egress, &src);
	job_retire(j);
	d->done(d, fd, REASON_NONE, 0, &dst, &src);
}

static void on_attempt(struct watch *w, uint32_t events)
{
	struct attempt *a = CONTAINER_OF(w, struct attempt, watch);
	int error = 0;

	if (!(events & (EPOLLERR | EPOLLHUP))) {
		attempt_won(a);
		return;
	}
	if (getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof(error)}) < 0)
		error = errno;
	attempt_failed(a, error ? -error : -ECONNRESET);
}

static int attempt_start(struct job *j, const struct addr *dst)
{
	struct attempt *a = &j->attempts[j->n_attempts++];
	struct dialer *dialer = j->dialer;
	int r;

	*a = (struct attempt){.watch = {-1, on_attempt}, .job = j, .dst = *dst};
	j->last_v6 = !addr_is_v4(dst);
	r = egress_connect(&dialer->egress, dst, &a->watch.fd);
	if (r == -ENETUNREACH || r == -EHOSTUNREACH || r == -EAFNOSUPPORT)
		dialer->shunned_until[j->last_v6] = loop_now_ms(dialer->loop) + SHUN_MS;
	if (r < 0)
		return r;
	r = watch_add(dialer->loop, &a->watch, EPOLLOUT);
	if (r < 0) {
		watch_close(&a->watch);
		return r;
	}
	j->n_open++;
	return 0;
}

/* ---- which address is next ---- */

static bool is_resolving(const struct job *j)
{
	return j->family[V4].lookup.resolver || j->family[V6].lookup.resolver;
}

static bool has_addrs(const struct job *j, int family)
{
	return j->family[family].next < j->family[family].n;
}

static bool is_shunned(const struct job *j, int family)
{
	return j->dialer->shunned_until[family] > loop_now_ms(j->dialer->loop);
}

/* The family that the client itself chose first, then taking turns (RFC 8305, section 4, has IPv6
 * first, but the far side knows clients by their address: which family that is of must not be up to
 * chance).
 */
static int preferred_family(const struct job *j)
{
	if (j->n_attempts > 0)
		return j->last_v6 ? V4 : V6;
	return is_shunned(j, j->wanted) ? !j->wanted : j->wanted;
}

/* When the answer for the other family has come first, the wanted one gets a moment. */
static bool should_wait_for_wanted(const struct job *j)
{
	return j->n_attempts == 0 && !j->waited && j->family[j->wanted].lookup.resolver &&
	       has_addrs(j, !j->wanted) && egress_can(&j->dialer->egress, j->wanted == V6) &&
	       !is_shunned(j, j->wanted);
}

/* Of the hop in hand. */
static bool is_refused(const struct job *j, const struct addr *a)
{
	const struct hop *hop = &j->hops[j->next_hop - 1];

	if (!hop->host)
		return !hop->endpoint && j->dst_refused;
	return private_refused(&j->dialer->rules, j->registered, j->n_registered, a);
}

/* The next address that we may and can connect to, of those at hand. */
static bool next_addr(struct job *j, struct addr *ret)
{
	int preferred = preferred_family(j);

	while (has_addrs(j, V4) || has_addrs(j, V6)) {
		struct family *f = &j->family[has_addrs(j, preferred) ? preferred : !preferred];
		const struct addr *a = &f->addrs[f->next++];

		if (is_refused(j, a)) {
			j->saw_private = true;
		} else if (!egress_can(&j->dialer->egress, !addr_is_v4(a))) {
			j->saw_foreign = true;
		} else {
			*ret = *a;
			return true;
		}
	}
	return false;
}

static void note_resolve_failure(struct job *j, int r)
{
	/* "No such address" of one family says less than trouble with the other. */
	if (j->resolve_r == 0 || j->resolve_r == -ENOENT)
		j->resolve_r = r;
}

static void on_lookup(struct lookup *l, int r, const struct addr *addrs, size_t n)
{
	struct family *f = CONTAINER_OF(l, struct family, lookup);
	struct job *j = f->job;
	size_t first = n > 0 ? j->turn % n : 0;

	if (r < 0)
		note_resolve_failure(j, r);
	f->next = 0;
	f->n = n;
	for (size_t i = 0; i < n; i++) {
		f->addrs[i] = addrs[(first + i) % n];
		f->addrs[i].port = j->hops[j->next_hop - 1].addr.port;
	}
	if (j->n_attempts == 0)
		timer_stop(j->dialer->loop, &j->pace); /* the wait for the wanted family */
	job_step(j);
}

static void ask(struct job *j, int family, const char *name)
{
	struct family *f = &j->family[family];
	int r;

	f->lookup.done = on_lookup;
	r = lookup_start(j->dialer->resolver, &f->lookup, name, family == V6 ? AF_INET6 : AF_INET);
	if (r < 0)
		note_resolve_failure(j, r);
}

/* Takes the next hop: questions are asked, a literal is at hand at once. False: no hop is left. */
static bool take_hop(struct job *j)
{
	const struct hop *hop;
	struct family *f;

	if (j->next_hop == j->n_hops)
		return false;
	hop = &j->hops[j->next_hop++];
	if (hop->host) {
		ask(j, j->wanted, hop->host); /* answers from the cache come in this order */
		ask(j, !j->wanted, hop->host);
		return true;
	}
	f = &j->family[addr_is_v4(&hop->addr) ? V4 : V6];
	f->addrs[0] = hop->addr;
	f->next = 0;
	f->n = 1;
	return true;
}

/* False: none now. Then either lookups are under way, or there is nothing left to try. */
static bool next_destination(struct job *j, struct addr *ret)
{
	while (!next_addr(j, ret))
		if (is_resolving(j) || !take_hop(j))
			return false;
	return true;
}

/* ---- one job ---- */

/* Goes as far as it can. The job may be over afterwards. */
static void job_step(struct job *j)
{
	struct loop *loop = j->dialer->loop;
	struct addr dst;
	int r;

	while (!timer_is_armed(&j->pace) && j->n_attempts < MAX_ATTEMPTS) {
		if (should_wait_for_wanted(j)) {
			j->waited = true;
			timer_start(loop, &j->pace, RESOLUTION_DELAY_MS);
			return;
		}
		if (!next_destination(j, &dst))
			break;
		r = attempt_start(j, &dst);
		if (r < 0)
			j->attempt_r = r;
		else
			timer_start(loop, &j->pace, ATTEMPT_DELAY_MS);
	}
	if (j->n_open == 0 && (j->n_attempts == MAX_ATTEMPTS || !is_resolving(j)))
		job_give_up(j);
}

static void on_pace(struct timer *t)
{
	job_step(CONTAINER_OF(t, struct job, pace));
}

static void on_later(struct later *l)
{
	struct job *j = CONTAINER_OF(l, struct job, later);

	if (j->d)
		job_step(j);
	else
		job_free(j);
}

/* The target is borrowed, so names and networks are copied. */
static int copy_names(struct job *j)
{
	size_t size = 0;
	char *p;

	for (size_t i = 0; i < j->n_hops; i++)
		size += j->hops[i].host ? strlen(j->hops[i].host) + 1 : 0;
	if (size == 0)
		return 0;
	p = j->text = malloc(size);
	if (!p)
		return -ENOMEM;
	for (size_t i = 0; i < j->n_hops; i++) {
		if (!j->hops[i].host)
			continue;
		size = strlen(j->hops[i].host) + 1;
		j->hops[i].host = memcpy(p, j->hops[i].host, size);
		p += size;
	}
	return 0;
}

static int copy_registered(struct job *j, const struct service *s)
{
	if (!s || s->n_addresses == 0 || !j->text)
		return 0; /* without names there is nothing to judge later */
	j->registered = malloc(s->n_addresses * sizeof(j->registered[0]));
	if (!j->registered)
		return -ENOMEM;
	memcpy(j->registered, s->addresses, s->n_addresses * sizeof(j->registered[0]));
	j->n_registered = s->n_addresses;
	return 0;
}

/* The client's own address is judged while the service is there to ask. */
static bool dst_refused(const struct dialer *dialer, const struct dial_target *t)
{
	const struct service *s = t->service;

	return private_refused(&dialer->rules, s ? s->addresses : NULL, s ? s->n_addresses : 0,
			       t->dst);
}

static int job_new(struct job **ret, struct dialer *dialer, const struct dial_target *target)
{
	struct hop hops[TARGET_MAX_HOPS];
	int n = target_plan(target, draw(dialer), hops), r;
	struct job *j;

	if (n < 0)
		return n;
	j = calloc(1, sizeof(*j) + (size_t)n * sizeof(hops[0]));
	if (!j)
		return -ENOMEM;
	memcpy(j->hops, hops, (size_t)n * sizeof(hops[0]));
	j->n_hops = (size_t)n;
	r = copy_names(j);
	if (r == 0)
		r = copy_registered(j, target->service);
	if (r < 0) {
		job_free(j);
		return r;
	}
	if (!hops[0].host && !hops[0].endpoint)
		j->dst_refused = dst_refused(dialer, target);
	j->wanted = addr_is_v4(target->dst) ? V4 : V6;
	j->dialer = dialer;
	j->family[V4].job = j->family[V6].job = j;
	j->later.run = on_later;
	j->deadline.on_expire = on_deadline;
	j->pace.on_expire = on_pace;
	*ret = j;
	return 0;
}

int dial_start(struct dialer *dialer, struct dial *d, const struct dial_target *target)
{
	struct job *j;
	int r = job_new(&j, dialer, target);

	if (r < 0)
		return r;
	j->d = d;
	d->priv = j;
	j->next = dialer->jobs;
	j->link = &dialer->jobs;
	if (j->next)
		j->next->link = &j->next;
	dialer->jobs = j;
	if (target->service && target->service->resolution == RESOLUTION_DNS_ROUND_ROBIN)
		j->turn = dialer->turn++;

	timer_start(dialer->loop, &j->deadline, dialer->timeout_ms);
	/* Asking at once saves a round of the loop; the step, which may call done(), is for later.
	 */
	take_hop(j);
	if (!is_resolving(j))
		loop_later(dialer->loop, &j->later);
	return 0;
}

void dial_cancel(struct dial *d)
{
	if (d->priv)
		job_retire(d->priv);
}

/* ---- the dialer ---- */

void dial_release(struct dialer *dialer, const struct addr *src)
{
	egress_drop(&dialer->egress, src);
}

unsigned dialer_ports_in_use(const struct dialer *dialer, size_t i)
{
	return atomic_load_explicit(&dialer->egress.in_use[i], memory_order_relaxed);
}

static int copy_rules(struct dialer *dialer, const struct dialer_config *config)
{
	size_t n = config->n_cluster_cidrs, m = config->n_allowed_private_cidrs;

	if (n + m == 0)
		return 0;
	dialer->cidrs = calloc(n + m, sizeof(dialer->cidrs[0]));
	if (!dialer->cidrs)
		return -ENOMEM;
	if (n > 0)
		memcpy(dialer->cidrs, config->cluster_cidrs, n * sizeof(dialer->cidrs[0]));
	if (m > 0)
		memcpy(dialer->cidrs + n, config->allowed_private_cidrs,
		       m * sizeof(dialer->cidrs[0]));
	dialer->rules = (struct private_rules){dialer->cidrs, n, dialer->cidrs + n, m};
	return 0;
}

static int dialer_init(struct dialer *dialer, const struct dialer_config *config)
{
	int r;

	dialer->timeout_ms = config->connect_timeout_ms;
	if (getrandom(&dialer->random, sizeof(dialer->random), 0) != sizeof(dialer->random))
		return -EIO;
	dialer->turn = draw(dialer);
	r = copy_rules(dialer, config);
	if (r < 0)
		return r;
	r = egress_init(&dialer->egress, config->source_ips, config->n_source_ips, draw(dialer));
	if (r < 0)
		return r;
	return resolver_new(&dialer->resolver, dialer->loop, config->resolvers,
			    config->n_resolvers);
}

int dialer_new(struct dialer **ret, struct loop *loop, const struct dialer_config *config)
{
	struct dialer *dialer = calloc(1, sizeof(*dialer));
	int r;

	if (!dialer)
		return -ENOMEM;
	dialer->loop = loop;
	r = dialer_init(dialer, config);
	if (r < 0) {
		dialer_free(dialer);
		return r;
	}
	*ret = dialer;
	return 0;
}

void dialer_free(struct dialer *dialer)
{
	if (!dialer)
		return;
	while (dialer->jobs)
		job_retire(dialer->jobs);
	resolver_free(dialer->resolver);
	egress_done(&dialer->egress);
	free(dialer->cidrs);
	free(dialer);
}
