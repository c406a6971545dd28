/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/entries_pack.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Walked twice: first without `base`, to learn the size. */
struct packer {
	char *base;
	size_t used;
};

static void *take(struct packer *p, size_t size, size_t align)
{
	void *at;

	p->used = (p->used + align - 1) / align * align;
	at = p->base ? p->base + p->used : NULL;
	p->used += size;
	return at;
}

static void *take_copy(struct packer *p, const void *from, size_t size, size_t align)
{
	void *at = take(p, size, align);

	if (at && size > 0)
		memcpy(at, from, size);
	return at;
}

static const char *take_text(struct packer *p, const char *text)
{
	return take_copy(p, text, strlen(text) + 1, 1);
}

static const char *const *take_texts(struct packer *p, const char *const *texts, size_t n)
{
	const char **to = take(p, n * sizeof(*to), _Alignof(char *));

	for (size_t i = 0; i < n; i++) {
		const char *copy = take_text(p, texts[i]);

		if (to)
			to[i] = copy;
	}
	return to;
}

static const struct entry_port *take_ports(struct packer *p, const struct service_entry *e)
{
	struct entry_port *to =
		take_copy(p, e->ports, e->n_ports * sizeof(*to), _Alignof(struct entry_port));

	for (size_t i = 0; i < e->n_ports; i++) {
		const char *name = take_text(p, e->ports[i].name);

		if (to)
			to[i].name = name;
	}
	return to;
}

static const struct entry_endpoint *take_endpoints(struct packer *p, const struct service_entry *e)
{
	struct entry_endpoint *to = take_copy(p, e->endpoints, e->n_endpoints * sizeof(*to),
					      _Alignof(struct entry_endpoint));

	for (size_t i = 0; i < e->n_endpoints; i++) {
		const struct entry_endpoint *from = &e->endpoints[i];
		const uint16_t *ports =
			take_copy(p, from->ports, e->n_ports * sizeof(*ports), _Alignof(uint16_t));
		const char *address = take_text(p, from->address);

		if (to) {
			to[i].ports = ports;
			to[i].address = address;
		}
	}
	return to;
}

static void pack(struct packer *p, const struct service_entry *e, struct service_entry *ret)
{
	*ret = *e;
	ret->ns = take_text(p, e->ns);
	ret->name = take_text(p, e->name);
	ret->addresses = take_copy(p, e->addresses, e->n_addresses * sizeof(*e->addresses),
				   _Alignof(struct cidr));
	ret->hosts = take_texts(p, e->hosts, e->n_hosts);
	ret->export_to = take_texts(p, e->export_to, e->n_export_to);
	ret->ports = take_ports(p, e);
	ret->endpoints = take_endpoints(p, e);
}

void *entry_pack(const struct service_entry *entry, size_t head, struct service_entry *ret)
{
	struct packer p = {.used = head};
	struct service_entry sizing;
	char *block;

	pack(&p, entry, &sizing);
	block = malloc(p.used);
	if (!block)
		return NULL;
	memset(block, 0, head);
	p = (struct packer){.base = block, .used = head};
	pack(&p, entry, ret);
	return block;
}

static bool texts_equal(const char *const *a, size_t n, const char *const *b, size_t m)
{
	if (n != m)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(a[i], b[i]) != 0)
			return false;
	}
	return true;
}

static bool ports_equal(const struct service_entry *a, const struct service_entry *b)
{
	if (a->n_ports != b->n_ports)
		return false;
	for (size_t i = 0; i < a->n_ports; i++) {
		const struct entry_port *p = &a->ports[i], *q = &b->ports[i];

		if (p->number != q->number || p->target_port != q->target_port ||
		    p->protocol != q->protocol || strcmp(p->name, q->name) != 0)
			return false;
	}
	return true;
}

/* Of entries with as many ports. */
static bool endpoints_equal(const struct service_entry *a, const struct service_entry *b)
{
	if (a->n_endpoints != b->n_endpoints)
		return false;
	for (size_t i = 0; i < a->n_endpoints; i++) {
		const struct entry_endpoint *p = &a->endpoints[i], *q = &b->endpoints[i];

		if (p->weight != q->weight || strcmp(p->address, q->address) != 0 ||
		    (a->n_ports > 0 &&
		     memcmp(p->ports, q->ports, a->n_ports * sizeof(*p->ports)) != 0))
			return false;
	}
	return true;
}

bool entry_equal(const struct service_entry *a, const struct service_entry *b)
{
	return a->created == b->created && a->resolution == b->resolution &&
	       strcmp(a->ns, b->ns) == 0 && strcmp(a->name, b->name) == 0 &&
	       texts_equal(a->hosts, a->n_hosts, b->hosts, b->n_hosts) &&
	       texts_equal(a->export_to, a->n_export_to, b->export_to, b->n_export_to) &&
	       a->n_addresses == b->n_addresses &&
	       (a->n_addresses == 0 ||
		memcmp(a->addresses, b->addresses, a->n_addresses * sizeof(*a->addresses)) == 0) &&
	       ports_equal(a, b) && endpoints_equal(a, b);
}
