/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/kube_own.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/owned.h"

#define ADDRS_MAX 65536

/* ---- to JSON ---- */

/* Those of nodes have no port. */
static json_t *addr_json(const struct addr *a)
{
	char text[ADDR_TEXT];

	return json_string(a->port != 0 ? addr_print(a, text) : addr_print_ip(a, text));
}

static json_t *addrs_json(const struct addr_store *store)
{
	json_t *array = json_array();

	for (size_t i = 0; i < store->n_told; i++) {
		if (json_array_append_new(array, addr_json(&store->told[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

static json_t *gateways_json(const struct kube *kube)
{
	json_t *object = json_object();

	for (size_t i = 0; i < kube->n_gateways; i++) {
		const struct gateway_watch *w = &kube->gateways[i];

		if (w->addrs.is_told &&
		    json_object_set_new(object, w->text, addrs_json(&w->addrs)) < 0) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}

json_t *kube_parts_json(const struct kube *kube)
{
	json_t *parts =
		json_pack("{s:o, s:o}", "namespaces", namespace_store_json(&kube->namespaces),
			  "gateways", gateways_json(kube));

	if (parts && kube->nodes.addrs.is_told &&
	    json_object_set_new(parts, "nodes", addrs_json(&kube->nodes.addrs)) < 0) {
		json_decref(parts);
		return NULL;
	}
	return parts;
}

/* ---- and back ---- */

static int parse_addr(const char *text, struct addr *ret)
{
	return addr_parse(text, ret) == 0 ? 0 : addr_parse_ip(text, ret);
}

/* True: there is something to tell. */
static bool restore_addrs(struct addr_store *store, const json_t *array)
{
	size_t n = json_array_size(array), kept = 0;
	OWNED_MEM struct addr *addrs = NULL;

	if (!json_is_array(array) || n > ADDRS_MAX)
		return false;
	addrs = calloc(n + 1, sizeof(*addrs));
	if (!addrs)
		return false;
	for (size_t i = 0; i < n; i++) {
		const char *text = json_string_value(json_array_get(array, i)) ?: "";

		if (parse_addr(text, &addrs[kept]) == 0)
			kept++;
	}
	return addr_store_restore(store, addrs, kept, n) == 0;
}

void kube_parts_restore(struct kube *kube, const json_t *parts)
{
	json_t *namespaces = json_object_get(parts, "namespaces"), *labelled;
	const json_t *gateways = json_object_get(parts, "gateways");
	const char *ns;

	json_object_foreach(namespaces, ns, labelled)
	{
		if (namespace_store_restore(&kube->namespaces, ns, json_is_true(labelled)) < 0)
			log_warn(0, "namespace '%s' of the cache is left out", ns);
	}
	for (size_t i = 0; i < kube->n_gateways; i++) {
		struct gateway_watch *w = &kube->gateways[i];

		w->news = restore_addrs(&w->addrs, json_object_get(gateways, w->text));
	}
	kube->nodes.news = restore_addrs(&kube->nodes.addrs, json_object_get(parts, "nodes"));
}
