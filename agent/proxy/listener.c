/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h> /* before the kernel's own, which then leave out what it defines */
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/owned.h"
#include "proxy/conn.h"

#define ACCEPTS 4 /* per event: other workers get their share, other connections their turn */

/* Where the client meant to go. Without a translation it meant the listener itself. */
static int original_destination(int fd, bool v6, struct addr *ret)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	int r;

	r = v6 ? getsockopt(fd, IPPROTO_IPV6, IP6T_SO_ORIGINAL_DST, &sa, &len)
	       : getsockopt(fd, IPPROTO_IP, SO_ORIGINAL_DST, &sa, &len);
	if (r < 0) {
		len = sizeof(sa);
		if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
			return -errno;
	}
	return addr_from_sockaddr(&sa, ret);
}

static bool is_listener_itself(int fd, const struct addr *dst)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct addr own;

	return getsockname(fd, (struct sockaddr *)&sa, &len) == 0 &&
	       addr_from_sockaddr(&sa, &own) == 0 && addr_equal(&own, dst);
}

/* At no moment more than `max`: who is refused takes no place from somebody else, and is not seen.
 */
static bool count_in(atomic_uint *count, uint64_t max)
{
	unsigned now = atomic_load_explicit(count, memory_order_relaxed);

	do {
		if (now >= max)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(count, &now, now + 1, memory_order_relaxed,
							memory_order_relaxed));
	return true;
}

/* Takes a place in the counts, or says that there is none. */
static bool take_place(struct shared *s, struct identity *source)
{
	if (!count_in(&s->connections, s->max_connections))
		return false;
	if (source && !count_in(&source->connections, s->max_connections_per_pod)) {
		atomic_fetch_sub_explicit(&s->connections, 1, memory_order_relaxed);
		return false;
	}
	return true;
}

/* Tells the token. It fits into any socket's buffer. */
static void prove(struct worker *w, int fd)
{
	OWNED_FD int own = fd;

	if (send(own, w->shared->proof.token, PROOF_BYTES, MSG_NOSIGNAL) != PROOF_BYTES)
		log_debug("a proving connection was gone before it was answered");
}

static bool is_proof(const struct proof *proof, const struct addr *dst)
{
	return addr_equal(dst, &proof->v4) || addr_equal(dst, &proof->v6);
}

/* Whose it is and where it was meant to go. False: refused. *ret_source is a reference. */
static bool trace(struct tap *tap, int fd, const struct addr *remote, struct identity **ret_source,
		  struct addr *ret_dst)
{
	const struct origin *origin = &tap->listener->origin;
	struct identity *source = identity_ref(tap->listener->source);
	int r;

	if (origin->find)
		r = origin->find(origin->ctx, fd, remote, &source, ret_dst);
	else
		r = original_destination(fd, tap->v6, ret_dst);
	if (r == -ENOENT || (r == 0 && !origin->find && is_listener_itself(fd, ret_dst))) {
		conn_refuse_early(tap->worker, fd, remote, source, r == 0 ? ret_dst : NULL,
				  REASON_PRIVATE_DESTINATION,
				  "connected to the capture listener itself");
	} else if (r < 0) { /* the client is gone already */
		conn_refuse_early(tap->worker, fd, remote, source, NULL, REASON_PROTOCOL_MISMATCH,
				  "no original destination");
		r = -EIO;
	} else {
		*ret_source = source;
		return true;
	}
	identity_unref(source);
	return false;
}

static void admit_from(struct worker *w, int fd, const struct addr *remote, struct identity *source,
		       const struct addr *dst)
{
	if (take_place(w->shared, source)) {
		conn_start(w, fd, remote, source, dst);
		return;
	}
	atomic_fetch_add_explicit(&w->shared->limited, 1, memory_order_relaxed);
	conn_refuse_early(w, fd, remote, source, dst, REASON_LIMIT_EXCEEDED,
			  "too many connections");
}

static void admit(struct tap *tap, int fd, const struct addr *remote)
{
	struct worker *w = tap->worker;
	struct identity *source = NULL;
	struct addr dst = {0};

	atomic_fetch_add_explicit(&w->shared->accepted, 1, memory_order_relaxed);
	if (!tap->listener->source && !tap->listener->origin.find) {
		if (peers_may(w->snapshot->peers, remote))
			admit_from(w, fd, remote, NULL, NULL);
		else
			conn_refuse_early(w, fd, remote, NULL, NULL, REASON_TUNNEL_REFUSED,
					  "not from a node of the cluster");
		return;
	}
	if (!trace(tap, fd, remote, &source, &dst))
		return;
	if (is_proof(&w->shared->proof, &dst))
		prove(w, fd);
	else
		admit_from(w, fd, remote, source, &dst);
	identity_unref(source);
}

/* Out of descriptors: one is kept back for telling the client instead of leaving it to wait. */
static void refuse_one(struct tap *tap)
{
	struct worker *w = tap->worker;
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct addr remote = {0};
	int fd;

	atomic_fetch_add_explicit(&w->shared->accept_failed, 1, memory_order_relaxed);
	if (w->spare_fd >= 0)
		close(w->spare_fd);
	fd = accept4(tap->watch.fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0) {
		addr_from_sockaddr(&sa, &remote);
		conn_refuse_early(w, fd, &remote, tap->listener->source, NULL,
				  REASON_LIMIT_EXCEEDED, "out of file descriptors");
	}
	w->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* It listens no more: a process in the pod with CAP_NET_ADMIN can have a socket of its namespace
 * destroyed (SOCK_DESTROY). Who looks after the pod makes another.
 */
static void bury(struct tap *tap)
{
	watch_remove(tap->worker->loop, &tap->watch);
	atomic_store(&tap->listener->dead, true);
}

static void on_accept(struct watch *watch, uint32_t events)
{
	struct tap *tap = CONTAINER_OF(watch, struct tap, watch);

	(void)events;
	for (int i = 0; i < ACCEPTS; i++) {
		struct sockaddr_storage sa;
		socklen_t len = sizeof(sa);
		struct addr remote = {0};
		int fd = accept4(watch->fd, (struct sockaddr *)&sa, &len,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			addr_from_sockaddr(&sa, &remote);
			admit(tap, fd, &remote);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
			   errno == ENOBUFS) {
			refuse_one(tap);
			return;
		} else if (errno == EAGAIN) {
			return;
		} else if (errno == EINVAL) {
			return bury(tap);
		} /* others concern one connection that was gone before we came */
	}
}

static void on_unref(struct later *l)
{
	struct tap *taps = CONTAINER_OF(l, typeof(((struct listener *)0)->of[0]), unref)->taps;

	listener_unref(taps[0].listener);
}

int listener_new(struct listener **ret, struct identity *source, const struct origin *origin,
		 const int fds[], size_t n, size_t n_workers)
{
	struct listener *l = calloc(1, sizeof(*l) + n_workers * sizeof(l->of[0]));

	if (!l)
		return -ENOMEM;
	atomic_init(&l->refs, 1);
	atomic_init(&l->dead, false);
	l->source = identity_ref(source);
	if (origin)
		l->origin = *origin;
	l->n_workers = n_workers;
	for (size_t i = 0; i < n && l->n_fds < ARRAY_SIZE(l->fds); i++) {
		if (fds[i] >= 0)
			l->fds[l->n_fds++] = fds[i];
	}
	for (size_t i = 0; i < n_workers; i++)
		l->of[i].taps[0].listener = l;
	*ret = l;
	return 0;
}

void listener_unref(struct listener *l)
{
	if (!l || atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < l->n_fds; i++)
		close(l->fds[i]);
	identity_unref(l->source);
	free(l);
}

static bool is_v6(int fd)
{
	int family = 0;
	socklen_t len = sizeof(family);

	getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len);
	return family == AF_INET6;
}

void listener_join(struct listener *l, struct worker *w)
{
	atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
	l->of[w->index].unref.run = on_unref;
	for (size_t i = 0; i < l->n_fds; i++) {
		struct tap *tap = &l->of[w->index].taps[i];
		int r;

		*tap = (struct tap){
			.watch = {.fd = l->fds[i], .on_event = on_accept},
			.worker = w,
			.listener = l,
			.v6 = is_v6(l->fds[i]),
		};
		r = watch_add(w->loop, &tap->watch, EPOLLIN | EPOLLEXCLUSIVE);
		if (r < 0)
			log_err(r, "worker %u cannot watch a listener", w->index);
	}
}

void listener_leave(struct listener *l, struct worker *w)
{
	for (size_t i = 0; i < l->n_fds; i++) {
		watch_remove(w->loop, &l->of[w->index].taps[i].watch);
		l->of[w->index].taps[i].watch.fd = -1; /* shared: closed with the last reference */
	}
	loop_later(w->loop, &l->of[w->index].unref);
}
