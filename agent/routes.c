/* SPDX-License-Identifier: Apache-2.0 */

/* What the admin socket, the metrics port and the health port answer. Control thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "base/log.h"
#include "base/num.h"
#include "base/owned.h"
#include "sniff/host.h"

/* ---- /healthz/ready ---- */

static void put_registry(FILE *out, const struct agent *a, const struct source_status *s)
{
	fprintf(out, "registry: %zu hosts\n", registry_n_hosts(a->registry));
	if (s->last_error[0])
		fprintf(out, "registry: the newest files are refused, %s: %s\n",
			s->accepted ? "the last good ones stay in force" : "nothing is registered",
			s->last_error);
}

static void put_gateways(FILE *out, const struct agent *a)
{
	for (size_t i = 0; i < a->gateways->n; i++) {
		const struct gateway *gw = &a->gateways->list[i];

		fprintf(out, "gateway %s: %zu of %zu endpoints answer\n", gw->name,
			gateway_n_healthy(gw), gw->n_endpoints);
	}
}

/* Ready with what was in force before the API went away, but not with nothing. */
static bool knows_cluster(const struct agent *a, struct kube_status *ret)
{
	*ret = (struct kube_status){0};
	if (!a->cluster)
		return true;
	cluster_status(a->cluster, ret);
	return ret->knows;
}

static void put_cluster(FILE *out, const struct agent *a, const struct kube_status *s)
{
	if (!a->cluster)
		return;
	fprintf(out, "kubernetes: %s%s, %llu ServiceEntries, %llu refused\n",
		s->connected ? "connected" : "away", s->from_cache ? " (from the cache)" : "",
		(unsigned long long)s->entries, (unsigned long long)s->entries_rejected);
	if (s->last_error[0])
		fprintf(out, "kubernetes: %s\n", s->last_error);
	if (s->last_rejected[0])
		fprintf(out, "kubernetes: refused: %s\n", s->last_rejected);
}

static void handle_ready(void *ctx, struct admin_request *request)
{
	struct agent *a = ctx;
	struct kube_status kube;
	struct source_status s;
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	bool ready;

	if (!out) {
		admin_reply_text(request, 503, "out of memory\n");
		return;
	}
	source_status(a->source, &s);
	ready = a->open && !a->draining && s.accepted > 0 && knows_cluster(a, &kube);
	fprintf(out, "%s\n", a->draining ? "draining" : ready ? "ready" : "not ready");
	put_registry(out, a, &s);
	put_cluster(out, a, &kube);
	put_gateways(out, a);
	if (a->pods)
		fprintf(out, "pods: %zu enrolled\n", pods_count(a->pods));
	if (fclose(out) != 0)
		len = 0;
	admin_reply(request, ready ? 200 : 503, "text/plain", text, len);
}

/* ---- /stats/prometheus ---- */

static void put_gateway_health(FILE *out, const struct agent *a)
{
	const char *help = "Whether a gateway's endpoint answers.";

	for (size_t i = 0; i < a->gateways->n; i++) {
		const struct gateway *gw = &a->gateways->list[i];
		char name[512];

		metrics_escape(gw->name, name, sizeof(name));
		for (size_t j = 0; j < gw->n_endpoints; j++) {
			char labels[640], text[ADDR_TEXT];

			snprintf(labels, sizeof(labels), "gateway=\"%s\",endpoint=\"%s\"", name,
				 addr_print(&gw->endpoints[j].addr, text));
			metrics_sample(out, "sluice_gateway_healthy", "gauge", help, labels,
				       atomic_load(&gw->endpoints[j].healthy));
			help = NULL;
		}
	}
}

static void put_ports(FILE *out, const struct agent *a)
{
	const char *help = "Connections that leave from an egress address.";

	for (size_t i = 0; i < a->config->egress.n_source_ips; i++) {
		char labels[128], text[ADDR_TEXT];

		snprintf(labels, sizeof(labels), "source_ip=\"%s\"",
			 addr_print_ip(&a->config->egress.source_ips[i], text));
		metrics_sample(out, "sluice_egress_ports_in_use", "gauge", help, labels,
			       engine_ports_in_use(a->engine, i));
		help = NULL;
	}
}

static void put_engine(FILE *out, const struct agent *a)
{
	struct engine_stats s;

	engine_stats(a->engine, &s);
	metrics_sample(out, "sluice_connections", "gauge", "Connections open now.", "",
		       (double)s.connections);
	metrics_sample(out, "sluice_connections_limit", "gauge",
		       "How many may be open at once; beyond it new ones are refused.", "",
		       (double)s.max_connections);
	metrics_sample(out, "sluice_connections_accepted_total", "counter",
		       "Connections accepted, refused ones included.", "", (double)s.accepted);
	metrics_sample(out, "sluice_connections_limited_total", "counter",
		       "Connections refused because a limit was reached.", "", (double)s.limited);
	metrics_sample(
		out, "sluice_accept_failed_total", "counter",
		"Times a connection could not be accepted for lack of descriptors or memory.", "",
		(double)s.accept_failed);
	metrics_sample(out, "sluice_tunnel_header_refused_total", "counter",
		       "Tunnel connections refused for their PROXY header.", "",
		       (double)s.header_refused);
}

static void put_registry_stats(FILE *out, const struct agent *a)
{
	struct source_status s;

	source_status(a->source, &s);
	metrics_sample(out, "sluice_registry_hosts", "gauge", "Registered hosts in force.", "",
		       (double)registry_n_hosts(a->registry));
	metrics_sample(out, "sluice_registry_accepted_total", "counter",
		       "Loads of the registry that came into force.", "", (double)s.accepted);
	metrics_sample(out, "sluice_registry_rejected_total", "counter",
		       "Loads of the registry that were refused.", "", (double)s.rejected);
	metrics_sample(out, "sluice_registry_load_seconds", "gauge",
		       "How long the registry in force took to load.", "",
		       (double)s.load_ms / 1000);
}

static void put_kubernetes(FILE *out, const struct agent *a)
{
	struct kube_status s;

	if (!a->cluster)
		return;
	cluster_status(a->cluster, &s);
	metrics_sample(out, "sluice_kubernetes_connected", "gauge",
		       "Whether everything that is asked of the API is being watched.", "",
		       s.connected);
	metrics_sample(out, "sluice_kubernetes_from_cache", "gauge",
		       "Whether the registry in force was read from disk.", "", s.from_cache);
	metrics_sample(out, "sluice_kubernetes_objects", "gauge", "Objects that are watched.", "",
		       (double)s.objects);
	metrics_sample(out, "sluice_kubernetes_relists_total", "counter",
		       "Lists that had to be read again.", "", (double)s.relists);
	metrics_sample(out, "sluice_kubernetes_errors_total", "counter",
		       "Requests to the API that failed.", "", (double)s.errors);
	metrics_sample(out, "sluice_registry_entries_rejected", "gauge",
		       "ServiceEntries of the API that are refused now.", "",
		       (double)s.entries_rejected);
	metrics_sample(out, "sluice_events_sent_total", "counter", "Events that the API has taken.",
		       "", (double)s.events_sent);
	metrics_sample(out, "sluice_events_dropped_total", "counter",
		       "Events that were over the budget of their object or of the agent.", "",
		       (double)s.events_dropped);
}

/* sluice_guard_dropped_total: one sample a pod, protocol and reason. */
struct dropped {
	FILE *out;
	const char *help;
};

static void put_dropped(void *ctx, const struct pods_dropped *d)
{
	char ns[256], pod[512], labels[1024];
	struct dropped *to = ctx;

	snprintf(labels, sizeof(labels), "namespace=\"%s\",pod=\"%s\",protocol=\"%s\",why=\"%s\"",
		 metrics_escape(d->ns, ns, sizeof(ns)), metrics_escape(d->pod, pod, sizeof(pod)),
		 d->protocol, d->why);
	metrics_sample(to->out, "sluice_guard_dropped_total", "counter", to->help, labels,
		       (double)d->packets);
	to->help = NULL;
}

static void put_pods(FILE *out, const struct agent *a)
{
	struct dropped to = {out, "Packets of pods that the guard on the node's side refused."};
	struct pods_stats s;

	pods_stats(a->pods, &s);
	metrics_sample(
		out, "sluice_redirect_repairs_total", "counter",
		"Times that rules, listeners or guards were not as planned and were put back.", "",
		(double)s.repairs);
	metrics_sample(out, "sluice_forward_dropped_total", "counter",
		       "Packets of pods that the node's second guard refused, after DNAT.", "",
		       (double)s.forward_dropped);
	pods_each_dropped(a->pods, put_dropped, &to);
}

static void handle_metrics(void *ctx, struct admin_request *request)
{
	struct agent *a = ctx;
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out) {
		admin_reply_text(request, 503, "out of memory\n");
		return;
	}
	metrics_print(a->metrics, out);
	put_engine(out, a);
	put_registry_stats(out, a);
	put_kubernetes(out, a);
	put_gateway_health(out, a);
	put_ports(out, a);
	if (a->pods) {
		metrics_sample(out, "sluice_pods_enrolled", "gauge", "Pods enrolled.", "",
			       (double)pods_count(a->pods));
		put_pods(out, a);
	}
	metrics_sample(out, "sluice_access_log_dropped_total", "counter",
		       "Access-log lines lost because the log could not be written fast enough.",
		       "", (double)access_log_dropped(a->access_log));
	if (fclose(out) != 0)
		len = 0;
	admin_reply(request, 200, METRICS_CONTENT_TYPE, text, len);
}

/* ---- /pods /registry /connections /config ---- */

static void handle_pods(void *ctx, struct admin_request *request)
{
	struct agent *a = ctx;

	admin_reply_json(request, 200, a->pods ? pods_print(a->pods) : json_array());
}

static json_t *strings_json(const char *const *list, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(array, json_string(list[i]));
	return array;
}

static json_t *endpoints_json(const struct service *s)
{
	json_t *array = json_array();
	char text[ADDR_TEXT];

	for (size_t i = 0; i < s->n_endpoints; i++) {
		const struct endpoint *e = &s->endpoints[i];

		json_array_append_new(array, e->host ? json_sprintf("%s:%u", e->host, e->addr.port)
						     : json_string(addr_print(&e->addr, text)));
	}
	return array;
}

static json_t *addresses_json(const struct service *s)
{
	json_t *array = json_array();
	char text[ADDR_TEXT];

	for (size_t i = 0; i < s->n_addresses; i++)
		json_array_append_new(array, json_string(cidr_print(&s->addresses[i], text)));
	return array;
}

static json_t *service_json(const struct service *s)
{
	return json_pack("{s:s, s:i, s:s, s:s, s:i, s:o, s:o, s:o, s:o}", "host", s->host, "port",
			 s->port, "protocol", protocol_str(s->protocol), "resolution",
			 resolution_str(s->resolution), "target_port", s->target_port, "endpoints",
			 endpoints_json(s), "addresses", addresses_json(s), "export_to",
			 strings_json(s->export_to, s->n_export_to), "service_entry",
			 json_sprintf("%s/%s", s->ns, s->entry));
}

static void handle_registry(void *ctx, struct admin_request *request)
{
	struct agent *a = ctx;
	json_t *array = json_array();

	for (size_t i = 0; i < registry_n_services(a->registry); i++)
		json_array_append_new(array, service_json(registry_service(a->registry, i)));
	admin_reply_json(request, 200, array);
}

static void on_connections(void *ctx, json_t *array)
{
	admin_reply_json(ctx, 200, array);
}

static void handle_connections(void *ctx, struct admin_request *request)
{
	struct agent *a = ctx;

	if (engine_print(a->engine, a->loop, on_connections, request) < 0)
		admin_reply_text(request, 503, "out of memory\n");
}

static void handle_config(void *ctx, struct admin_request *request)
{
	struct agent *a = ctx;
	char *text;

	if (config_print(a->config, &text) < 0)
		admin_reply_text(request, 503, "out of memory\n");
	else
		admin_reply(request, 200, "application/json", text, strlen(text));
}

/* ---- /check: what would happen, and why ---- */

struct check {
	struct addr dst; /* port always set; address only for a literal */
	char name[HOST_MAX + 1];
	char ns[128];
	enum spoken spoken;
};

/* "host:443", "192.0.2.1:443", "[2001:db8::1]:443" */
static int parse_target(const char *target, struct check *ret)
{
	const char *colon = strrchr(target, ':');
	struct span name;

	if (addr_parse(target, &ret->dst) == 0)
		return 0;
	if (!colon || num_parse_port(colon + 1, &ret->dst.port) < 0)
		return -EINVAL;
	if (host_normalise((struct span){(const uint8_t *)target, (size_t)(colon - target)},
			   ret->name, &name) != HOST_NAME)
		return -EINVAL;
	return 0;
}

/* Without a word from the user: as the registered service would be spoken to. */
static enum spoken spoken_of(const char *protocol, const struct agent *a, const struct check *c)
{
	const struct service *s;
	enum reason reason;

	if (protocol && (!strcasecmp(protocol, "tls") || !strcasecmp(protocol, "https")))
		return SPOKEN_TLS;
	if (protocol && !strcasecmp(protocol, "http"))
		return SPOKEN_HTTP;
	if (protocol && !strcasecmp(protocol, "tcp"))
		return SPOKEN_OTHER;
	if (!c->name[0])
		return SPOKEN_OTHER;
	s = registry_find_name(a->registry, span_of(c->name), c->dst.port, c->ns, &reason);
	return s && protocol_is_http(s->protocol) ? SPOKEN_HTTP : SPOKEN_TLS;
}

static const char *detail_of(const struct verdict *v, const struct agent *a)
{
	if (v->allow && a->config->role == ROLE_NODE &&
	    (a->gateways->n == 0 || gateway_n_healthy(&a->gateways->list[0]) == 0))
		return "allowed, but no endpoint of the gateway answers";
	switch (v->reason) {
	case REASON_NONE:
		return "registered";
	case REASON_HOST_NOT_REGISTERED:
		return "no ServiceEntry names this host: add one";
	case REASON_PORT_NOT_REGISTERED:
		return "the host is registered, but not on this port: add it to spec.ports";
	case REASON_NOT_EXPORTED:
		return "registered, but spec.exportTo leaves this namespace out";
	case REASON_NO_SERVER_NAME:
		return "TLS without a server name is judged by address, and this one is not "
		       "registered";
	case REASON_PROTOCOL_MISMATCH:
		return "registered for another protocol: see spec.ports[].protocol";
	case REASON_NOT_REGISTERED:
		return "not registered, let through by outboundTrafficPolicy ALLOW_ANY";
	default:
		return reason_str(v->reason);
	}
}

static json_t *check_json(const struct agent *a, const struct check *c, const struct verdict *v)
{
	const struct service *s = v->service;
	char text[ADDR_TEXT];
	json_t *o = json_pack(
		"{s:s, s:s, s:s, s:s, s:i, s:s?, s:o, s:s?, s:s?, s:s}", "decision",
		v->allow ? "ALLOW" : "DENY", "reason", reason_str(v->reason), "detail",
		detail_of(v, a), "host", c->name[0] ? c->name : addr_print_ip(&c->dst, text),
		"port", c->dst.port, "protocol", s ? protocol_str(s->protocol) : NULL,
		"service_entry", s ? json_sprintf("%s/%s", s->ns, s->entry) : json_null(),
		"resolution", s ? resolution_str(s->resolution) : NULL, "gateway",
		v->allow && a->gateways->n ? a->gateways->list[0].name : NULL, "by",
		v->by_name || c->name[0] ? "name" : "address");

	return o;
}

static void handle_check(void *ctx, struct admin_request *request)
{
	struct agent *a = ctx;
	const char *target = admin_param(request, "target"), *pod = admin_param(request, "pod");
	const char *slash = pod ? strchr(pod, '/') : NULL;
	struct check c = {0};
	struct verdict v;
	struct query q;

	if (!target || parse_target(target, &c) < 0) {
		admin_reply_text(request, 400, "target must be HOST:PORT\n");
		return;
	}
	if (!slash || (size_t)(slash - pod) >= sizeof(c.ns)) {
		admin_reply_text(request, 400, "pod must be NAMESPACE/NAME\n");
		return;
	}
	memcpy(c.ns, pod, (size_t)(slash - pod));
	q = (struct query){
		.dst = &c.dst,
		.ns = c.ns,
		.spoken = spoken_of(admin_param(request, "protocol"), a, &c),
		.name = span_of(c.name),
	};
	if (c.name[0] || !decide_early(a->registry, &c.dst, c.ns, &v))
		decide(a->registry, a->config->outbound_mode, &q, &v);
	admin_reply_json(request, 200, check_json(a, &c, &v));
}

/* ---- where ---- */

static const struct admin_route on_socket[] = {
	{"/pods", handle_pods},
	{"/registry", handle_registry},
	{"/connections", handle_connections},
	{"/config", handle_config},
	{"/check", handle_check},
	{"/stats/prometheus", handle_metrics},
	{"/healthz/ready", handle_ready},
	{NULL, NULL},
};
static const struct admin_route on_metrics_port[] = {
	{"/stats/prometheus", handle_metrics}, {"/metrics", handle_metrics}, {NULL, NULL}};
static const struct admin_route on_health_port[] = {{"/healthz/ready", handle_ready}, {NULL, NULL}};

static int listen_tcp(struct agent *a, const char *field, const struct addr *addr,
		      const struct admin_route *routes)
{
	char text[ADDR_TEXT];
	int r = admin_listen_tcp(a->admin, addr, routes, a);

	return r < 0 ? log_err(r, "%s: cannot listen on '%s'", field, addr_print(addr, text)) : 0;
}

int routes_open(struct agent *a)
{
	const struct config *c = a->config;
	int r = admin_new(&a->admin, a->loop);

	if (r < 0)
		return log_err(r, "cannot start the admin server");
	r = admin_listen_unix(a->admin, c->admin.socket, on_socket, a);
	if (r < 0)
		return log_err(r, "admin.socket: cannot listen on '%s'", c->admin.socket);
	if (c->admin.metrics_on)
		r = listen_tcp(a, "admin.metrics", &c->admin.metrics, on_metrics_port);
	if (r == 0 && c->admin.health_on)
		r = listen_tcp(a, "admin.health", &c->admin.health, on_health_port);
	return r;
}
