/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/decode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/num.h"
#include "base/owned.h"
#include "resource/field.h"
#include "resource/hostname.h"
#include "resource/tree.h"
#include "resource/validate.h"

#define NETWORKING "networking.istio.io"

/* Of one entry: names are compared each with each, and each endpoint has an array of all ports. */
#define PORTS_MAX     1024U
#define ENDPOINTS_MAX 4096U
#define EXPORTS_MAX   1024U

/* ---- one field each; `out` is a member of struct service_entry unless said otherwise ---- */

static void read_host(const struct field *f, void *out)
{
	char name[HOSTNAME_MAX + 1];
	const char **ret = out, *why;

	*ret = "";
	if (!field_is(f, TREE_STRING))
		return;
	why = hostname_check(f->node->text, HOSTNAME_WILDCARD, name);
	if (why)
		field_error(f, "'%.80s' %s", f->node->text, why);
	else
		*ret = field_keep(f, name);
}

static void read_hosts(const struct field *f, void *out)
{
	struct service_entry *e = out;

	field_list(f, read_host, sizeof(*e->hosts), (void **)&e->hosts, &e->n_hosts);
}

static void read_address(const struct field *f, void *out)
{
	if (field_is(f, TREE_STRING) && cidr_parse(f->node->text, out) < 0)
		field_error(f, "'%.80s' is neither an IP address nor a network like 192.0.2.0/24",
			    f->node->text);
}

static void read_addresses(const struct field *f, void *out)
{
	struct service_entry *e = out;

	field_list(f, read_address, sizeof(*e->addresses), (void **)&e->addresses, &e->n_addresses);
}

static void read_port_number(const struct field *f, void *out)
{
	uint64_t n;

	if (field_number(f, 1, UINT16_MAX, &n))
		*(uint16_t *)out = (uint16_t)n;
}

static void read_target_port(const struct field *f, void *out)
{
	uint64_t n;

	if (field_number(f, 0, UINT16_MAX, &n)) /* 0 is Istio's "not given" */
		*(uint16_t *)out = (uint16_t)n;
}

static void read_protocol(const struct field *f, void *out)
{
	if (!field_is(f, TREE_STRING) || f->node->text[0] == '\0')
		return;
	if (protocol_parse(f->node->text, out) < 0)
		field_error(f,
			    "'%.80s' is none of HTTP, HTTP2, GRPC, GRPC-Web, HTTPS, TLS, TCP, "
			    "MONGO, REDIS, MYSQL, UDP",
			    f->node->text);
}

static void read_port_name(const struct field *f, void *out)
{
	field_string(f, out);
	if (f->node->kind == TREE_STRING && !hostname_is_label(f->node->text))
		field_error(f,
			    "'%.80s' must be 1 to 63 letters, digits and '-', no '-' at its ends",
			    f->node->text);
}

static void require(const struct field *f, const char *name, const char *what)
{
	struct field child = field_get(f, name);

	if (f->node->kind == TREE_MAP && !field_is_set(&child))
		field_error(&child, "is missing: %s", what);
}

static void read_port(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {
		{"number", read_port_number, offsetof(struct entry_port, number)},
		{"protocol", read_protocol, offsetof(struct entry_port, protocol)},
		{"name", read_port_name, offsetof(struct entry_port, name)},
		{"targetPort", read_target_port, offsetof(struct entry_port, target_port)},
	};

	((struct entry_port *)out)->name = "";
	field_map(f, rules, ARRAY_SIZE(rules), out);
	require(f, "number", "give the port that pods connect to");
	require(f, "name", "give the port a name like https");
}

static bool is_short(const struct field *f, size_t max)
{
	if (f->node->n <= max)
		return true;
	field_error(f, "has %u items, more than %zu: use several ServiceEntries", f->node->n, max);
	return false;
}

static void read_ports(const struct field *f, void *out)
{
	struct service_entry *e = out;

	if (!is_short(f, PORTS_MAX))
		return;
	field_list(f, read_port, sizeof(*e->ports), (void **)&e->ports, &e->n_ports);
}

static void read_location(const struct field *f, void *out)
{
	static const char *const names[] = {"MESH_EXTERNAL", "MESH_INTERNAL"};
	unsigned ignored;

	(void)out;
	field_enum(f, names, ARRAY_SIZE(names), &ignored);
}

static void read_resolution(const struct field *f, void *out)
{
	struct service_entry *e = out;
	const char *names[RESOLUTION_N_];
	unsigned n;

	for (unsigned i = 0; i < RESOLUTION_N_; i++)
		names[i] = resolution_str(i);
	if (field_enum(f, names, RESOLUTION_N_, &n))
		e->resolution = n;
}

/* `out` is a const char *. Kept as an IP literal or a lower-case name. */
static void read_endpoint_address(const struct field *f, void *out)
{
	char name[HOSTNAME_MAX + 1];
	const char **ret = out, *text = f->node->text, *why;
	struct addr ip;

	if (!field_is(f, TREE_STRING))
		return;
	if (strncmp(text, "unix:", 5) == 0) {
		field_error(f,
			    "'%.80s' is a unix socket, which a gateway cannot connect to: give "
			    "an IP address",
			    text);
		return;
	}
	if (addr_parse_ip(text, &ip) == 0) {
		*ret = field_keep(f, text);
		return;
	}
	why = hostname_check(text, HOSTNAME_EXACT, name);
	if (why)
		field_error(f, "'%.80s' %s", text, why);
	else
		*ret = field_keep(f, name);
}

static void read_weight(const struct field *f, void *out)
{
	uint64_t n;

	if (field_number(f, 0, UINT32_MAX, &n))
		*(uint32_t *)out = (uint32_t)n;
}

static void read_any_string(const struct field *f, void *out)
{
	(void)out;
	field_is(f, TREE_STRING);
}

static size_t port_by_name(const struct service_entry *e, const char *name)
{
	size_t i;

	for (i = 0; i < e->n_ports && strcmp(e->ports[i].name, name) != 0; i++)
		;
	return i;
}

static void read_endpoint_ports(const struct field *f, const struct service_entry *e,
				struct entry_endpoint *endpoint)
{
	uint16_t *ports = field_alloc(f, e->n_ports, sizeof(*ports));

	if (!ports)
		return;
	endpoint->ports = ports;
	if (!field_is_set(f) || !field_is(f, TREE_MAP))
		return;
	for (struct field port = field_first(f); port.node; field_next(&port)) {
		size_t i = port_by_name(e, port.name);
		uint64_t n;

		if (i == e->n_ports)
			field_error(&port, "'%.80s' is not the name of a port in spec.ports",
				    port.name);
		else if (field_number(&port, 1, UINT16_MAX, &n))
			ports[i] = (uint16_t)n;
	}
}

static void read_endpoint(const struct field *f, const struct service_entry *e,
			  struct entry_endpoint *ret)
{
	static const struct field_rule rules[] = {
		{"address", read_endpoint_address, offsetof(struct entry_endpoint, address)},
		{"ports", NULL, 0}, /* needs the entry, see below */
		{"labels", field_string_map, 0},
		{"network", read_any_string, 0},
		{"locality", read_any_string, 0},
		{"weight", read_weight, offsetof(struct entry_endpoint, weight)},
		{"serviceAccount", read_any_string, 0},
	};
	struct field ports = field_get(f, "ports");

	ret->address = "";
	field_map(f, rules, ARRAY_SIZE(rules), ret);
	if (f->node->kind != TREE_MAP)
		return;
	require(f, "address",
		"give an IP address or a host name; the gateway of another network "
		"cannot stand in for it");
	read_endpoint_ports(&ports, e, ret);
}

static void read_endpoints(const struct field *f, void *out)
{
	struct service_entry *e = out;
	struct entry_endpoint *endpoints;

	if (!field_is(f, TREE_LIST) || !is_short(f, ENDPOINTS_MAX))
		return;
	endpoints = field_alloc(f, f->node->n, sizeof(*endpoints));
	if (!endpoints)
		return;
	e->endpoints = endpoints;
	e->n_endpoints = f->node->n;
	for (struct field item = field_first(f); item.node; field_next(&item))
		read_endpoint(&item, e, &endpoints[item.index]);
}

static void read_selector(const struct field *f, void *out)
{
	static const struct field_rule rules[] = {{"labels", field_string_map, 0}};

	field_map(f, rules, ARRAY_SIZE(rules), out);
}

static void read_export(const struct field *f, void *out)
{
	const char *text = f->node->text;

	*(const char **)out = "";
	if (!field_is(f, TREE_STRING))
		return;
	if (strcmp(text, "*") != 0 && strcmp(text, ".") != 0 && strcmp(text, "~") != 0 &&
	    !hostname_is_label(text))
		field_error(f, "'%.80s' is none of *, ., ~ and the name of a namespace", text);
	field_string(f, out);
}

static void read_exports(const struct field *f, void *out)
{
	struct service_entry *e = out;

	if (!is_short(f, EXPORTS_MAX))
		return;
	field_list(f, read_export, sizeof(*e->export_to), (void **)&e->export_to, &e->n_export_to);
}

static void read_subject_names(const struct field *f, void *out)
{
	const char **names = NULL;
	size_t n = 0;

	(void)out;
	field_list(f, field_string, sizeof(*names), (void **)&names, &n);
	if (n > 0)
		field_warn(f, "has no effect: TLS of the pods is passed on unopened");
}

/* ---- one object ---- */

/* Reads what follows "2024-05-01T10:00:00" : a fraction, ignored, and Z or +02:00, in seconds. */
static int parse_zone(const char *p, int *ret_seconds)
{
	int h, m, n = 0;

	if (*p == '.') {
		size_t digits = strspn(p + 1, "0123456789");

		if (digits == 0)
			return -EINVAL;
		p += 1 + digits;
	}
	if (strcmp(p, "Z") == 0 || strcmp(p, "z") == 0) {
		*ret_seconds = 0;
		return 0;
	}
	if (strlen(p) != 6 || sscanf(p + 1, "%2d:%2d%n", &h, &m, &n) != 2 || n != 5 || h > 23 ||
	    m > 59 || h < 0 || m < 0 || (*p != '+' && *p != '-'))
		return -EINVAL;
	*ret_seconds = (h * 3600 + m * 60) * (*p == '-' ? -1 : 1);
	return 0;
}

static int parse_time(const char *text, int64_t *ret)
{
	struct tm tm = {0};
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	int zone;

	if (!rest || parse_zone(rest, &zone) < 0)
		return -EINVAL;
	*ret = (int64_t)timegm(&tm) - zone;
	return 0;
}

static void read_created(const struct field *f, void *out)
{
	struct service_entry *e = out;

	if (field_is(f, TREE_STRING) && parse_time(f->node->text, &e->created) < 0)
		field_error(f, "'%.80s' is no time like 2024-05-01T10:00:00Z (RFC 3339)",
			    f->node->text);
}

static void read_name(const struct field *f, void *out)
{
	field_string(f, out);
	if (f->node->kind == TREE_STRING && !hostname_is_subdomain(f->node->text))
		field_error(f,
			    "'%.80s' is no name of an object: lower-case letters, digits, '-' and "
			    "'.', at most 253 bytes",
			    f->node->text);
}

static void read_namespace(const struct field *f, void *out)
{
	field_string(f, out);
	if (f->node->kind == TREE_STRING && !hostname_is_label(f->node->text))
		field_error(f, "'%.80s' is no name of a namespace", f->node->text);
}

static void read_metadata(const struct field *f, struct service_entry *e)
{
	static const struct {
		const char *name;
		field_read_fn *read;
		size_t offset;
	} rules[] = {
		{"name", read_name, offsetof(struct service_entry, name)},
		{"namespace", read_namespace, offsetof(struct service_entry, ns)},
		{"creationTimestamp", read_created, 0},
		{"labels", field_string_map, 0},
		{"annotations", field_string_map, 0},
	};

	if (!field_is_set(f)) {
		field_error(f, "is missing: give metadata.name");
		return;
	}
	if (!field_is(f, TREE_MAP))
		return;
	/* Not field_map(): what else Kubernetes keeps here (uid, managedFields) is its own. */
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		struct field child = field_get(f, rules[i].name);

		if (field_is_set(&child))
			rules[i].read(&child, (char *)e + rules[i].offset);
	}
	require(f, "name", "give the object a name");
}

static void read_spec(const struct field *f, struct service_entry *e)
{
	/* Ports come before endpoints, which name them. */
	static const struct field_rule rules[] = {
		{"hosts", read_hosts, 0},
		{"addresses", read_addresses, 0},
		{"ports", read_ports, 0},
		{"location", read_location, 0},
		{"resolution", read_resolution, 0},
		{"endpoints", read_endpoints, 0},
		{"workloadSelector", read_selector, 0},
		{"exportTo", read_exports, 0},
		{"subjectAltNames", read_subject_names, 0},
	};

	if (!field_is_set(f)) {
		field_error(f, "is missing: give spec.hosts and spec.ports");
		return;
	}
	field_map(f, rules, ARRAY_SIZE(rules), e);
}

static int append(struct decoded *d, const struct service_entry *e)
{
	if (d->n == d->room) {
		size_t room = d->room > 0 ? d->room * 2 : 64;
		struct service_entry *more = reallocarray(d->entries, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		d->entries = more;
		d->room = room;
	}
	d->entries[d->n++] = *e;
	return 0;
}

static const char *text_at(const struct tree *node, const char *key, const char *otherwise)
{
	const struct tree *child = tree_get(node, key);

	return child && child->kind == TREE_STRING ? child->text : otherwise;
}

static void name_object(const struct tree *root, const char *kind, char *buf, size_t size)
{
	const struct tree *meta = tree_get(root, "metadata");

	snprintf(buf, size, "%.60s %.63s/%.80s", kind, text_at(meta, "namespace", "default"),
		 text_at(meta, "name", "?"));
}

static void decode_entry(struct decoded *d, const char *file, const struct tree *root)
{
	static const struct field_rule rules[] = {
		{"apiVersion", NULL, 0}, {"kind", NULL, 0},   {"metadata", NULL, 0},
		{"spec", NULL, 0},       {"status", NULL, 0},
	};
	struct service_entry e = {.ns = "default", .name = "", .created = INT64_MAX};
	struct where where = {.report = &d->report, .keep = &d->keep, .file = file};
	struct field top = {.where = &where, .node = root};
	struct field meta = field_get(&top, "metadata"), spec = field_get(&top, "spec");
	size_t errors = d->report.errors.n;
	char object[220];

	name_object(root, "ServiceEntry", object, sizeof(object));
	where.object = object;
	field_map(&top, rules, ARRAY_SIZE(rules), NULL);
	read_metadata(&meta, &e);
	read_spec(&spec, &e);
	if (d->report.errors.n == errors && d->report.r == 0)
		validate_entry(&spec, &e);
	if (d->report.errors.n > errors || d->report.r < 0)
		return;

	e.source = arena_print(&d->keep, "%s:%u", file, root->line);
	if (!e.source || append(d, &e) < 0)
		report_fail(&d->report, -ENOMEM);
}

/* ---- kinds ---- */

static const struct {
	const char *group, *kind;
} skipped_kinds[] = {
	[SKIPPED_GATEWAY] = {NETWORKING, "Gateway"},
	[SKIPPED_VIRTUAL_SERVICE] = {NETWORKING, "VirtualService"},
	[SKIPPED_DESTINATION_RULE] = {NETWORKING, "DestinationRule"},
	[SKIPPED_SIDECAR] = {NETWORKING, "Sidecar"},
	[SKIPPED_ENVOY_FILTER] = {NETWORKING, "EnvoyFilter"},
	[SKIPPED_WORKLOAD_ENTRY] = {NETWORKING, "WorkloadEntry"},
	[SKIPPED_WORKLOAD_GROUP] = {NETWORKING, "WorkloadGroup"},
	[SKIPPED_PROXY_CONFIG] = {NETWORKING, "ProxyConfig"},
	[SKIPPED_AUTHORIZATION_POLICY] = {"security.istio.io", "AuthorizationPolicy"},
	[SKIPPED_PEER_AUTHENTICATION] = {"security.istio.io", "PeerAuthentication"},
	[SKIPPED_REQUEST_AUTHENTICATION] = {"security.istio.io", "RequestAuthentication"},
	[SKIPPED_TELEMETRY] = {"telemetry.istio.io", "Telemetry"},
	[SKIPPED_WASM_PLUGIN] = {"extensions.istio.io", "WasmPlugin"},
};
_Static_assert(ARRAY_SIZE(skipped_kinds) == SKIPPED_N_, "one line a kind");

const char *skipped_str(enum skipped kind)
{
	return skipped_kinds[kind].kind;
}

static bool is_version_of(const char *api_version, const char *group)
{
	static const char *const versions[] = {"v1", "v1beta1", "v1alpha3", "v1alpha1"};
	/* v1alpha3 is networking's, v1alpha1 that of the younger groups. */
	size_t n = strlen(group);

	if (strncmp(api_version, group, n) != 0 || api_version[n] != '/')
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
		if (strcmp(api_version + n + 1, versions[i]) == 0)
			return true;
	}
	return false;
}

static bool is_networking(const char *api_version)
{
	return is_version_of(api_version, NETWORKING) &&
	       strcmp(api_version, NETWORKING "/v1alpha1") != 0;
}

static bool read_past(struct decoded *d, const char *api_version, const char *kind,
		      const struct tree *root)
{
	for (size_t i = 0; i < SKIPPED_N_; i++) {
		if (strcmp(kind, skipped_kinds[i].kind) != 0 ||
		    !is_version_of(api_version, skipped_kinds[i].group))
			continue;
		if (d->skipped[i] == 0)
			d->skipped[i] = root->line;
		return true;
	}
	return false;
}

static void decode_object(struct decoded *d, const char *file, const struct tree *root,
			  const char *api_version, const char *kind);

static void decode_list(struct decoded *d, const char *file, const struct tree *root,
			const char *api_version, const char *item_kind)
{
	static const struct field_rule rules[] = {{"apiVersion", NULL, 0},
						  {"kind", NULL, 0},
						  {"metadata", NULL, 0},
						  {"items", NULL, 0}};
	struct where where = {
		.report = &d->report, .keep = &d->keep, .file = file, .object = "List"};
	struct field top = {.where = &where, .node = root}, items = field_get(&top, "items");

	field_map(&top, rules, ARRAY_SIZE(rules), NULL);
	if (!field_is_set(&items) || !field_is(&items, TREE_LIST))
		return;
	for (const struct tree *item = items.node->child; item; item = item->next)
		decode_object(d, file, item, api_version, item_kind);
}

/* `api_version` and `kind` stand in where the object has none: the items of a ServiceEntryList, as
 * the API server sends them. NULL: it must say.
 */
static void decode_object(struct decoded *d, const char *file, const struct tree *root,
			  const char *api_version, const char *kind)
{
	if (root->kind != TREE_MAP) {
		report_error(&d->report,
			     "%.200s:%u: must be an object with apiVersion and kind, "
			     "not %s",
			     file, root->line, tree_kind_str(root->kind));
		return;
	}
	api_version = text_at(root, "apiVersion", api_version);
	kind = text_at(root, "kind", kind);
	if (!api_version || !kind)
		report_error(&d->report, "%.200s:%u: %s is missing or no string", file, root->line,
			     api_version ? "kind" : "apiVersion");
	else if (strcmp(api_version, "v1") == 0 && strcmp(kind, "List") == 0)
		decode_list(d, file, root, NULL, NULL);
	else if (is_networking(api_version) && strcmp(kind, "ServiceEntryList") == 0)
		decode_list(d, file, root, api_version, "ServiceEntry");
	else if (is_networking(api_version) && strcmp(kind, "ServiceEntry") == 0)
		decode_entry(d, file, root);
	else if (!read_past(d, api_version, kind, root))
		report_error(&d->report,
			     "%.200s:%u: kind '%.80s' of apiVersion '%.80s' is not known here: "
			     "write a ServiceEntry of " NETWORKING "/v1",
			     file, root->line, kind, api_version);
}

/* ---- texts ---- */

static void refuse_text(struct decoded *d, const char *file, const struct tree_error *error)
{
	report_error(&d->report, "%.200s:%u: %s (column %u)", file, error->line, error->text,
		     error->column);
}

static void decode_json(struct decoded *d, const char *file, struct span text)
{
	OWNED(arena_done) struct arena mem = {0};
	struct tree_error error;
	const struct tree *root;
	int r = tree_json_read(text, &mem, &root, &error);

	if (r == -EINVAL)
		refuse_text(d, file, &error);
	else if (r < 0)
		report_fail(&d->report, r);
	else
		decode_object(d, file, root, NULL, NULL);
}

static void close_yaml(struct tree_yaml **yaml)
{
	tree_yaml_close(*yaml);
}

static void decode_yaml(struct decoded *d, const char *file, struct span text, unsigned first_line)
{
	OWNED(close_yaml) struct tree_yaml *yaml = NULL;
	OWNED(arena_done) struct arena mem = {0};
	struct tree_error error;
	const struct tree *root;
	int r = tree_yaml_open(&yaml, text, first_line);

	/* One document at a time in memory: there may be 100,000. */
	while (r >= 0) {
		r = tree_yaml_next(yaml, &mem, &root, &error);
		if (r == 0)
			return;
		if (r > 0 && root->kind != TREE_NULL)
			decode_object(d, file, root, NULL, NULL);
		arena_reset(&mem);
	}
	if (r == -EINVAL)
		refuse_text(d, file, &error);
	else
		report_fail(&d->report, r);
}

void decode_text(struct decoded *ret, const char *file, struct span text, enum text_format format,
		 unsigned first_line)
{
	if (format == TEXT_JSON)
		decode_json(ret, file, text);
	else
		decode_yaml(ret, file, text, first_line);
}

void decode_tree(struct decoded *ret, const char *file, const struct tree *root)
{
	decode_object(ret, file, root, NULL, NULL);
}

void decoded_done(struct decoded *decoded)
{
	arena_done(&decoded->keep);
	free(decoded->entries);
	report_done(&decoded->report);
	*decoded = (struct decoded){0};
}
