/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/entries.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* NULL for a value is a failure, too, and nothing that was handed over is lost. */
static int set(json_t *object, const char *key, json_t *value)
{
	return json_object_set_new(object, key, value);
}

static json_t *texts_json(const char *const *texts, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		if (json_array_append_new(array, json_string(texts[i])) < 0)
			goto fail;
	return array;
fail:
	json_decref(array);
	return NULL;
}

/* A single address stays one: a network is not allowed everywhere. */
static json_t *addresses_json(const struct service_entry *e)
{
	json_t *array = json_array();

	for (size_t i = 0; i < e->n_addresses; i++) {
		struct addr one = {0};
		char text[ADDR_TEXT];

		memcpy(one.ip, e->addresses[i].ip, sizeof(one.ip));
		if (e->addresses[i].bits == 128)
			addr_print_ip(&one, text);
		else
			cidr_print(&e->addresses[i], text);
		if (json_array_append_new(array, json_string(text)) < 0)
			goto fail;
	}
	return array;
fail:
	json_decref(array);
	return NULL;
}

static json_t *ports_json(const struct service_entry *e)
{
	json_t *array = json_array();

	for (size_t i = 0; i < e->n_ports; i++) {
		const struct entry_port *p = &e->ports[i];

		if (json_array_append_new(array, json_pack("{s:s, s:i, s:s, s:i}", "name", p->name,
							   "number", (int)p->number, "protocol",
							   protocol_str(p->protocol), "targetPort",
							   (int)p->target_port)) < 0)
			goto fail;
	}
	return array;
fail:
	json_decref(array);
	return NULL;
}

static json_t *endpoint_json(const struct service_entry *e, const struct entry_endpoint *endpoint)
{
	json_t *ports = json_object();

	for (size_t i = 0; i < e->n_ports; i++) {
		if (endpoint->ports[i] != 0 &&
		    set(ports, e->ports[i].name, json_integer(endpoint->ports[i])) < 0) {
			json_decref(ports);
			return NULL;
		}
	}
	return json_pack("{s:s, s:I, s:o}", "address", endpoint->address, "weight",
			 (json_int_t)endpoint->weight, "ports", ports);
}

static json_t *endpoints_json(const struct service_entry *e)
{
	json_t *array = json_array();

	for (size_t i = 0; i < e->n_endpoints; i++)
		if (json_array_append_new(array, endpoint_json(e, &e->endpoints[i])) < 0)
			goto fail;
	return array;
fail:
	json_decref(array);
	return NULL;
}

/* STATIC with nowhere to go is what has become of an entry for workloads of a mesh. The rules of
 * NONE are the ones that it is sure to keep.
 */
static int set_resolution(json_t *spec, const struct service_entry *e)
{
	if (e->resolution != RESOLUTION_STATIC || e->n_endpoints > 0)
		return set(spec, "resolution", json_string(resolution_str(e->resolution)));
	return set(spec, "resolution", json_string(resolution_str(RESOLUTION_NONE))) |
	       set(spec, "workloadSelector", json_pack("{s:{s:s}}", "labels", "app", e->name));
}

static json_t *spec_json(const struct service_entry *e)
{
	json_t *spec = json_object();
	int r = set(spec, "hosts", texts_json(e->hosts, e->n_hosts));

	r |= e->n_ports > 0 ? set(spec, "ports", ports_json(e)) : 0;
	r |= e->n_addresses > 0 ? set(spec, "addresses", addresses_json(e)) : 0;
	r |= e->n_endpoints > 0 ? set(spec, "endpoints", endpoints_json(e)) : 0;
	r |= e->n_export_to > 0 ? set(spec, "exportTo", texts_json(e->export_to, e->n_export_to))
				: 0;
	r |= set_resolution(spec, e);
	if (r == 0)
		return spec;
	json_decref(spec);
	return NULL;
}

static json_t *meta_json(const struct service_entry *e)
{
	json_t *meta = json_pack("{s:s, s:s}", "namespace", e->ns, "name", e->name);
	time_t created = (time_t)e->created;
	char text[32];
	struct tm tm;

	if (e->created == INT64_MAX || !gmtime_r(&created, &tm))
		return meta;
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (meta && set(meta, "creationTimestamp", json_string(text)) < 0) {
		json_decref(meta);
		return NULL;
	}
	return meta;
}

json_t *entry_json(const struct service_entry *entry)
{
	return json_pack("{s:s, s:s, s:o, s:o}", "apiVersion", "networking.istio.io/v1", "kind",
			 "ServiceEntry", "metadata", meta_json(entry), "spec", spec_json(entry));
}
