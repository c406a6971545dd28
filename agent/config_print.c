/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "config_words.h"

/* jansson's setters with NULL for a value return an error, so that one check at the end will do. */
static json_t *from_duration(uint64_t ms)
{
	if (ms % 1000 == 0)
		return json_sprintf("%llus", (unsigned long long)(ms / 1000));
	return json_sprintf("%llums", (unsigned long long)ms);
}

static json_t *from_addr(const struct addr *a)
{
	char text[ADDR_TEXT];

	return json_string(a->port > 0 ? addr_print(a, text) : addr_print_ip(a, text));
}

static json_t *from_addrs(const struct addr *a, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, from_addr(&a[i]));
	return list;
}

static json_t *from_cidrs(const struct cidr *c, size_t n)
{
	json_t *list = json_array();
	char text[ADDR_TEXT];

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_string(cidr_print(&c[i], text)));
	return list;
}

static json_t *from_strings(const char *const *s, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_string(s[i]));
	return list;
}

static json_t *from_gateways(const struct config *c)
{
	json_t *list = json_array();

	for (size_t i = 0; i < c->n_gateways; i++) {
		const struct config_gateway *g = &c->gateways[i];

		json_array_append_new(list, json_pack("{s:s, s:o}", "name", g->name, "endpoints",
						      from_addrs(g->endpoints, g->n_endpoints)));
	}
	return list;
}

static json_t *from_tunnel(const struct config *c)
{
	return json_pack("{s:s, s:b, s:o, s:s*, s:s*, s:s*, s:b}", "mode",
			 tunnel_modes[c->tunnel.mode], "handoff", c->tunnel.handoff, "listen",
			 from_addrs(c->tunnel.listen, c->tunnel.n_listen), "certificate",
			 c->tunnel.certificate, "privateKey", c->tunnel.private_key, "trustBundle",
			 c->tunnel.trust_bundle, "nodesOnly", c->tunnel.nodes_only);
}

static json_t *from_egress(const struct config *c)
{
	return json_pack(
		"{s:o, s:o, s:o}", "sourceIPs",
		from_addrs(c->egress.source_ips, c->egress.n_source_ips), "resolvers",
		from_addrs(c->egress.resolvers, c->egress.n_resolvers), "allowedPrivateCIDRs",
		from_cidrs(c->egress.allowed_private_cidrs, c->egress.n_allowed_private_cidrs));
}

static json_t *from_kubernetes(const struct config *c)
{
	return json_pack("{s:b, s:s}", "enabled", c->kubernetes.enabled, "kubeconfig",
			 c->kubernetes.kubeconfig ? c->kubernetes.kubeconfig : "");
}

static json_t *from_enrol(const struct config *c)
{
	return json_pack("{s:s, s:s, s:s, s:o, s:b}", "socket", c->enrol.socket, "stateDir",
			 c->enrol.state_dir, "mode", enrol_modes[c->enrol.mode],
			 "excludedNamespaces", from_strings(c->enrol.excluded, c->enrol.n_excluded),
			 "startupTaint", c->enrol.startup_taint);
}

static json_t *from_redirect(const struct config *c)
{
	return json_pack("{s:s, s:I, s:I, s:I}", "backend", backends[c->redirect.backend], "mark",
			 (json_int_t)c->redirect.mark, "routeTable", (json_int_t)c->redirect.table,
			 "rulePriority", (json_int_t)c->redirect.priority);
}

static json_t *from_guard(const struct config *c)
{
	return json_pack("{s:s, s:s, s:s, s:I, s:b}", "mode", guard_modes[c->guard.mode], "attach",
			 guard_attaches[c->guard.attach], "pinDir", c->guard.pin_dir,
			 "inboundFlows", (json_int_t)c->guard.inbound_flows, "dhcp", c->guard.dhcp);
}

static json_t *from_limits(const struct config *c)
{
	return json_pack("{s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "connections",
			 (json_int_t)c->limits.connections, "connectionsPerPod",
			 (json_int_t)c->limits.connections_per_pod, "helloBytes",
			 (json_int_t)c->limits.hello_bytes, "helloTimeout",
			 from_duration(c->limits.hello_timeout_ms), "connectTimeout",
			 from_duration(c->limits.connect_timeout_ms), "idleTimeout",
			 from_duration(c->limits.idle_timeout_ms), "drainTimeout",
			 from_duration(c->limits.drain_timeout_ms), "deregisterGrace",
			 from_duration(c->limits.deregister_grace_ms));
}

static json_t *from_admin(const struct config *c)
{
	char metrics[ADDR_TEXT] = "", health[ADDR_TEXT] = "";

	if (c->admin.metrics_on)
		addr_print(&c->admin.metrics, metrics);
	if (c->admin.health_on)
		addr_print(&c->admin.health, health);
	return json_pack("{s:s, s:s, s:s}", "socket", c->admin.socket, "metrics", metrics, "health",
			 health);
}

static json_t *from_config(const struct config *c)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:{s:s}, s:{s:o, s:o}, s:o, s:o, s:o, "
			 "s:o, s:o, s:o, s:I, s:o, s:o, s:{s:s, s:s}}",
			 "apiVersion", CONFIG_API_VERSION, "kind", "AgentConfig", "role",
			 roles[c->role], "nodeName", c->node_name, "trustDomain", c->trust_domain,
			 "clusterCIDRs", from_cidrs(c->cluster_cidrs, c->n_cluster_cidrs),
			 "outboundTrafficPolicy", "mode", outbound_modes[c->outbound_mode],
			 "registry", "files", from_strings(c->registry_files, c->n_registry_files),
			 "kubernetes", from_kubernetes(c), "gateways", from_gateways(c), "tunnel",
			 from_tunnel(c), "egress", from_egress(c), "redirect", from_redirect(c),
			 "guard", from_guard(c), "enrol", from_enrol(c), "workers",
			 (json_int_t)c->workers, "limits", from_limits(c), "admin", from_admin(c),
			 "accessLog", "file", c->access_log.file, "encoding",
			 encodings[c->access_log.encoding]);
}

int config_print(const struct config *config, char **ret)
{
	json_t *json = from_config(config);
	char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;

	json_decref(json);
	if (!text)
		return -ENOMEM;
	*ret = text;
	return 0;
}
