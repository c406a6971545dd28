/* SPDX-License-Identifier: Apache-2.0 */
#include "agent.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/un.h>
#include <time.h>

#include "base/log.h"
#include "base/owned.h"
#include "gateway/source_ip.h"
#include "pod/origins.h"
#include "proxy/refusal.h"
#include "redirect/plan.h"

#define DRAIN_CHECK_MS 50

/* ---- snapshots ---- */

static int publish(struct agent *a)
{
	struct snapshot *s;
	int r = snapshot_new(&s, a->config, a->registry, a->gateways, a->peers);

	if (r == 0) {
		r = engine_publish(a->engine, s);
		snapshot_unref(s);
	}
	if (r < 0)
		log_err(r, "cannot put the new registry into force");
	return r;
}

/* Where the configuration names no endpoints, the API's. */
static int make_gateways(const struct agent *a, const struct config *config, struct gateways **ret)
{
	struct gateways *gws;
	int r = gateways_new(&gws, config->n_gateways);

	for (size_t i = 0; r == 0 && i < config->n_gateways; i++) {
		const struct config_gateway *g = &config->gateways[i];
		const struct addr *endpoints = g->endpoints;
		size_t n = g->n_endpoints;

		if (n == 0 && a->cluster)
			n = cluster_endpoints(a->cluster, g->name, &endpoints);
		r = gateways_set(gws, i, g->name, endpoints, n, a->gateways);
		if (r < 0)
			gateways_unref(gws);
	}
	if (r == 0)
		*ret = gws;
	return r;
}

void agent_gateways_changed(struct agent *a)
{
	struct gateways *gws;
	int r;

	if (!a->engine)
		return; /* the agent is ending */
	r = make_gateways(a, a->config, &gws);
	if (r < 0) {
		log_err(r, "the old endpoints of gateways stay");
		return;
	}
	gateways_unref(a->gateways);
	a->gateways = gws;
	publish(a);
	if (a->prober)
		prober_set(a->prober, gws);
}

void agent_peers_changed(struct agent *a, struct peers *peers)
{
	peers_unref(a->peers);
	a->peers = peers;
	if (a->engine)
		publish(a);
}

/* ---- listeners ---- */

/* Accepted sockets inherit it. */
static void set_no_delay(const int fds[2])
{
	for (int i = 0; i < 2; i++) {
		if (fds[i] >= 0)
			setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	}
}

static int on_pod_listen(void *ctx, struct identity *id, int fds[2], void **ret)
{
	struct agent *a = ctx;
	struct listener *l;
	int r;

	set_no_delay(fds);
	r = engine_listen(a->engine, id, fds, 2, &l);
	if (r == 0)
		*ret = l;
	return r;
}

static void on_pod_unlisten(void *ctx, void *listener)
{
	struct agent *a = ctx;

	engine_unlisten(a->engine, listener, !a->ending);
}

static int on_shared_listen(void *ctx, struct origins *origins, int fds[2], void **ret)
{
	struct origin origin = {.ctx = origins, .find = origins_find};
	struct agent *a = ctx;
	struct listener *l;
	int r;

	set_no_delay(fds);
	r = engine_listen_shared(a->engine, &origin, fds, 2, &l);
	if (r == 0)
		*ret = l;
	return r;
}

static bool on_pod_is_alive(void *ctx, void *listener)
{
	(void)ctx;
	return engine_listener_is_alive(listener);
}

static void on_pod_end(void *ctx, struct identity *id)
{
	struct agent *a = ctx;

	engine_end_source(a->engine, id);
}

static int64_t realtime_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* What never became a connection has its line and its count all the same. */
static void on_pod_refused(void *ctx, const struct pods_refusal *refusal)
{
	const struct identity *source = refusal->source;
	struct agent *a = ctx;
	struct access_record record = {
		.start_time_us = realtime_us(),
		.protocol = refusal->protocol,
		.response_flags = response_flags_of(refusal->reason),
		.connection_termination_details = refusal->detail,
		.downstream_remote_address = refusal->src,
		.downstream_local_address = refusal->dst,
		.upstream_cluster = "BlackHoleCluster",
		.reporter = REPORTER_SOURCE,
		.reason = refusal->reason,
		.source_namespace = source ? source->ns : NULL,
		.source_pod = source ? source->pod : NULL,
		.source_principal = source ? source->principal : NULL,
	};

	metrics_denied_many(a->metrics, refusal->reason, source ? source->ns : "", refusal->count);
	if (!refusal->say)
		return;
	access_log_write(a->access_log, &record);
	if (a->cluster)
		cluster_denied(a->cluster, &record);
}

static int on_pod_admit(void *ctx, const struct pod_name *pod, const char *uid,
			char *service_account)
{
	struct agent *a = ctx;

	return cluster_admit(a->cluster, pod, uid, service_account);
}

/* A worker's thread. */
static void on_denied(void *ctx, const struct access_record *record)
{
	struct agent *a = ctx;

	cluster_denied(a->cluster, record);
}

/* What pods.h needs of the configuration. */
struct pods_settings {
	struct guard_config guard;
	struct steer_config steer;
	struct pods_config pods;
};

static void make_settings(const struct config *c, struct pods_settings *ret)
{
	ret->guard = (struct guard_config){
		.attach = c->guard.attach,
		.pin_dir = c->guard.pin_dir,
		.mark = c->redirect.mark,
		.capture_port = PLAN_CAPTURE_PORT,
		.flows_per_pod = c->guard.inbound_flows,
	};
	ret->steer = (struct steer_config){
		.mark = c->redirect.mark,
		.table = c->redirect.table,
		.priority = c->redirect.priority,
	};
	ret->pods = (struct pods_config){
		.socket = c->enrol.socket,
		.state_dir = c->enrol.state_dir,
		.trust_domain = c->trust_domain,
		.cluster_cidrs = c->cluster_cidrs,
		.n_cluster_cidrs = c->n_cluster_cidrs,
		.backend = c->redirect.backend,
		.guard = &ret->guard,
		.guard_required = c->guard.mode == GUARD_REQUIRED,
		.dhcp = c->guard.dhcp,
		.steer = &ret->steer,
	};
}

static int open_pods(struct agent *a)
{
	const struct proof *proof = engine_proof(a->engine);
	struct pods_proof pp = {.v4 = proof->v4, .v6 = proof->v6, .token = proof->token};
	struct pods_settings settings;
	struct pods_hooks hooks = {
		.ctx = a,
		.listen = on_pod_listen,
		.listen_shared = on_shared_listen,
		.is_alive = on_pod_is_alive,
		.unlisten = on_pod_unlisten,
		.end = on_pod_end,
		.refused = on_pod_refused,
		.admit = a->cluster ? on_pod_admit : NULL,
	};

	make_settings(a->config, &settings);
	settings.pods.proof = &pp;
	return pods_start(&a->pods, a->loop, &settings.pods, &hooks);
}

/* "0.0.0.0:P" beside "[::]:P": the second must not claim the first's. */
static bool has_v4_twin(const struct config *config, const struct addr *v6)
{
	for (size_t i = 0; i < config->tunnel.n_listen; i++) {
		const struct addr *a = &config->tunnel.listen[i];

		if (addr_is_v4(a) && a->port == v6->port)
			return true;
	}
	return false;
}

static int tunnel_socket(const struct config *config, const struct addr *addr)
{
	struct sockaddr_storage sa;
	socklen_t len = addr_to_sockaddr(addr, &sa);
	OWNED_FD int fd = -1;

	fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); /* inherited */
	if (sa.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){has_v4_twin(config, addr)},
			   sizeof(int));
	if (bind(fd, (struct sockaddr *)&sa, len) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int open_tunnel(struct agent *a)
{
	const struct config *c = a->config;

	if (c->tunnel.n_listen > MAX_TUNNEL_LISTENERS)
		return log_err(-E2BIG, "tunnel.listen: at most %d addresses, use a wildcard",
			       MAX_TUNNEL_LISTENERS);
	for (size_t i = 0; i < c->tunnel.n_listen; i++) {
		char text[ADDR_TEXT];
		int fd = tunnel_socket(c, &c->tunnel.listen[i]);
		int r = fd;

		addr_print(&c->tunnel.listen[i], text);
		if (fd == -EAFNOSUPPORT && i > 0) {
			log_warn(fd, "tunnel.listen: no IPv6 here, '%s' is left out", text);
			continue;
		}
		if (fd >= 0)
			r = engine_listen(a->engine, NULL, &fd, 1, &a->tunnel[a->n_tunnel]);
		if (r < 0)
			return log_err(r, "tunnel.listen: cannot listen on '%s'", text);
		a->n_tunnel++;
		log_info("tunnel: listening on %s", text);
	}
	return 0;
}

/* The first registry is in force: from now on connections are taken. */
static void open_listeners(struct agent *a)
{
	int r = a->config->role == ROLE_NODE ? open_pods(a) : open_tunnel(a);

	a->open = r == 0;
	if (a->open && a->cluster)
		cluster_ready(a->cluster);
	if (r < 0) {
		a->result = r;
		loop_stop(a->loop);
	}
}

/* ---- registry ---- */

struct news {
	struct message message;
	struct agent *agent;
	struct registry *registry;
};

static void on_news(struct message *m)
{
	OWNED_MEM struct news *n = CONTAINER_OF(m, struct news, message);
	struct agent *a = n->agent;
	size_t n_hosts = registry_n_hosts(n->registry);
	bool is_news = !a->open || n_hosts != registry_n_hosts(a->registry);

	registry_unref(a->registry);
	a->registry = n->registry;
	if (!a->engine)
		return; /* the agent is ending */
	if (is_news)
		log_info("registry: %zu hosts on %zu ports are in force", n_hosts,
			 registry_n_services(a->registry));
	if (publish(a) == 0 && !a->open && !a->draining)
		open_listeners(a);
}

/* On the source's thread. */
static void on_registry(void *ctx, struct registry *reg)
{
	struct agent *a = ctx;
	struct news *n = calloc(1, sizeof(*n));

	if (!n) {
		log_err(-ENOMEM, "cannot put the new registry into force");
		return;
	}
	n->message.run = on_news;
	n->agent = a;
	n->registry = registry_ref(reg);
	loop_post(a->loop, &n->message);
}

/* ---- signals ---- */

static void reload(struct agent *a)
{
	const struct config *config;
	struct gateways *gws;

	access_log_reopen(a->access_log);
	if (config_load(a->config->path, &config) < 0) {
		log_warn(0, "'%s' is not in order: the settings in force stay", a->config->path);
		return;
	}
	if (config->role != a->config->role || make_gateways(a, config, &gws) < 0) {
		log_warn(0, "'%s': the role cannot change while the agent runs: restart it",
			 a->config->path);
		config_unref(config);
		return;
	}
	config_unref(a->config);
	gateways_unref(a->gateways);
	a->config = config;
	a->gateways = gws;
	publish(a);
	source_set_paths(a->source, config->registry_files, config->n_registry_files);
	if (a->prober)
		prober_set(a->prober, gws);
	if (a->pods)
		pods_set_cluster_cidrs(a->pods, config->cluster_cidrs, config->n_cluster_cidrs);
	log_info("'%s' is in force (sockets, workers and egress settings need a restart)",
		 config->path);
}

static void check_drained(struct timer *t)
{
	struct agent *a = CONTAINER_OF(t, struct agent, drain);
	struct engine_stats stats;

	engine_stats(a->engine, &stats);
	if (stats.connections == 0) {
		log_info("drained");
		loop_stop(a->loop);
	} else if (loop_now_ms(a->loop) >= a->drain_until_ms) {
		log_warn(0, "%llu connections are left after limits.drainTimeout: ending them",
			 (unsigned long long)stats.connections);
		loop_stop(a->loop);
	} else {
		timer_start(a->loop, &a->drain, DRAIN_CHECK_MS);
	}
}

/* A gateway takes no new connections and lets the ones it has come to their end: agents go
 * elsewhere as soon as nobody listens here. A node's pods have nowhere else to go: it ends at once.
 */
static void terminate(struct agent *a)
{
	if (a->draining || a->config->role == ROLE_NODE) {
		loop_stop(a->loop);
		return;
	}
	a->draining = true;
	while (a->n_tunnel > 0)
		engine_unlisten(a->engine, a->tunnel[--a->n_tunnel], false);
	a->drain_until_ms = loop_now_ms(a->loop) + a->config->limits.drain_timeout_ms;
	log_info("draining for at most %llu ms",
		 (unsigned long long)a->config->limits.drain_timeout_ms);
	timer_start(a->loop, &a->drain, DRAIN_CHECK_MS);
}

static void on_signal(struct watch *w, uint32_t events)
{
	struct agent *a = CONTAINER_OF(w, struct agent, signals);
	struct signalfd_siginfo info;

	(void)events;
	while (read(w->fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP)
			reload(a);
		else
			terminate(a);
	}
}

static int watch_signals(struct agent *a)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	a->signals.on_event = on_signal;
	a->signals.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (a->signals.fd < 0)
		return -errno;
	return watch_add(a->loop, &a->signals, EPOLLIN);
}

/* ---- start and end ---- */

static int check_source_ips(const struct config *c)
{
	const struct addr *missing = NULL;
	char text[ADDR_TEXT];
	int r = source_ip_check(c->egress.source_ips, c->egress.n_source_ips, &missing);

	if (r == -EADDRNOTAVAIL)
		return log_err(0,
			       "egress.sourceIPs: %s is not on this machine: add it to an "
			       "interface "
			       "or run the gateway where it is",
			       addr_print_ip(missing, text)),
		       r;
	if (r < 0)
		return log_err(r, "egress.sourceIPs: cannot ask the kernel for its addresses");
	return 0;
}

static int start_engine(struct agent *a)
{
	struct observers observers = {
		.reporter = a->config->role == ROLE_NODE ? REPORTER_SOURCE : REPORTER_DESTINATION,
		.log = a->access_log,
		.metrics = a->metrics,
		.denied = a->cluster && a->config->role == ROLE_NODE ? on_denied : NULL,
		.ctx = a,
	};
	struct snapshot *s;
	int r = snapshot_new(&s, a->config, a->registry, a->gateways, a->peers);

	if (r < 0)
		return log_err(r, "cannot start");
	r = engine_start(&a->engine, s, &observers);
	snapshot_unref(s);
	return r;
}

static int start_prober(struct agent *a)
{
	int r = 0;

	if (a->config->role == ROLE_NODE) {
		r = prober_new(&a->prober, a->loop);
		if (r == 0)
			r = prober_set(a->prober, a->gateways);
	}
	return r < 0 ? log_err(r, "cannot probe gateways") : 0;
}

static int open_observers(struct agent *a)
{
	const struct config *c = a->config;
	int r = access_log_open(&a->access_log, c->access_log.file,
				c->access_log.encoding == LOG_ENCODING_JSON);

	if (r < 0)
		return log_err(r, "accessLog.file: cannot open '%s'", c->access_log.file);
	r = metrics_new(&a->metrics);
	return r < 0 ? log_err(r, "cannot start") : 0;
}

static int start_source(struct agent *a)
{
	const struct config *c = a->config;
	struct source_feed feed;

	if (a->cluster)
		feed = cluster_feed(a->cluster);
	return source_start(&a->source, c->registry_files, c->n_registry_files,
			    a->cluster ? &feed : NULL, on_registry, a);
}

/* Nobody may speak to the gateway's port before the API has said who is a node. */
static int open_cluster(struct agent *a)
{
	int r;

	if (!a->config->kubernetes.enabled)
		return 0;
	r = cluster_new(&a->cluster, a);
	if (r == 0 && a->config->tunnel.nodes_only)
		r = peers_new(&a->peers, NULL, 0);
	return r < 0 ? log_err(r, "cannot start") : 0;
}

static int start(struct agent *a)
{
	const struct config *c = a->config;
	int r = 0;

	if (c->role == ROLE_GATEWAY)
		r = check_source_ips(c);
	if (r == 0)
		r = open_observers(a);
	if (r == 0)
		r = open_cluster(a);
	if (r < 0)
		return r;

	r = loop_new(&a->loop);
	if (r == 0)
		r = watch_signals(a);
	if (r == 0)
		r = registry_new(&a->registry, NULL, 0, NULL, NULL);
	if (r == 0)
		r = make_gateways(a, c, &a->gateways);
	if (r < 0)
		return log_err(r, "cannot start");

	r = start_engine(a);
	if (r == 0)
		r = start_prober(a);
	if (r == 0)
		r = routes_open(a);
	if (r < 0)
		return r;
	r = start_source(a);
	return r < 0 ? log_err(r, "cannot watch the registry's files") : 0;
}

/* Listeners first, then who uses what is below, then what is below. */
static void stop(struct agent *a)
{
	a->ending = true;
	source_stop(a->source);
	pods_stop(TAKE_PTR(a->pods));
	while (a->n_tunnel > 0)
		engine_unlisten(a->engine, a->tunnel[--a->n_tunnel], false);
	prober_free(TAKE_PTR(a->prober));
	engine_stop(TAKE_PTR(a->engine));
	admin_free(a->admin);
	watch_close(&a->signals);
	loop_free(a->loop);
	cluster_free(a->cluster);
	peers_unref(a->peers);
	gateways_unref(a->gateways);
	registry_unref(a->registry);
	access_log_close(a->access_log);
	metrics_free(a->metrics);
	config_unref(a->config);
}

int agent_run(const struct config *config)
{
	struct agent a = {.config = config, .signals.fd = -1, .drain.on_expire = check_drained};
	int r;

	r = start(&a);
	if (r == 0)
		r = loop_run(a.loop);
	if (r == 0)
		r = a.result;
	stop(&a);
	return r;
}

/* Connected when somebody answers on the enrolment socket, for the caller to close. -ENOENT,
 * -ECONNREFUSED: nobody does. -errno: that is not known.
 */
static int reach_agent(const char *socket_path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	OWNED_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (strlen(socket_path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	strcpy(sa.sun_path, socket_path);
	return connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 ? TAKE_FD(fd) : -errno;
}

/* It hangs up on those who ask nothing, too: then it is asked again whether it is there. */
static int wait_for_end(const char *socket_path, bool wait)
{
	bool said = false;

	for (;;) {
		OWNED_FD int fd = reach_agent(socket_path);
		char byte;

		if (fd == -ENOENT || fd == -ECONNREFUSED)
			return 0;
		if (fd < 0)
			return log_err(fd, "cannot tell whether an agent runs (by '%s')",
				       socket_path);
		if (!wait)
			return log_err(-EBUSY, "an agent runs (it answers on '%s'): stop it first",
				       socket_path);
		if (!said)
			log_info("waiting for the agent that answers on '%s' to end", socket_path);
		said = true;
		while (recv(fd, &byte, sizeof(byte), 0) < 0 && errno == EINTR)
			;
	}
}

int agent_uninstall(const struct config *config, bool wait)
{
	struct pods_settings settings;
	int r;

	r = wait_for_end(config->enrol.socket, wait);
	if (r < 0)
		return r;
	make_settings(config, &settings);
	r = pods_uninstall(&settings.pods);
	if (cluster_uninstall(config) < 0 && r == 0)
		r = -EIO;
	if (r == 0)
		log_info("nothing of sluice is in force on this node any more");
	config_unref(config);
	return r;
}
