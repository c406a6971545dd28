/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <signal.h>

#include "base/log.h"
#include "base/owned.h"
#include "proxy/conn.h"
#include "proxy/listener.h"
#include "proxy/worker.h"

#define MAX_WORKERS    256
#define FDS_RESERVED   512 /* listeners, logs, admin, resolver, netlink */
#define FDS_CONNECTION 2
#define PIPES_SHARE    8   /* one descriptor in so many may be a pipe's */
#define SWEEP_SLICE    256 /* connections judged again before others get their turn */

struct engine {
	struct shared shared;
	struct snapshot *snapshot;
	size_t n;
	struct worker *workers;
};

/* What the control thread asks of a worker. */
struct command {
	struct message message;
	struct worker *worker;
	struct snapshot *snapshot;
	struct listener *listener;
	struct identity *source;
	bool end;
	struct print *print;
};

/* ---- on the worker's thread ---- */

void worker_request_id(struct worker *w, uint8_t ret[static 16])
{
	if (w->random_left < 16) {
		if (getrandom(w->random, sizeof(w->random), 0) != sizeof(w->random))
			abort(); /* cannot happen for 512 bytes once the pool is up (random(7)) */
		w->random_left = sizeof(w->random);
	}
	w->random_left -= 16;
	memcpy(ret, w->random + w->random_left, 16);
	ret[6] = (uint8_t)(0x40 | (ret[6] & 0x0f)); /* RFC 9562 5.4: a random UUID */
	ret[8] = (uint8_t)(0x80 | (ret[8] & 0x3f));
}

static void on_sweep(struct later *l)
{
	struct worker *w = CONTAINER_OF(l, struct worker, sweeper);

	for (int i = 0; w->sweep && i < SWEEP_SLICE; i++) {
		struct conn *c = w->sweep;

		w->sweep = c->next;
		conn_judge_again(c);
	}
	if (w->sweep)
		loop_later(w->loop, &w->sweeper);
}

static struct command *command_of(struct message *m)
{
	return CONTAINER_OF(m, struct command, message);
}

static void on_publish(struct message *m)
{
	OWNED_MEM struct command *cmd = command_of(m);
	struct worker *w = cmd->worker;

	snapshot_unref(w->snapshot);
	w->snapshot = cmd->snapshot;
	w->sweep = w->conns;
	loop_later(w->loop, &w->sweeper);
}

static void on_listen(struct message *m)
{
	OWNED_MEM struct command *cmd = command_of(m);

	listener_join(cmd->listener, cmd->worker);
	listener_unref(cmd->listener);
}

static void end_source(struct worker *w, const struct identity *source)
{
	for (struct conn *c = w->conns, *next; c; c = next) {
		next = c->next;
		if (c->flow.source == source)
			conn_abort(c, REASON_DEREGISTERED, "the pod was unenrolled");
	}
}

static void on_end_source(struct message *m)
{
	OWNED_MEM struct command *cmd = command_of(m);

	end_source(cmd->worker, cmd->source);
	identity_unref(cmd->source);
}

static void on_unlisten(struct message *m)
{
	OWNED_MEM struct command *cmd = command_of(m);
	struct worker *w = cmd->worker;

	if (cmd->end && cmd->listener->source)
		end_source(w, cmd->listener->source);
	listener_leave(cmd->listener, w);
	listener_unref(cmd->listener);
}

static void on_stop(struct message *m)
{
	OWNED_MEM struct command *cmd = command_of(m);
	struct worker *w = cmd->worker;

	while (w->conns)
		conn_abort(w->conns, REASON_NONE, "agent_stopped");
	loop_stop(w->loop);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	int r = loop_run(w->loop);

	if (r < 0)
		log_err(r, "worker %u stopped", w->index);
	return NULL;
}

/* ---- set-up ---- */

static void make_proof(struct proof *ret)
{
	if (addr_parse("198.18.255.254:15001", &ret->v4) < 0 ||
	    addr_parse("[2001:2::ffff]:15001", &ret->v6) < 0 ||
	    getrandom(ret->token, PROOF_BYTES, 0) != PROOF_BYTES)
		abort(); /* cannot happen for so few bytes (random(7)) */
}

/* As many descriptors as we may have, and what follows for connections and pipes. */
static void derive_limits(struct engine *e, const struct config *config, unsigned *ret_pipes)
{
	struct rlimit limit = {0};
	uint64_t fds, most;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
			getrlimit(RLIMIT_NOFILE, &limit);
	}
	fds = limit.rlim_cur > 2 * FDS_RESERVED ? limit.rlim_cur - FDS_RESERVED : FDS_RESERVED;
	*ret_pipes = (unsigned)(fds / PIPES_SHARE / 2 < 4096 ? fds / PIPES_SHARE / 2 : 4096);
	most = (fds - 2 * (uint64_t)*ret_pipes) / FDS_CONNECTION;

	e->shared.max_connections = config->limits.connections ?: most;
	if (e->shared.max_connections > most) {
		log_warn(0,
			 "limits.connections %llu needs more descriptors than RLIMIT_NOFILE %llu "
			 "gives: using %llu",
			 (unsigned long long)e->shared.max_connections,
			 (unsigned long long)limit.rlim_cur, (unsigned long long)most);
		e->shared.max_connections = most;
	}
	e->shared.max_connections_per_pod =
		config->limits.connections_per_pod ?: (e->shared.max_connections + 1) / 2;
	log_info("RLIMIT_NOFILE is %llu: at most %llu connections, %llu of one pod, %u pipes",
		 (unsigned long long)limit.rlim_cur, (unsigned long long)e->shared.max_connections,
		 (unsigned long long)e->shared.max_connections_per_pod, *ret_pipes);
}

static int new_dialer(struct worker *w, const struct config *config)
{
	struct dialer_config dc = {
		.resolvers = config->egress.resolvers,
		.n_resolvers = config->egress.n_resolvers,
		.source_ips = config->egress.source_ips,
		.n_source_ips = config->egress.n_source_ips,
		.cluster_cidrs = config->cluster_cidrs,
		.n_cluster_cidrs = config->n_cluster_cidrs,
		.allowed_private_cidrs = config->egress.allowed_private_cidrs,
		.n_allowed_private_cidrs = config->egress.n_allowed_private_cidrs,
		.connect_timeout_ms = config->limits.connect_timeout_ms,
	};

	if (config->role != ROLE_GATEWAY)
		return 0;
	return dialer_new(&w->dialer, w->loop, &dc);
}

static int worker_init(struct worker *w, struct engine *e, unsigned index, unsigned pipes)
{
	int r;

	w->shared = &e->shared;
	w->index = index;
	w->sweeper.run = on_sweep;
	w->env.max_pipes = pipes / (unsigned)e->n ?: 1;
	w->env.scratch = malloc(PUMP_SCRATCH);
	w->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (!w->env.scratch || w->spare_fd < 0)
		return -ENOMEM;
	r = loop_new(&w->loop);
	w->env.loop = w->loop;
	if (r == 0)
		r = new_dialer(w, e->snapshot->config);
	if (r < 0)
		return r;
	w->snapshot = snapshot_ref(e->snapshot);
	return 0;
}

/* Threads inherit the mask: signals are the control thread's. */
static int worker_start(struct worker *w)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&w->thread, NULL, work, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

static void worker_done(struct worker *w)
{
	if (w->loop)
		while (w->conns) /* only where the thread never ran */
			conn_abort(w->conns, REASON_NONE, "agent_stopped");
	dialer_free(w->dialer);
	loop_free(w->loop);
	pump_env_done(&w->env);
	snapshot_unref(w->snapshot);
	owned_close(&w->spare_fd);
}

int engine_start(struct engine **ret, struct snapshot *first, const struct observers *observers)
{
	struct engine *e = calloc(1, sizeof(*e));
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned pipes, started = 0;
	int r = 0;

	if (!e)
		return -ENOMEM;
	e->snapshot = snapshot_ref(first);
	e->shared.observers = *observers;
	e->shared.role = first->config->role;
	e->n = first->config->workers ?: (unsigned)(cpus > 0 ? cpus : 1);
	if (e->n > MAX_WORKERS)
		e->n = MAX_WORKERS;
	make_proof(&e->shared.proof);
	derive_limits(e, first->config, &pipes);
	e->workers = calloc(e->n, sizeof(e->workers[0]));
	if (!e->workers)
		r = -ENOMEM;
	for (unsigned i = 0; r == 0 && i < e->n; i++) {
		e->workers[i].spare_fd = -1;
		r = worker_init(&e->workers[i], e, i, pipes);
	}
	for (; r == 0 && started < e->n; started++)
		r = worker_start(&e->workers[started]);
	if (r < 0) {
		log_err(r, "cannot start %zu workers", e->n);
		e->n = r < 0 && started > 0 ? started - 1 : 0;
		engine_stop(e);
		return r;
	}
	*ret = e;
	return 0;
}

/* ---- commands ---- */

/* All or nothing: one command per worker is made before the first is sent. */
static int commands_new(const struct engine *e, void (*run)(struct message *m),
			struct command *ret[])
{
	for (size_t i = 0; i < e->n; i++) {
		ret[i] = calloc(1, sizeof(*ret[i]));
		if (!ret[i]) {
			while (i > 0)
				free(ret[--i]);
			return -ENOMEM;
		}
		ret[i]->message.run = run;
		ret[i]->worker = &e->workers[i];
	}
	return 0;
}

static void send_all(const struct engine *e, struct command *commands[])
{
	for (size_t i = 0; i < e->n; i++)
		loop_post(e->workers[i].loop, &commands[i]->message);
}

int engine_publish(struct engine *e, struct snapshot *snapshot)
{
	struct command *commands[MAX_WORKERS];
	int r = commands_new(e, on_publish, commands);

	if (r < 0)
		return r;
	for (size_t i = 0; i < e->n; i++)
		commands[i]->snapshot = snapshot_ref(snapshot);
	snapshot_unref(e->snapshot);
	e->snapshot = snapshot_ref(snapshot);
	send_all(e, commands);
	return 0;
}

static int listen_for(struct engine *e, struct identity *source, const struct origin *origin,
		      const int fds[], size_t n, struct listener **ret)
{
	struct command *commands[MAX_WORKERS];
	struct listener *l;
	int r = listener_new(&l, source, origin, fds, n, e->n);

	if (r == 0) {
		r = commands_new(e, on_listen, commands);
		if (r < 0) {
			listener_unref(l); /* closes them */
			return r;
		}
	}
	if (r < 0) {
		for (size_t i = 0; i < n; i++)
			owned_close(&(int){fds[i]});
		return r;
	}
	for (size_t i = 0; i < e->n; i++) {
		atomic_fetch_add(&l->refs, 1);
		commands[i]->listener = l;
	}
	send_all(e, commands);
	*ret = l;
	return 0;
}

int engine_listen(struct engine *e, struct identity *source, const int fds[], size_t n,
		  struct listener **ret)
{
	return listen_for(e, source, NULL, fds, n, ret);
}

int engine_listen_shared(struct engine *e, const struct origin *origin, const int fds[], size_t n,
			 struct listener **ret)
{
	return listen_for(e, NULL, origin, fds, n, ret);
}

bool engine_listener_is_alive(const struct listener *l)
{
	return !atomic_load(&l->dead);
}

void engine_end_source(struct engine *e, struct identity *source)
{
	struct command *commands[MAX_WORKERS];

	if (commands_new(e, on_end_source, commands) < 0) {
		log_err(-ENOMEM, "cannot end the connections of pod '%s/%s', ignoring", source->ns,
			source->pod);
		return;
	}
	for (size_t i = 0; i < e->n; i++)
		commands[i]->source = identity_ref(source);
	send_all(e, commands);
}

const struct proof *engine_proof(const struct engine *e)
{
	return &e->shared.proof;
}

void engine_unlisten(struct engine *e, struct listener *l, bool end)
{
	struct command *commands[MAX_WORKERS];

	if (commands_new(e, on_unlisten, commands) < 0) {
		log_err(-ENOMEM, "cannot stop a listener, ignoring");
		return;
	}
	for (size_t i = 0; i < e->n; i++) {
		atomic_fetch_add(&l->refs, 1);
		commands[i]->listener = l;
		commands[i]->end = end;
	}
	/* Workers let go of it one after the other: the port is to be free for the next one now. */
	for (size_t i = 0; i < l->n_fds; i++)
		shutdown(l->fds[i], SHUT_RDWR);
	send_all(e, commands);
	listener_unref(l);
}

void engine_stats(const struct engine *e, struct engine_stats *ret)
{
	const struct shared *s = &e->shared;

	*ret = (struct engine_stats){
		.connections = atomic_load(&s->connections),
		.max_connections = s->max_connections,
		.max_connections_per_pod = s->max_connections_per_pod,
		.accepted = atomic_load(&s->accepted),
		.limited = atomic_load(&s->limited),
		.header_refused = atomic_load(&s->header_refused),
		.accept_failed = atomic_load(&s->accept_failed),
	};
}

unsigned engine_ports_in_use(const struct engine *e, size_t i)
{
	unsigned n = 0;

	for (size_t w = 0; w < e->n; w++) {
		if (e->workers[w].dialer)
			n += dialer_ports_in_use(e->workers[w].dialer, i);
	}
	return n;
}

void engine_stop(struct engine *e)
{
	struct command *commands[MAX_WORKERS];

	if (!e)
		return;
	if (e->n > 0 && commands_new(e, on_stop, commands) == 0) {
		send_all(e, commands);
		for (size_t i = 0; i < e->n; i++)
			pthread_join(e->workers[i].thread, NULL);
	}
	for (size_t i = 0; i < e->n; i++)
		worker_done(&e->workers[i]);
	free(e->workers);
	snapshot_unref(e->snapshot);
	free(e);
}

/* ---- printing ---- */

/* One round of asking; the last worker to answer posts it home. */
struct print {
	struct message message; /* home */
	atomic_uint left;
	struct loop *home;
	void (*done)(void *ctx, json_t *array);
	void *ctx;
	size_t n;
	json_t *parts[]; /* by worker */
};

static void on_printed(struct message *m)
{
	OWNED_MEM struct print *p = CONTAINER_OF(m, struct print, message);
	json_t *all = json_array();

	for (size_t i = 0; i < p->n; i++) {
		if (!p->parts[i] || json_array_extend(all, p->parts[i]) < 0) {
			json_decref(all);
			all = NULL;
		}
		json_decref(p->parts[i]);
	}
	p->done(p->ctx, all);
}

static void on_print(struct message *m)
{
	OWNED_MEM struct command *cmd = command_of(m);
	struct worker *w = cmd->worker;
	struct print *p = cmd->print;
	json_t *part = json_array();

	for (struct conn *c = w->conns; c; c = c->next)
		json_array_append_new(part, conn_print(c));
	p->parts[w->index] = part;
	if (atomic_fetch_sub(&p->left, 1) == 1)
		loop_post(p->home, &p->message);
}

int engine_print(struct engine *e, struct loop *home, void (*done)(void *ctx, json_t *array),
		 void *ctx)
{
	struct command *commands[MAX_WORKERS];
	struct print *p = calloc(1, sizeof(*p) + e->n * sizeof(p->parts[0]));
	int r;

	if (!p)
		return -ENOMEM;
	*p = (struct print){
		.message.run = on_printed, .home = home, .done = done, .ctx = ctx, .n = e->n};
	atomic_init(&p->left, (unsigned)e->n);
	r = commands_new(e, on_print, commands);
	if (r < 0) {
		free(p);
		return r;
	}
	for (size_t i = 0; i < e->n; i++)
		commands[i]->print = p;
	send_all(e, commands);
	return 0;
}
