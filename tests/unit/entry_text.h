/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* ServiceEntries as one line of text each, for the tables of tests. Aborts when a line is wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "registry/registry.h"

#define ENTRY_LIST_MAX 8

/* Lists are separated by blanks; NULL is an empty list. */
struct entry_text {
	const char *id; /* "namespace/name" */
	const char *hosts;
	const char
		*ports; /* "443:TLS", "80>8080:HTTP" with a target port, "9000:" without protocol */
	const char *export_to;
	const char *addresses;
	const char *endpoints; /* "192.0.2.1", "db.example.net=5433*7": port for the first port,
				  weight */
	enum resolution resolution;
	int64_t created;
};

struct entry_parts {
	char text[1024];
	size_t used;
	const char *hosts[ENTRY_LIST_MAX], *export_to[ENTRY_LIST_MAX];
	struct cidr addresses[ENTRY_LIST_MAX];
	struct entry_port ports[ENTRY_LIST_MAX];
	struct entry_endpoint endpoints[ENTRY_LIST_MAX];
	uint16_t endpoint_ports[ENTRY_LIST_MAX][ENTRY_LIST_MAX];
};

static inline void entry_check(bool good, const char *text)
{
	if (good)
		return;
	fprintf(stderr, "bad entry in the test: '%s'\n", text);
	abort();
}

/* Cuts the list into words that live in `parts`. */
static inline size_t entry_words(struct entry_parts *parts, const char *list,
				 char *ret[ENTRY_LIST_MAX])
{
	char *copy = parts->text + parts->used, *save = NULL;
	size_t n = 0;

	if (!list)
		return 0;
	parts->used += strlen(list) + 1;
	entry_check(parts->used <= sizeof(parts->text), list);
	memcpy(copy, list, strlen(list) + 1);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		entry_check(n < ENTRY_LIST_MAX, list);
		ret[n++] = w;
	}
	return n;
}

static inline void entry_port_of(char *word, struct entry_port *ret)
{
	char *end;

	*ret = (struct entry_port){.name = ""};
	ret->number = (uint16_t)strtoul(word, &end, 10);
	if (*end == '>')
		ret->target_port = (uint16_t)strtoul(end + 1, &end, 10);
	entry_check(*end == ':' && protocol_parse(end + 1, &ret->protocol) == 0, word);
}

static inline void entry_endpoint_of(char *word, uint16_t *ports, struct entry_endpoint *ret)
{
	char *weight = strchr(word, '*'), *port = strchr(word, '=');

	*ret = (struct entry_endpoint){.address = word, .ports = ports};
	if (weight) {
		*weight++ = '\0';
		ret->weight = (uint32_t)strtoul(weight, NULL, 10);
	}
	if (port) {
		*port++ = '\0';
		ports[0] = (uint16_t)strtoul(port, NULL, 10);
	}
}

static inline void entry_of(const struct entry_text *t, struct entry_parts *p,
			    struct service_entry *ret)
{
	char *words[ENTRY_LIST_MAX], *id[ENTRY_LIST_MAX] = {NULL}, *slash;

	entry_check(entry_words(p, t->id, id) == 1, t->id);
	slash = strchr(id[0], '/');
	entry_check(slash != NULL, t->id);
	*slash = '\0';
	*ret = (struct service_entry){
		.ns = id[0],
		.name = slash + 1,
		.created = t->created ?: INT64_MAX,
		.hosts = p->hosts,
		.addresses = p->addresses,
		.ports = p->ports,
		.endpoints = p->endpoints,
		.export_to = p->export_to,
		.resolution = t->resolution,
		.source = "test:1",
	};
	ret->n_hosts = entry_words(p, t->hosts, words);
	for (size_t i = 0; i < ret->n_hosts; i++)
		p->hosts[i] = words[i];
	ret->n_export_to = entry_words(p, t->export_to, words);
	for (size_t i = 0; i < ret->n_export_to; i++)
		p->export_to[i] = words[i];
	ret->n_addresses = entry_words(p, t->addresses, words);
	for (size_t i = 0; i < ret->n_addresses; i++)
		entry_check(cidr_parse(words[i], &p->addresses[i]) == 0, words[i]);
	ret->n_ports = entry_words(p, t->ports, words);
	for (size_t i = 0; i < ret->n_ports; i++)
		entry_port_of(words[i], &p->ports[i]);
	ret->n_endpoints = entry_words(p, t->endpoints, words);
	for (size_t i = 0; i < ret->n_endpoints; i++)
		entry_endpoint_of(words[i], p->endpoint_ports[i], &p->endpoints[i]);
}

/* As registry_new(), with entries of text. All that went in is freed before it returns, so that a
 * registry that borrowed something is found out.
 */
static inline int entry_registry(struct registry **ret, const struct entry_text *texts, size_t n,
				 registry_warn_fn *warn, void *ctx)
{
	OWNED_MEM struct service_entry *entries = calloc(n + 1, sizeof(*entries));
	OWNED_MEM struct entry_parts *parts = calloc(n + 1, sizeof(*parts));

	entry_check(entries && parts, "(memory)");
	for (size_t i = 0; i < n; i++)
		entry_of(&texts[i], &parts[i], &entries[i]);
	return registry_new(ret, entries, n, warn, ctx);
}
