/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/validate.h"

#include <string.h>

static bool is_dns(enum resolution resolution)
{
	return resolution == RESOLUTION_DNS || resolution == RESOLUTION_DNS_ROUND_ROBIN;
}

static bool has_selector(const struct field *spec)
{
	struct field selector = field_get(spec, "workloadSelector");

	return field_is_set(&selector);
}

/* ---- hosts ---- */

static void check_host(const struct field *host, const struct service_entry *e)
{
	bool wildcard = e->hosts[host->index][0] == '*';

	if (e->resolution == RESOLUTION_DYNAMIC_DNS && !wildcard)
		field_error(host,
			    "'%.80s' is no wildcard, and DYNAMIC_DNS is for wildcards only: use "
			    "resolution DNS",
			    e->hosts[host->index]);
	if (is_dns(e->resolution) && e->n_endpoints == 0 && wildcard)
		field_error(host,
			    "'%.80s' is no full name, which resolution %s needs where there are no "
			    "endpoints: use DYNAMIC_DNS or NONE",
			    e->hosts[host->index], resolution_str(e->resolution));
}

static bool tells_hosts_apart(enum protocol protocol)
{
	return protocol_is_http(protocol) || protocol_is_tls(protocol);
}

static void check_hosts(const struct field *spec, const struct service_entry *e)
{
	struct field hosts = field_get(spec, "hosts"), ports = field_get(spec, "ports");

	if (e->n_hosts == 0)
		field_error(&hosts, "is missing: give at least one host name");
	for (struct field host = field_first(&hosts); host.node; field_next(&host))
		check_host(&host, e);

	if (e->n_hosts < 2 || e->resolution == RESOLUTION_NONE)
		return;
	for (struct field port = field_first(&ports); port.node; field_next(&port)) {
		if (!tells_hosts_apart(e->ports[port.index].protocol))
			field_error(&port,
				    "is neither HTTP nor TLS, so the %zu hosts of this "
				    "entry cannot be told apart on it: write one entry a "
				    "host",
				    e->n_hosts);
	}
}

/* ---- addresses ---- */

static bool is_network(const struct field *address)
{
	return strchr(address->node->text, '/') != NULL;
}

static void check_addresses(const struct field *spec, const struct service_entry *e)
{
	struct field addresses = field_get(spec, "addresses");
	bool cidr_ok = e->resolution == RESOLUTION_NONE || e->resolution == RESOLUTION_STATIC;

	if (e->resolution == RESOLUTION_DYNAMIC_DNS && e->n_addresses > 0)
		field_error(&addresses, "must not be given with resolution DYNAMIC_DNS");
	for (struct field a = field_first(&addresses); a.node; field_next(&a)) {
		const struct cidr *net = &e->addresses[a.index];

		if (is_network(&a) && !cidr_ok)
			field_error(&a,
				    "networks are for resolution NONE and STATIC only: give single "
				    "addresses");
		if (net->bits == (cidr_is_v4(net) ? 96 : 0))
			field_warn(&a, "registers every address there is");
	}
}

/* ---- ports ---- */

/* `seen`: one bit for each number of a port. */
static void check_port_twice(const struct field *port, const struct service_entry *e,
			     uint8_t seen[8192])
{
	const struct entry_port *p = &e->ports[port->index];
	uint8_t bit = (uint8_t)(1U << p->number % 8);
	struct field number = field_get(port, "number"), name = field_get(port, "name");

	if (seen[p->number / 8] & bit)
		field_error(&number, "%u is defined twice in this entry", p->number);
	seen[p->number / 8] |= bit;
	for (size_t i = 0; i < port->index; i++) {
		if (strcmp(e->ports[i].name, p->name) == 0) {
			field_error(&name, "'%.80s' is defined twice in this entry", p->name);
			return;
		}
	}
}

static bool suits_dynamic_dns(enum protocol protocol)
{
	return protocol == PROTOCOL_HTTP || protocol == PROTOCOL_HTTP2 ||
	       protocol == PROTOCOL_GRPC || protocol == PROTOCOL_TLS;
}

static void check_protocol(const struct field *port, const struct service_entry *e)
{
	enum protocol protocol = e->ports[port->index].protocol;
	struct field field = field_get(port, "protocol");

	if (e->resolution == RESOLUTION_DYNAMIC_DNS && !suits_dynamic_dns(protocol))
		field_error(&field, "must be HTTP, HTTP2, GRPC or TLS with resolution DYNAMIC_DNS");
	else if (protocol == PROTOCOL_UDP)
		field_warn(&field, "UDP is not carried: this port matches nothing");
	else if (e->n_addresses == 0 && protocol_is_opaque(protocol))
		field_warn(&field,
			   "%s names no host, so this port matches nothing: give spec.addresses",
			   protocol_str(protocol));
	else if (e->n_addresses == 0 && protocol == PROTOCOL_UNSET)
		field_warn(&field,
			   "is not given: only what turns out to be TLS or HTTP matches this port; "
			   "give spec.addresses for the rest");
}

static void check_ports(const struct field *spec, const struct service_entry *e)
{
	struct field ports = field_get(spec, "ports");
	uint8_t seen[8192] = {0};

	if (e->n_ports == 0)
		field_warn(&ports, "is missing: this entry matches nothing");
	for (struct field port = field_first(&ports); port.node; field_next(&port)) {
		struct field target = field_get(&port, "targetPort");

		check_port_twice(&port, e, seen);
		check_protocol(&port, e);
		if (e->resolution == RESOLUTION_NONE && e->ports[port.index].target_port != 0)
			field_warn(&target, "has no effect with resolution NONE");
	}
}

/* ---- endpoints ---- */

static void check_endpoints(const struct field *spec, const struct service_entry *e)
{
	struct field endpoints = field_get(spec, "endpoints");
	struct addr ip;

	if (field_is_set(&endpoints) && has_selector(spec))
		field_error(&endpoints, "must not be given together with workloadSelector");
	if (e->n_endpoints > 0 && e->resolution == RESOLUTION_NONE)
		field_error(&endpoints,
			    "must not be given with resolution NONE: use STATIC or DNS");
	if (e->n_endpoints > 0 && e->resolution == RESOLUTION_DYNAMIC_DNS)
		field_error(&endpoints, "must not be given with resolution DYNAMIC_DNS");
	if (e->n_endpoints > 1 && e->resolution == RESOLUTION_DNS_ROUND_ROBIN)
		field_error(&endpoints, "has %zu items: DNS_ROUND_ROBIN takes one at most",
			    e->n_endpoints);
	if (e->resolution != RESOLUTION_STATIC)
		return;

	if (e->n_endpoints == 0 && !has_selector(spec))
		field_warn(&endpoints, "is missing: with resolution STATIC there is nothing to "
				       "connect to");
	for (struct field item = field_first(&endpoints); item.node; field_next(&item)) {
		struct field address = field_get(&item, "address");
		const char *text = e->endpoints[item.index].address;

		if (addr_parse_ip(text, &ip) < 0)
			field_error(&address,
				    "'%.80s' is no IP address, which STATIC needs: use "
				    "resolution DNS",
				    text);
	}
}

static void check_selector(const struct field *spec)
{
	struct field selector = field_get(spec, "workloadSelector");
	struct field labels = field_get(&selector, "labels");

	if (!has_selector(spec))
		return;
	field_warn(&selector, "selects workloads of a mesh, of which there are none here: "
			      "connections to these hosts will fail");
	if (!labels.node || labels.node->n == 0)
		field_warn(&selector, "has no labels");
}

/* ---- exportTo ---- */

static void check_exports(const struct field *spec, const struct service_entry *e)
{
	struct field exports = field_get(spec, "exportTo");

	for (struct field item = field_first(&exports); item.node; field_next(&item)) {
		const char *to = e->export_to[item.index];

		if ((strcmp(to, "*") == 0 || strcmp(to, "~") == 0) && e->n_export_to > 1)
			field_error(&item, "'%s' stands alone or not at all", to);
		for (size_t i = 0; i < item.index; i++) {
			if (strcmp(e->export_to[i], to) == 0) {
				field_error(&item,
					    "'%.80s' is a duplicate ('.' is the own "
					    "namespace, '%.63s')",
					    to, e->ns);
				break;
			}
		}
	}
}

/* "." becomes the own namespace. */
static void resolve_exports(const struct field *spec, struct service_entry *e)
{
	const char **to;

	if (e->n_export_to == 0)
		return;
	to = field_alloc(spec, e->n_export_to, sizeof(*to));
	if (!to)
		return;
	for (size_t i = 0; i < e->n_export_to; i++)
		to[i] = strcmp(e->export_to[i], ".") == 0 ? e->ns : e->export_to[i];
	e->export_to = to;
}

/* ---- all of it ---- */

/* The registry holds each of them. Whoever may write entries must not fill everybody's memory with
 * a few: 256 hosts on 256 ports are 15 KB of text.
 */
static void check_size(const struct field *spec, const struct service_entry *e)
{
	size_t exports = e->n_export_to > 0 ? e->n_export_to : 1;
	size_t n = (e->n_hosts + e->n_addresses) * exports + e->n_endpoints;

	if (n * e->n_ports > VALIDATE_PARTS_MAX)
		field_error(spec,
			    "says too much at once: %zu hosts and addresses, for %zu namespaces, "
			    "and %zu endpoints, on %zu ports, are more than %u; use several "
			    "ServiceEntries",
			    e->n_hosts + e->n_addresses, exports, e->n_endpoints, e->n_ports,
			    VALIDATE_PARTS_MAX);
}

/* ---- what follows from several fields ---- */

static void drop_target_ports(const struct field *spec, struct service_entry *e)
{
	struct entry_port *ports = field_alloc(spec, e->n_ports, sizeof(*ports));

	if (!ports)
		return;
	for (size_t i = 0; i < e->n_ports; i++) {
		ports[i] = e->ports[i];
		ports[i].target_port = 0;
	}
	e->ports = ports;
}

void validate_entry(const struct field *spec, struct service_entry *entry)
{
	size_t errors = spec->where->report->errors.n;

	resolve_exports(spec, entry);
	check_hosts(spec, entry);
	check_addresses(spec, entry);
	check_ports(spec, entry);
	check_endpoints(spec, entry);
	check_selector(spec);
	check_exports(spec, entry);
	check_size(spec, entry);
	if (spec->where->report->errors.n > errors)
		return;

	if (entry->resolution == RESOLUTION_NONE && entry->n_ports > 0)
		drop_target_ports(spec, entry);
	/* Its hosts stay registered, with no way to anywhere: left out, a wildcard of another entry
	 * would answer for them.
	 */
	if (has_selector(spec))
		entry->resolution = RESOLUTION_STATIC;
	/* Everybody is what none means, too. */
	if (entry->n_export_to == 1 && strcmp(entry->export_to[0], "*") == 0)
		entry->n_export_to = 0;
}
