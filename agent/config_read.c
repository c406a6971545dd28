/* SPDX-License-Identifier: Apache-2.0 */
#include "config_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "base/owned.h"
#include "config_words.h"
#include "resource/hostname.h"

#define LIST_MAX 1024U /* items: they are compared each with each */

#define AT(member) offsetof(struct config, member)

/* ---- kinds of values; `out` is the member that a rule names ---- */

static void read_role(const struct field *f, void *out)
{
	unsigned n;

	if (field_enum(f, roles, ARRAY_SIZE(roles), &n))
		*(enum role *)out = n;
}

static void read_outbound_mode(const struct field *f, void *out)
{
	unsigned n;

	if (field_enum(f, outbound_modes, ARRAY_SIZE(outbound_modes), &n))
		*(enum outbound_mode *)out = n;
}

static void read_tunnel_mode(const struct field *f, void *out)
{
	unsigned n;

	if (!field_enum(f, tunnel_modes, ARRAY_SIZE(tunnel_modes), &n))
		return;
	*(enum tunnel_mode *)out = n;
	if (n == TUNNEL_MUTUAL)
		field_error(f, "MUTUAL is not in this version, and PLAINTEXT never stands in for "
			       "it: write PLAINTEXT if that will do");
}

static void read_backend(const struct field *f, void *out)
{
	unsigned n;

	if (field_enum(f, backends, ARRAY_SIZE(backends), &n))
		*(enum redirect_backend *)out = n;
}

static void read_guard_mode(const struct field *f, void *out)
{
	unsigned n;

	if (field_enum(f, guard_modes, ARRAY_SIZE(guard_modes), &n))
		*(enum guard_mode *)out = n;
}

static void read_guard_attach(const struct field *f, void *out)
{
	unsigned n;

	if (field_enum(f, guard_attaches, ARRAY_SIZE(guard_attaches), &n))
		*(enum guard_attach *)out = n;
}

static void read_encoding(const struct field *f, void *out)
{
	unsigned n;

	if (field_enum(f, encodings, ARRAY_SIZE(encodings), &n))
		*(enum log_encoding *)out = n;
}

static void read_cidr(const struct field *f, void *out)
{
	if (field_is(f, TREE_STRING) && cidr_parse(f->node->text, out) < 0)
		field_error(f, "'%.80s' is no network: write it like 10.244.0.0/16 or fd00::/8",
			    f->node->text);
}

static void read_ip(const struct field *f, void *out)
{
	static const struct addr any = {0}, any_v4 = {.ip = {[10] = 0xff, [11] = 0xff}};
	struct addr a;

	if (!field_is(f, TREE_STRING))
		return;
	if (addr_parse_ip(f->node->text, &a) < 0 || addr_ip_equal(&a, &any) ||
	    addr_ip_equal(&a, &any_v4))
		field_error(f, "'%.80s' is no address to connect from: write it like 203.0.113.10",
			    f->node->text);
	else
		*(struct addr *)out = a;
}

static void read_endpoint(const struct field *f, void *out)
{
	if (field_is(f, TREE_STRING) && addr_parse(f->node->text, out) < 0)
		field_error(f,
			    "'%.80s' is no address with a port: write it like 192.0.2.10:15443 or "
			    "[2001:db8::1]:15443",
			    f->node->text);
}

static void read_resolver(const struct field *f, void *out)
{
	struct addr a;

	if (!field_is(f, TREE_STRING))
		return;
	if (addr_parse_ip(f->node->text, &a) == 0)
		a.port = 53;
	else if (addr_parse(f->node->text, &a) < 0) {
		field_error(f, "'%.80s' is no address: write it like 10.96.0.10:53", f->node->text);
		return;
	}
	*(struct addr *)out = a;
}

static void read_listen(const struct field *f, void *out)
{
	if (field_is(f, TREE_STRING) && addr_parse_listen(f->node->text, out) < 0)
		field_error(f,
			    "'%.80s' is nowhere to listen: write it like 0.0.0.0:15443 or :15443",
			    f->node->text);
}

static bool is_short(const struct field *f)
{
	if (f->node->n <= LIST_MAX)
		return true;
	field_error(f, "has more than %u items", LIST_MAX);
	return false;
}

/* An array of struct addr behind *items, each of them once. */
static void read_addrs(const struct field *f, field_read_fn *read, void **items, size_t *n)
{
	const struct addr *a;
	size_t errors = f->where->report->errors.n;

	if (!is_short(f))
		return;
	field_list(f, read, sizeof(*a), items, n);
	if (f->where->report->errors.n > errors)
		return;
	a = *items;
	for (struct field item = field_first(f); item.node; field_next(&item)) {
		for (size_t i = 0; i < item.index; i++) {
			if (!addr_equal(&a[i], &a[item.index]))
				continue;
			field_error(&item, "'%.80s' is there already: take it out",
				    item.node->text);
			break;
		}
	}
}

static void read_cidrs(const struct field *f, void **items, size_t *n)
{
	if (is_short(f))
		field_list(f, read_cidr, sizeof(struct cidr), items, n);
}

static void read_duration(const struct field *f, void *out)
{
	if (field_is(f, TREE_STRING) && num_parse_duration_ms(f->node->text, out) < 0)
		field_error(f, "'%.80s' is no duration: write it like 500ms, 5s or 1h",
			    f->node->text);
}

static void read_timeout(const struct field *f, void *out)
{
	uint64_t *ret = out;

	*ret = 1;
	read_duration(f, out);
	if (*ret == 0)
		field_error(f, "must be longer than 0: write it like 5s");
}

static void read_connections(const struct field *f, void *out)
{
	field_number(f, 0, 10 * 1000 * 1000, out);
}

static void read_hello_bytes(const struct field *f, void *out)
{
	uint64_t n;

	if (field_number(f, 1024, 1024 * 1024, &n))
		*(uint32_t *)out = (uint32_t)n;
}

static void read_u32(const struct field *f, uint64_t min, uint64_t max, void *out)
{
	uint64_t n;

	if (field_number(f, min, max, &n))
		*(uint32_t *)out = (uint32_t)n;
}

static void read_mark(const struct field *f, void *out)
{
	read_u32(f, 1, UINT32_MAX, out);
}

/* 0 is no table; 253 to 255 are the kernel's own. */
static void read_table(const struct field *f, void *out)
{
	read_u32(f, 256, UINT32_MAX, out);
}

/* The kernel's own rules are at 0, 32766 and 32767; whatever sends packets elsewhere comes later.
 */
static void read_priority(const struct field *f, void *out)
{
	read_u32(f, 1, 32765, out);
}

static void read_inbound_flows(const struct field *f, void *out)
{
	read_u32(f, GUARD_FLOW_WAYS, GUARD_FLOW_WAYS * GUARD_MAX_BUCKETS, out);
}

static void read_workers(const struct field *f, void *out)
{
	uint64_t n;

	if (field_number(f, 0, 1024, &n))
		*(unsigned *)out = (unsigned)n;
}

static void read_dns_name(const struct field *f, void *out)
{
	field_string(f, out);
	if (f->node->kind == TREE_STRING && !hostname_is_subdomain(f->node->text))
		field_error(f, "'%.80s' must be lower-case letters, digits, '-' and '.'",
			    f->node->text);
}

/* ---- sections; `out` is the whole struct config ---- */

static void read_cluster_cidrs(const struct field *f, void *out)
{
	struct config *c = out;

	read_cidrs(f, (void **)&c->cluster_cidrs, &c->n_cluster_cidrs);
}

static void read_outbound(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {{"mode", read_outbound_mode, AT(outbound_mode)}};

	field_map(f, rules, ARRAY_SIZE(rules), out);
}

static void read_registry_files(const struct field *f, void *out)
{
	struct config *c = out;

	if (is_short(f))
		field_list(f, field_text, sizeof(*c->registry_files), (void **)&c->registry_files,
			   &c->n_registry_files);
}

static void read_kubernetes(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {
		{"enabled", field_bool, AT(kubernetes.enabled)},
		{"kubeconfig", field_string, AT(kubernetes.kubeconfig)},
	};

	field_map(f, rules, ARRAY_SIZE(rules), out);
}

static void read_registry(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {
		{"files", read_registry_files, 0},
		{"kubernetes", read_kubernetes, 0},
	};

	field_map(f, rules, ARRAY_SIZE(rules), out);
}

static void read_gateway_endpoints(const struct field *f, void *out)
{
	struct config_gateway *g = out;

	read_addrs(f, read_endpoint, (void **)&g->endpoints, &g->n_endpoints);
}

static void read_gateway(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {
		{"name", read_dns_name, offsetof(struct config_gateway, name)},
		{"endpoints", read_gateway_endpoints, 0},
	};
	struct config_gateway *g = out;
	struct field name = field_get(f, "name");

	field_map(f, rules, ARRAY_SIZE(rules), g);
	if (f->node->kind == TREE_MAP && !field_is_set(&name))
		field_error(&name, "is missing: give the gateway a name");
}

/* Where the API is asked, a gateway may be the name of its Service alone. */
static void check_endpoints(const struct field *top, const struct config *c)
{
	struct field list = field_get(top, "gateways");

	for (struct field item = field_first(&list); item.node && item.index < c->n_gateways;
	     field_next(&item)) {
		struct field endpoints = field_get(&item, "endpoints");

		if (item.node->kind == TREE_MAP && c->gateways[item.index].n_endpoints == 0 &&
		    !c->kubernetes.enabled)
			field_error(&endpoints,
				    "is missing: give at least one address like 192.0.2.10:15443, "
				    "or set registry.kubernetes.enabled");
	}
}

static void read_gateways(const struct field *f, void *out)
{
	struct config *c = out;
	const struct config_gateway *g;

	if (!is_short(f))
		return;
	field_list(f, read_gateway, sizeof(*g), (void **)&c->gateways, &c->n_gateways);
	g = c->gateways;
	for (struct field item = field_first(f); c->n_gateways > 0 && item.node;
	     field_next(&item)) {
		for (size_t i = 0; i < item.index; i++) {
			if (g[i].name && g[item.index].name &&
			    strcmp(g[i].name, g[item.index].name) == 0)
				field_error(&item,
					    "there is a gateway '%.80s' already: add its "
					    "endpoints there",
					    g[i].name);
		}
	}
}

static void read_tunnel_listen(const struct field *f, void *out)
{
	struct config *c = out;

	read_addrs(f, read_listen, (void **)&c->tunnel.listen, &c->tunnel.n_listen);
}

static void read_tunnel(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {
		{"mode", read_tunnel_mode, AT(tunnel.mode)},
		{"handoff", field_bool, AT(tunnel.handoff)},
		{"listen", read_tunnel_listen, 0},
		{"certificate", field_text, AT(tunnel.certificate)},
		{"privateKey", field_text, AT(tunnel.private_key)},
		{"trustBundle", field_text, AT(tunnel.trust_bundle)},
		{"nodesOnly", field_bool, AT(tunnel.nodes_only)},
	};

	field_map(f, rules, ARRAY_SIZE(rules), out);
}

static void read_source_ips(const struct field *f, void *out)
{
	struct config *c = out;

	read_addrs(f, read_ip, (void **)&c->egress.source_ips, &c->egress.n_source_ips);
}

static void read_resolvers(const struct field *f, void *out)
{
	struct config *c = out;

	read_addrs(f, read_resolver, (void **)&c->egress.resolvers, &c->egress.n_resolvers);
}

static void read_allowed(const struct field *f, void *out)
{
	struct config *c = out;

	read_cidrs(f, (void **)&c->egress.allowed_private_cidrs,
		   &c->egress.n_allowed_private_cidrs);
}

static void read_egress(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {
		{"sourceIPs", read_source_ips, 0},
		{"resolvers", read_resolvers, 0},
		{"allowedPrivateCIDRs", read_allowed, 0},
	};

	field_map(f, rules, ARRAY_SIZE(rules), out);
}

static void read_redirect(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {
		{"backend", read_backend, AT(redirect.backend)},
		{"mark", read_mark, AT(redirect.mark)},
		{"routeTable", read_table, AT(redirect.table)},
		{"rulePriority", read_priority, AT(redirect.priority)},
	};

	field_map(f, rules, ARRAY_SIZE(rules), out);
}

/* A map, or only the mode. */
static void read_guard(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {
		{"mode", read_guard_mode, AT(guard.mode)},
		{"attach", read_guard_attach, AT(guard.attach)},
		{"pinDir", field_text, AT(guard.pin_dir)},
		{"inboundFlows", read_inbound_flows, AT(guard.inbound_flows)},
		{"dhcp", field_bool, AT(guard.dhcp)},
	};
	struct config *c = out;

	if (f->node->kind == TREE_STRING)
		read_guard_mode(f, &c->guard.mode);
	else
		field_map(f, rules, ARRAY_SIZE(rules), out);
}

static void read_enrol_mode(const struct field *f, void *out)
{
	unsigned n;

	if (field_enum(f, enrol_modes, ARRAY_SIZE(enrol_modes), &n))
		*(enum enrol_mode *)out = n;
}

static void read_label(const struct field *f, void *out)
{
	field_text(f, out);
	if (f->node->kind == TREE_STRING && f->node->text[0] &&
	    (!hostname_is_subdomain(f->node->text) || strchr(f->node->text, '.')))
		field_error(f, "'%.80s' is no name of a namespace", f->node->text);
}

static void read_excluded(const struct field *f, void *out)
{
	struct config *c = out;

	field_list(f, read_label, sizeof(char *), (void **)&c->enrol.excluded,
		   &c->enrol.n_excluded);
}

static void read_enrol(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {
		{"socket", field_text, AT(enrol.socket)},
		{"stateDir", field_text, AT(enrol.state_dir)},
		{"mode", read_enrol_mode, AT(enrol.mode)},
		{"excludedNamespaces", read_excluded, 0},
		{"startupTaint", field_bool, AT(enrol.startup_taint)},
	};

	field_map(f, rules, ARRAY_SIZE(rules), out);
}

static void read_limits(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {
		{"connections", read_connections, AT(limits.connections)},
		{"connectionsPerPod", read_connections, AT(limits.connections_per_pod)},
		{"helloBytes", read_hello_bytes, AT(limits.hello_bytes)},
		{"helloTimeout", read_timeout, AT(limits.hello_timeout_ms)},
		{"connectTimeout", read_timeout, AT(limits.connect_timeout_ms)},
		{"idleTimeout", read_timeout, AT(limits.idle_timeout_ms)},
		{"drainTimeout", read_duration, AT(limits.drain_timeout_ms)},
		{"deregisterGrace", read_duration, AT(limits.deregister_grace_ms)},
	};

	field_map(f, rules, ARRAY_SIZE(rules), out);
}

/* "" turns it off. */
static void read_admin_port(const struct field *f, struct addr *ret, bool *ret_on)
{
	if (f->node->kind == TREE_STRING && f->node->text[0] == '\0')
		*ret_on = false;
	else
		read_listen(f, ret);
}

static void read_metrics(const struct field *f, void *out)
{
	struct config *c = out;

	read_admin_port(f, &c->admin.metrics, &c->admin.metrics_on);
}

static void read_health(const struct field *f, void *out)
{
	struct config *c = out;

	read_admin_port(f, &c->admin.health, &c->admin.health_on);
}

static void read_admin(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {
		{"socket", field_text, AT(admin.socket)},
		{"metrics", read_metrics, 0},
		{"health", read_health, 0},
	};

	field_map(f, rules, ARRAY_SIZE(rules), out);
}

static void read_access_log(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {
		{"file", field_text, AT(access_log.file)},
		{"encoding", read_encoding, AT(access_log.encoding)},
	};

	field_map(f, rules, ARRAY_SIZE(rules), out);
}

/* ---- the whole ---- */

static void check_word(const struct field *top, const char *name, const char *word)
{
	struct field f = field_get(top, name);

	if (!f.node || f.node->kind != TREE_STRING || strcmp(f.node->text, word) != 0)
		field_error(&f, "must be %s", word);
}

static void check_node(const struct field *top, const struct config *c)
{
	struct field gateways = field_get(top, "gateways"), cidrs = field_get(top, "clusterCIDRs");

	if (c->n_gateways == 0)
		field_error(&gateways, "is missing: a Node needs at least one gateway to send "
				       "what it allows to");
	check_endpoints(top, c);
	if (c->n_cluster_cidrs == 0)
		field_warn(&cidrs, "is missing: pods will not reach the cluster's own networks");
}

void config_read(const struct field *top, struct config *c)
{
	static const struct field_rule rules[] = {
		{"apiVersion", NULL, 0},
		{"kind", NULL, 0},
		{"role", read_role, AT(role)},
		{"nodeName", field_text, AT(node_name)},
		{"trustDomain", read_dns_name, AT(trust_domain)},
		{"clusterCIDRs", read_cluster_cidrs, 0},
		{"outboundTrafficPolicy", read_outbound, 0},
		{"registry", read_registry, 0},
		{"gateways", read_gateways, 0},
		{"tunnel", read_tunnel, 0},
		{"egress", read_egress, 0},
		{"redirect", read_redirect, 0},
		{"guard", read_guard, 0},
		{"enrol", read_enrol, 0},
		{"workers", read_workers, AT(workers)},
		{"limits", read_limits, 0},
		{"admin", read_admin, 0},
		{"accessLog", read_access_log, 0},
	};
	struct field role = field_get(top, "role"), registry = field_get(top, "registry");
	struct field tunnel = field_get(top, "tunnel"),
		     nodes_only = field_get(&tunnel, "nodesOnly");

	field_map(top, rules, ARRAY_SIZE(rules), c);
	if (top->node->kind != TREE_MAP)
		return;
	check_word(top, "apiVersion", CONFIG_API_VERSION);
	check_word(top, "kind", "AgentConfig");
	if (c->n_registry_files == 0 && !c->kubernetes.enabled)
		field_warn(&registry, "names no files: nothing is registered");
	if (c->tunnel.nodes_only && !c->kubernetes.enabled)
		field_error(&nodes_only, "needs the API, which knows the nodes' addresses: set "
					 "registry.kubernetes.enabled");
	if (!field_is_set(&role))
		field_error(&role, "is missing: write role: Node or role: Gateway");
	else if (c->role == ROLE_NODE)
		check_node(top, c);
}
