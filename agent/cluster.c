/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent.h"
#include "base/log.h"
#include "base/owned.h"
#include "kube/cache.h"

#define TAINT         "sluice.io/agent-not-ready"
#define CACHE_DIR     "%s/kubernetes" /* of the state */
#define STATUS_MS     500
#define TOLD_A_SECOND 100 /* refusals that become Events, at most */
#define GATEWAYS_MAX  64
#define ENDPOINTS_MAX 64

struct known_gateway {
	char *name;
	struct addr endpoints[ENDPOINTS_MAX];
	size_t n;
};

struct cluster {
	struct agent *agent;
	const struct config *config; /* as it was at the start; a reference */
	char *cache_dir;
	const char *instance;

	/* Of the source's thread. */
	struct source *source;
	struct loop *loop;
	struct timer look;

	/* Under the lock: other threads ask as long as it is there. */
	pthread_mutex_t lock;
	struct kube *kube;
	struct kube_status status;

	/* Any thread. */
	atomic_bool ready;
	atomic_uint_fast64_t told_since_ms;
	atomic_uint told;            /* refusals of this second */
	atomic_uint_fast64_t untold; /* ever */

	/* Of the control thread. */
	struct known_gateway gateways[GATEWAYS_MAX];
	size_t n_gateways;
};

/* ---- news for the control thread ---- */

struct pod_news {
	struct message message;
	struct cluster *cluster;
	struct pods_wanted wanted;
	char uid[FOUND_UID_MAX + 1], service_account[POD_NAME_MAX + 1];
};

static void take_pod(struct message *m)
{
	OWNED_MEM struct pod_news *n = CONTAINER_OF(m, struct pod_news, message);
	struct agent *a = n->cluster->agent;

	if (a->pods)
		pods_want(a->pods, &n->wanted);
}

/* Any thread. */
static void warn_on_pod(struct cluster *c, const char *ns, const char *name, const char *reason,
			const char *action, const char *message)
{
	struct kube_event event = {
		.kind = "Pod",
		.api_version = "v1",
		.ns = ns,
		.name = name,
		.uid = "",
		.type = "Warning",
		.reason = reason,
		.action = action,
		.message = message,
	};

	pthread_mutex_lock(&c->lock);
	if (c->kube)
		kube_event(c->kube, &event);
	pthread_mutex_unlock(&c->lock);
}

/* Not refused: sluice-init itself needs it, and who may make pods has asked for it. */
static void say_unconfined(struct cluster *c, const struct kube_pod *pod)
{
	static const char message[] =
		"a container with NET_ADMIN (or SYS_ADMIN, or privileged) in the node's user "
		"namespace can get around what confines this pod: take it away, as Pod Security "
		"'baseline' does, or set hostUsers: false";

	log_warn(0, "pod '%s/%s': %s", pod->ns, pod->name, message);
	warn_on_pod(c, pod->ns, pod->name, "EgressNotConfined", "Enrol", message);
}

static void on_pod(void *ctx, const struct kube_pod *pod)
{
	struct cluster *c = ctx;
	struct pod_news *n = calloc(1, sizeof(*n));

	if (pod->unconfined)
		say_unconfined(c, pod);
	if (!n) {
		log_err(-ENOMEM, "pod '%s/%s' cannot be looked after", pod->ns, pod->name);
		return;
	}
	n->message.run = take_pod;
	n->cluster = c;
	snprintf(n->wanted.pod.ns, sizeof(n->wanted.pod.ns), "%s", pod->ns);
	snprintf(n->wanted.pod.name, sizeof(n->wanted.pod.name), "%s", pod->name);
	snprintf(n->uid, sizeof(n->uid), "%s", pod->uid);
	snprintf(n->service_account, sizeof(n->service_account), "%s", pod->service_account);
	n->wanted.uid = n->uid;
	n->wanted.service_account = n->service_account;
	n->wanted.host_network = pod->host_network;
	n->wanted.enforced = pod->enforced;
	n->wanted.ended = pod->ended;
	n->wanted.findable = pod->ready_to_find;
	loop_post(c->agent->loop, &n->message);
}

struct gateway_news {
	struct message message;
	struct cluster *cluster;
	struct known_gateway gateway;
};

static struct known_gateway *find_gateway(struct cluster *c, const char *name)
{
	for (size_t i = 0; i < c->n_gateways; i++) {
		if (strcmp(c->gateways[i].name, name) == 0)
			return &c->gateways[i];
	}
	return NULL;
}

static void take_gateway(struct message *m)
{
	OWNED_MEM struct gateway_news *n = CONTAINER_OF(m, struct gateway_news, message);
	struct cluster *c = n->cluster;
	struct known_gateway *g = find_gateway(c, n->gateway.name);

	if (!g && c->n_gateways < GATEWAYS_MAX) {
		g = &c->gateways[c->n_gateways++];
		g->name = TAKE_PTR(n->gateway.name);
	}
	if (g) {
		memcpy(g->endpoints, n->gateway.endpoints, sizeof(g->endpoints));
		g->n = n->gateway.n;
		log_info("gateway '%s': %zu endpoints", g->name, g->n);
		agent_gateways_changed(c->agent);
	}
	free(n->gateway.name);
}

static void on_gateway(void *ctx, const struct kube_gateway *gateway)
{
	struct gateway_news *n = calloc(1, sizeof(*n));
	struct cluster *c = ctx;

	if (n)
		n->gateway.name = strdup(gateway->name);
	if (!n || !n->gateway.name) {
		free(n);
		log_err(-ENOMEM, "gateway '%s' keeps its endpoints", gateway->name);
		return;
	}
	n->message.run = take_gateway;
	n->cluster = c;
	n->gateway.n = gateway->n_endpoints < ENDPOINTS_MAX ? gateway->n_endpoints : ENDPOINTS_MAX;
	memcpy(n->gateway.endpoints, gateway->endpoints, n->gateway.n * sizeof(struct addr));
	loop_post(c->agent->loop, &n->message);
}

struct node_news {
	struct message message;
	struct cluster *cluster;
	struct peers *peers;
};

static void take_nodes(struct message *m)
{
	OWNED_MEM struct node_news *n = CONTAINER_OF(m, struct node_news, message);

	agent_peers_changed(n->cluster->agent, n->peers);
}

static void on_nodes(void *ctx, const struct addr *addrs, size_t count)
{
	struct node_news *n = calloc(1, sizeof(*n));
	struct cluster *c = ctx;

	if (!n || peers_new(&n->peers, addrs, count) < 0) {
		free(n);
		log_err(-ENOMEM, "the gateway keeps the nodes' old addresses");
		return;
	}
	n->message.run = take_nodes;
	n->cluster = c;
	loop_post(c->agent->loop, &n->message);
}

static void on_entries(void *ctx)
{
	struct cluster *c = ctx;

	source_changed(c->source);
}

static void on_pods_synced(void *ctx)
{
	(void)ctx;
	log_info("kubernetes: the pods of this node are known");
}

/* ---- on the source's thread ---- */

static void on_look(struct timer *t)
{
	struct cluster *c = CONTAINER_OF(t, struct cluster, look);
	struct kube_status status;

	kube_status(c->kube, &status);
	pthread_mutex_lock(&c->lock);
	c->status = status;
	pthread_mutex_unlock(&c->lock);
	/* As /healthz/ready has it. */
	if (c->config->enrol.startup_taint && atomic_load(&c->ready) && status.knows)
		kube_remove_taint(c->kube, c->config->node_name, TAINT);
	timer_start(c->loop, t, STATUS_MS);
}

static const char *or_null(const char *text)
{
	return text && *text ? text : NULL;
}

static int feed_open(void *ctx, struct loop *loop, struct source *source)
{
	struct cluster *c = ctx;
	const struct config *config = c->config;
	const char *names[GATEWAYS_MAX];
	bool node = config->role == ROLE_NODE;
	struct kube_options options = {
		.access.kubeconfig = or_null(config->kubernetes.kubeconfig),
		.node_name = node ? config->node_name : NULL,
		.cache_dir = c->cache_dir,
		.mode = config->enrol.mode,
		.excluded = config->enrol.excluded,
		.n_excluded = config->enrol.n_excluded,
		.gateways = names,
		.nodes = config->tunnel.nodes_only,
		.instance = c->instance,
	};
	struct kube_hooks hooks = {
		.ctx = c,
		.on_entries = on_entries,
		.on_pod = on_pod,
		.on_pods_synced = on_pods_synced,
		.on_gateway = on_gateway,
		.on_nodes = on_nodes,
	};
	struct kube *kube = NULL;
	int r;

	c->source = source;
	c->loop = loop;
	for (size_t i = 0; i < config->n_gateways && options.n_gateways < GATEWAYS_MAX; i++) {
		if (config->gateways[i].n_endpoints == 0)
			names[options.n_gateways++] = config->gateways[i].name;
	}
	r = kube_open(&kube, loop, &options, &hooks);
	if (r < 0) {
		log_err(0, "kubernetes: nothing is taken from the API until this is mended and the "
			   "agent is started again");
		return r;
	}
	pthread_mutex_lock(&c->lock);
	c->kube = kube;
	pthread_mutex_unlock(&c->lock);
	timer_start(loop, &c->look, STATUS_MS);
	return 0;
}

static bool feed_entries(void *ctx, const struct service_entry **ret, size_t *ret_n)
{
	struct cluster *c = ctx;

	return c->kube && kube_entries(c->kube, ret, ret_n);
}

static void feed_close(void *ctx)
{
	struct cluster *c = ctx;
	struct kube *kube;

	timer_stop(c->loop, &c->look);
	pthread_mutex_lock(&c->lock);
	kube = TAKE_PTR(c->kube);
	pthread_mutex_unlock(&c->lock);
	kube_close(kube);
}

struct source_feed cluster_feed(struct cluster *cluster)
{
	return (struct source_feed){
		.ctx = cluster, .open = feed_open, .entries = feed_entries, .close = feed_close};
}

/* ---- what others ask ---- */

static bool is_excluded(const struct config *config, const char *ns)
{
	for (size_t i = 0; i < config->enrol.n_excluded; i++) {
		if (strcmp(config->enrol.excluded[i], ns) == 0)
			return true;
	}
	return false;
}

/* Whoever is not known to be left alone is enrolled or waits. While the API is away its service
 * account may be unknown: the pod is enrolled without, and again when it is known. Whoever brings
 * one along need be no pod of the API's.
 */
int cluster_admit(struct cluster *cluster, const struct pod_name *pod, const char *uid,
		  char *service_account)
{
	int r = -EAGAIN;

	if (is_excluded(cluster->config, pod->ns))
		return 1;
	pthread_mutex_lock(&cluster->lock);
	if (cluster->kube)
		r = kube_is_enforced(cluster->kube, pod->ns);
	if (r == 1 && service_account &&
	    !kube_service_account(cluster->kube, pod->ns, pod->name, uid, service_account) &&
	    cluster->status.connected)
		r = -EAGAIN;
	pthread_mutex_unlock(&cluster->lock);
	return r == 1 ? 0 : r == 0 ? 1 : r;
}

static uint64_t monotonic_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void host_of(const struct access_record *record, char *ret, size_t size)
{
	const struct span *name = record->requested_server_name.len ? &record->requested_server_name
								    : &record->authority;
	char text[ADDR_TEXT];

	if (name->len > 0)
		snprintf(ret, size, "%.*s:%u", (int)(name->len < 253 ? name->len : 253),
			 (const char *)name->p, record->downstream_local_address.port);
	else
		snprintf(ret, size, "%s", addr_print(&record->downstream_local_address, text));
}

/* kube/ has budgets of its own; this keeps a flood of refusals from keeping its thread busy. */
static bool may_tell(struct cluster *cluster)
{
	uint64_t now = monotonic_ms();

	if (now - atomic_load(&cluster->told_since_ms) >= 1000) {
		atomic_store(&cluster->told_since_ms, now);
		atomic_store(&cluster->told, 0);
	}
	if (atomic_fetch_add(&cluster->told, 1) < TOLD_A_SECOND)
		return true;
	atomic_fetch_add(&cluster->untold, 1);
	return false;
}

void cluster_denied(struct cluster *cluster, const struct access_record *record)
{
	char host[320], message[512];

	if (!record->source_namespace || !record->source_pod || !may_tell(cluster))
		return;
	host_of(record, host, sizeof(host));
	snprintf(message, sizeof(message), "%s to %s is refused: %s", record->protocol, host,
		 reason_str(record->reason));
	warn_on_pod(cluster, record->source_namespace, record->source_pod, "EgressDenied", "Egress",
		    message);
}

void cluster_status(struct cluster *cluster, struct kube_status *ret)
{
	pthread_mutex_lock(&cluster->lock);
	*ret = cluster->status;
	pthread_mutex_unlock(&cluster->lock);
	ret->events_dropped += atomic_load(&cluster->untold);
}

void cluster_ready(struct cluster *cluster)
{
	atomic_store(&cluster->ready, true);
}

size_t cluster_endpoints(const struct cluster *cluster, const char *name, const struct addr **ret)
{
	const struct known_gateway *g = find_gateway((struct cluster *)(uintptr_t)cluster, name);

	*ret = g ? g->endpoints : NULL;
	return g ? g->n : 0;
}

int cluster_uninstall(const struct config *config)
{
	OWNED_MEM char *dir = NULL;
	int r;

	if (asprintf(&dir, CACHE_DIR, config->enrol.state_dir) < 0) {
		dir = NULL; /* undefined after a failure */
		return log_err(-ENOMEM, "cannot take away what the API said last");
	}
	r = cache_remove(dir);
	return r < 0 ? log_err(r, "cannot take away what the API said last, in '%s'", dir) : 0;
}

/* ---- life ---- */

int cluster_new(struct cluster **ret, struct agent *agent)
{
	struct cluster *c = calloc(1, sizeof(*c));
	const char *pod = getenv("POD_NAME");

	if (!c)
		return -ENOMEM;
	c->agent = agent;
	c->config = config_ref(agent->config);
	c->look.on_expire = on_look;
	c->instance = pod && *pod ? pod : c->config->node_name;
	pthread_mutex_init(&c->lock, NULL);
	if (asprintf(&c->cache_dir, CACHE_DIR, c->config->enrol.state_dir) < 0) {
		c->cache_dir = NULL; /* undefined after a failure */
		cluster_free(c);
		return -ENOMEM;
	}
	*ret = c;
	return 0;
}

void cluster_free(struct cluster *cluster)
{
	if (!cluster)
		return;
	for (size_t i = 0; i < cluster->n_gateways; i++)
		free(cluster->gateways[i].name);
	config_unref(cluster->config);
	pthread_mutex_destroy(&cluster->lock);
	free(cluster->cache_dir);
	free(cluster);
}
