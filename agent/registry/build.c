/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/build.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/owned.h"

const char build_nobody[] = "~";

struct totals {
	uint64_t slots, names, nets, endpoints, addresses, export_to, text;
};

static void builder_done(struct builder *b)
{
	registry_free(b->reg);
	free(b->entries);
	free(b->slots);
	free(b->names.v);
	free(b->nets.v);
	free(b->grants);
}

void build_warn(const struct builder *b, const char *format, ...)
{
	OWNED_MEM char *text = NULL;
	va_list args;

	if (!b->warn)
		return;
	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL; /* undefined after a failure */
	va_end(args);
	if (text)
		b->warn(b->ctx, text);
}

/* ---- sizes and order ---- */

/* UDP is no way out of a pod at all, so that such a port is none. */
static bool is_usable(const struct entry_port *port)
{
	return port->protocol != PROTOCOL_UDP;
}

static void count_entry(const struct service_entry *e, struct totals *t)
{
	uint64_t n_ports = 0;

	for (size_t i = 0; i < e->n_ports; i++)
		n_ports += is_usable(&e->ports[i]);
	t->slots += n_ports;
	t->names += n_ports * e->n_hosts;
	t->nets += n_ports * e->n_addresses;
	t->endpoints += n_ports * e->n_endpoints;
	t->addresses += e->n_addresses;
	t->export_to += e->n_export_to;
	t->text += strlen(e->name) + 1;
	for (size_t i = 0; i < e->n_endpoints; i++)
		t->text += strlen(e->endpoints[i].address) + 1;
}

static bool is_too_much(const struct totals *t)
{
	return t->slots > PARTS_MAX || t->names > PARTS_MAX || t->nets > PARTS_MAX ||
	       t->endpoints > PARTS_MAX || t->addresses > PARTS_MAX || t->export_to > PARTS_MAX;
}

/* By age; then by the name of the object, and where even that is one, by where it was given. */
static int compare_age(const void *pa, const void *pb)
{
	const struct service_entry *a = *(const struct service_entry *const *)pa;
	const struct service_entry *b = *(const struct service_entry *const *)pb;
	int r;

	if (a->created != b->created)
		return a->created < b->created ? -1 : 1;
	r = strcmp(a->ns, b->ns);
	if (r == 0)
		r = strcmp(a->name, b->name);
	if (r == 0)
		r = a < b ? -1 : a > b;
	return r;
}

/* Keys are told apart by their first byte, so that this much of the contract is checked. */
static bool is_sound(const struct service_entry *e)
{
	for (size_t i = 0; i < e->n_hosts; i++) {
		if (e->hosts[i][0] == '\0' || e->hosts[i][0] == '.')
			return false;
	}
	for (size_t i = 0; i < e->n_addresses; i++) {
		if (e->addresses[i].bits > 128)
			return false;
	}
	return true;
}

static int sort_entries(struct builder *b, const struct service_entry *entries, size_t n)
{
	b->entries = calloc(n + 1, sizeof(const struct service_entry *));
	if (!b->entries)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (!is_sound(&entries[i]))
			return -EINVAL;
		if (entries[i].n_hosts > 0) /* an address is an address of a host */
			b->entries[b->n_entries++] = &entries[i];
	}
	qsort(b->entries, b->n_entries, sizeof(const struct service_entry *), compare_age);
	return 0;
}

static int make_room(struct builder *b)
{
	struct registry *reg = b->reg;
	struct totals t = {0};

	for (size_t i = 0; i < b->n_entries; i++)
		count_entry(b->entries[i], &t);
	if (is_too_much(&t))
		return -E2BIG;

	/* One more of each, since none may be asked for and NULL means no memory. */
	b->slots = calloc(t.slots + 1, sizeof(*b->slots));
	b->names.v = calloc(t.names + 1, sizeof(*b->names.v));
	b->nets.v = calloc(t.nets + 1, sizeof(*b->nets.v));
	reg->endpoints = b->endpoint = calloc(t.endpoints + 1, sizeof(*reg->endpoints));
	reg->addresses = b->address = calloc(t.addresses + 1, sizeof(*reg->addresses));
	reg->export_to = b->export_to = calloc(t.export_to + 1, sizeof(const char *));
	reg->text = b->text = calloc(t.text + 1, 1);
	if (!b->slots || !b->names.v || !b->nets.v || !reg->endpoints || !reg->addresses ||
	    !reg->export_to || !reg->text)
		return -ENOMEM;
	return 0;
}

const char *build_text(struct builder *b, const char *text, size_t n)
{
	char *kept = b->text;

	memcpy(kept, text, n);
	kept[n] = '\0';
	b->text += n + 1;
	return kept;
}

/* ---- entries to slots ---- */

static int keep_namespace(struct builder *b, const char *ns)
{
	struct index *ix = &b->reg->namespaces;

	return index_find(ix, span_of(ns)) ? 0 : index_add(ix, span_of(ns), NULL, 0);
}

/* All namespaces first, because what is added may move what is there. */
static int keep_namespaces(struct builder *b)
{
	int r = 0;

	for (size_t i = 0; i < b->n_entries && r == 0; i++) {
		const struct service_entry *e = b->entries[i];

		r = keep_namespace(b, e->ns);
		for (size_t k = 0; k < e->n_export_to && r == 0; k++)
			r = keep_namespace(b, e->export_to[k]);
	}
	return r;
}

static const char *kept_namespace(const struct builder *b, const char *ns)
{
	return record_key(index_find(&b->reg->namespaces, span_of(ns)));
}

static bool says(const struct service_entry *e, const char *word)
{
	for (size_t i = 0; i < e->n_export_to; i++) {
		if (strcmp(e->export_to[i], word) == 0)
			return true;
	}
	return false;
}

static int compare_texts(const void *pa, const void *pb)
{
	return strcmp(*(const char *const *)pa, *(const char *const *)pb);
}

static size_t drop_doubles(const char **v, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		if (kept == 0 || strcmp(v[kept - 1], v[i]) != 0)
			v[kept++] = v[i];
	}
	return kept;
}

/* None of it for everybody, build_nobody, or the namespaces sorted. */
static void keep_export_to(struct builder *b, const struct service_entry *e, struct service *as)
{
	const char **v = b->export_to;

	as->export_to = v;
	if (says(e, build_nobody)) {
		v[0] = build_nobody;
		as->n_export_to = 1;
	} else if (!says(e, "*")) {
		for (size_t i = 0; i < e->n_export_to; i++)
			v[i] = kept_namespace(
				b, strcmp(e->export_to[i], ".") == 0 ? e->ns : e->export_to[i]);
		qsort(v, e->n_export_to, sizeof(*v), compare_texts);
		as->n_export_to = drop_doubles(v, e->n_export_to);
	}
	b->export_to += as->n_export_to;
}

static const char *keep_lower(struct builder *b, const char *host)
{
	size_t n = strlen(host);
	char *kept = b->text;

	if (n > 1 && host[n - 1] == '.')
		n--;
	build_text(b, host, n);
	for (size_t i = 0; i < n; i++) {
		if (kept[i] >= 'A' && kept[i] <= 'Z')
			kept[i] = (char)(kept[i] - 'A' + 'a');
	}
	return kept;
}

/* The endpoints of entry `e` as they are for its port `p`. The first slot's host names serve the
 * other slots of the entry, too.
 */
static void keep_endpoints(struct builder *b, const struct service_entry *e, size_t p,
			   const struct endpoint *other, struct service *as)
{
	as->endpoints = b->endpoint;
	as->n_endpoints = e->n_endpoints;
	for (size_t i = 0; i < e->n_endpoints; i++) {
		const struct entry_endpoint *in = &e->endpoints[i];
		struct endpoint *out = b->endpoint++;

		if (addr_parse_ip(in->address, &out->addr) < 0)
			out->host = other ? other[i].host : keep_lower(b, in->address);
		out->addr.port = in->ports && in->ports[p] ? in->ports[p] : as->target_port;
		out->weight = in->weight ?: 1;
	}
}

static void add_slots(struct builder *b, const struct service_entry *e,
		      const struct service *common)
{
	const struct endpoint *first = NULL;

	for (size_t i = 0; i < e->n_ports; i++) {
		const struct entry_port *port = &e->ports[i];
		struct slot *slot = &b->slots[b->n_slots];

		if (!is_usable(port)) {
			build_warn(b,
				   "ServiceEntry %s/%s (%s): UDP port %u is never open, ignoring",
				   e->ns, e->name, e->source ?: "?", port->number);
			continue;
		}
		*slot = (struct slot){.in = e, .as = *common};
		slot->as.port = port->number;
		slot->as.target_port = port->target_port ?: port->number;
		slot->as.protocol = port->protocol;
		keep_endpoints(b, e, i, first, &slot->as);
		first = slot->as.endpoints;
		b->n_slots++;
	}
}

static struct claim *add_claim(struct claims *claims, const struct slot *slot, size_t i)
{
	struct claim *c = &claims->v[claims->n++];

	*c = (struct claim){.slot = (uint32_t)i, .port = slot->as.port};
	return c;
}

static void claim_names(struct builder *b, size_t i)
{
	const struct service_entry *e = b->slots[i].in;

	for (size_t h = 0; h < e->n_hosts; h++) {
		const char *host = e->hosts[h];
		struct claim *c = add_claim(&b->names, &b->slots[i], i);

		c->key = span_of(host[0] == '*' && host[1] == '.' ? host + 1 : host);
		c->first_host = h == 0;
	}
}

static void claim_nets(struct builder *b, size_t i)
{
	const struct service *as = &b->slots[i].as;

	for (size_t a = 0; a < as->n_addresses; a++) {
		struct claim *c = add_claim(&b->nets, &b->slots[i], i);

		c->key = (struct span){(const uint8_t *)&as->addresses[a], sizeof(struct cidr)};
	}
}

static void take_entry(struct builder *b, const struct service_entry *e)
{
	struct service common = {
		.ns = kept_namespace(b, e->ns),
		.entry = build_text(b, e->name, strlen(e->name)),
		.resolution = e->resolution,
		.addresses = b->address,
		.n_addresses = e->n_addresses,
	};
	size_t i = b->n_slots;

	keep_export_to(b, e, &common);
	for (size_t a = 0; a < e->n_addresses; a++)
		*b->address++ = e->addresses[a];

	add_slots(b, e, &common);
	for (; i < b->n_slots; i++) {
		claim_names(b, i);
		claim_nets(b, i);
	}
}

/* ---- what lookups want to know beforehand ---- */

static void note_wildcards(struct registry *reg)
{
	for (const struct record *r = NULL; (r = index_next(&reg->names, r));) {
		const char *key = record_key(r);
		size_t labels = 0;

		if (key[0] != '.')
			continue;
		for (size_t i = 0; i < r->len; i++)
			labels += key[i] == '.';
		if (labels < 256)
			reg->wildcard_depths[labels / 64] |= UINT64_C(1) << (labels % 64);
	}
}

static void note_prefixes(struct registry *reg)
{
	bool seen[129] = {0};

	for (const struct record *r = NULL; (r = index_next(&reg->nets, r));)
		seen[((const struct cidr *)(const void *)record_key(r))->bits] = true;
	for (unsigned bits = 129; bits-- > 0;) {
		if (seen[bits])
			reg->prefix_bits[reg->n_prefix_bits++] = (uint8_t)bits;
	}
}

/* ---- claims to services ---- */

static size_t count_services(struct builder *b)
{
	size_t n = 0;

	for (size_t i = 0; i < b->nets.n; i++)
		b->slots[b->nets.v[i].slot].addressed |= b->nets.v[i].live;
	for (size_t i = 0; i < b->names.n; i++) {
		struct claim *c = &b->names.v[i];

		/* An address may lead to what lost its name to an older entry. */
		c->live |= c->first_host && b->slots[c->slot].addressed;
		n += c->live;
	}
	return n;
}

static void place_service(struct builder *b, struct claim *c, const char *host)
{
	struct slot *slot = &b->slots[c->slot];

	c->service = (uint32_t)b->reg->n_services++;
	b->reg->services[c->service] = slot->as;
	b->reg->services[c->service].host = host;
	if (c->first_host)
		slot->service = c->service;
}

/* Claims and records of names are in the same order. */
static int place_services(struct builder *b)
{
	const struct record *r = NULL;
	struct registry *reg = b->reg;

	reg->services = calloc(count_services(b) + 1, sizeof(*reg->services));
	if (!reg->services)
		return -ENOMEM;
	for (size_t i = 0; i < b->names.n; i++) {
		struct claim *c = &b->names.v[i];
		const char *key;

		if (i == 0 || !span_equal(c->key, c[-1].key))
			r = index_next(&reg->names, r);
		key = record_key(r);
		if (c->live)
			place_service(b, c, key[0] == '.' ? key - 1 : key);
	}
	return 0;
}

/* Grants know their claim; from here on, their service. */
static void place_grants(struct builder *b)
{
	for (struct record *r = NULL; (r = index_next(&b->reg->names, r));) {
		for (uint32_t i = 0; i < r->n_grants; i++)
			r->grants[i].service = b->names.v[r->grants[i].service].service;
	}
	for (struct record *r = NULL; (r = index_next(&b->reg->nets, r));) {
		for (uint32_t i = 0; i < r->n_grants; i++) {
			const struct claim *c = &b->nets.v[r->grants[i].service];

			r->grants[i].service = b->slots[c->slot].service;
		}
	}
}

static int start_registry(struct builder *b)
{
	static _Atomic uint64_t generations;
	struct siphash_key seed;
	struct registry *reg;

	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		return -EIO;
	reg = calloc(1, sizeof(*reg));
	if (!reg)
		return -ENOMEM;
	atomic_init(&reg->refs, 1);
	reg->generation = atomic_fetch_add(&generations, 1) + 1;
	reg->names.seed = reg->nets.seed = reg->namespaces.seed = seed;
	b->reg = reg;
	return 0;
}

static int build(struct builder *b, const struct service_entry *entries, size_t n)
{
	int r;

	r = start_registry(b);
	if (r == 0)
		r = sort_entries(b, entries, n);
	if (r == 0)
		r = make_room(b);
	if (r == 0)
		r = keep_namespaces(b);
	if (r < 0)
		return r;
	for (size_t i = 0; i < b->n_entries; i++)
		take_entry(b, b->entries[i]);

	r = build_index(b, &b->reg->names, &b->names);
	if (r == 0)
		r = build_index(b, &b->reg->nets, &b->nets);
	if (r == 0)
		r = place_services(b);
	if (r < 0)
		return r;
	place_grants(b);
	note_wildcards(b->reg);
	note_prefixes(b->reg);
	return 0;
}

int registry_new(struct registry **ret, const struct service_entry *entries, size_t n,
		 registry_warn_fn *warn, void *ctx)
{
	OWNED(builder_done) struct builder b = {.warn = warn, .ctx = ctx};
	int r = build(&b, entries, n);

	if (r == 0)
		*ret = TAKE_PTR(b.reg);
	return r;
}
