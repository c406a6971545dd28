/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/gateways.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "kube/kube_json.h"

/* ---- names ---- */

/* A label of RFC 1123, at the start of `text`; 0: none. */
static size_t label_len(const char *text)
{
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");

	return n == 0 || n > 63 || text[0] == '-' || text[n - 1] == '-' ? 0 : n;
}

int gateway_name_parse(const char *text, struct gateway_name *ret)
{
	size_t service = label_len(text), ns;
	const char *rest;

	if (service == 0 || text[service] != '.')
		return -EINVAL;
	ns = label_len(text + service + 1);
	rest = text + service + 1 + ns;
	if (ns == 0 ||
	    (*rest != '\0' && strcmp(rest, ".svc") != 0 && strncmp(rest, ".svc.", 5) != 0))
		return -EINVAL;
	snprintf(ret->service, sizeof(ret->service), "%.*s", (int)service, text);
	snprintf(ret->ns, sizeof(ret->ns), "%.*s", (int)ns, text + service + 1);
	return 0;
}

/* ---- ports and addresses ---- */

/* 0: none. `name` may be absent where there is one port only. */
static uint16_t port_of(const json_t *ports)
{
	size_t n = json_array_size(ports);
	json_int_t found = 0;

	for (size_t i = 0; i < n; i++) {
		const json_t *port = json_array_get(ports, i);
		const char *protocol = kube_json_text(port, "protocol");
		bool named = strcmp(kube_json_text(port, "name"), GATEWAY_PORT_NAME) == 0;

		if (protocol[0] != '\0' && strcmp(protocol, "TCP") != 0)
			continue;
		if (named || n == 1)
			found = json_integer_value(json_object_get(port, "port"));
		if (named)
			break;
	}
	return found > 0 && found <= UINT16_MAX ? (uint16_t)found : 0;
}

static bool is_link_local(const struct addr *a)
{
	if (addr_is_v4(a))
		return a->ip[12] == 169 && a->ip[13] == 254;
	return a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80;
}

static bool can_be_reached(const struct addr *a)
{
	static const uint8_t zero[16];

	if (addr_is_v4(a))
		return a->ip[12] != 0 && a->ip[12] != 127 && a->ip[12] < 224 && !is_link_local(a);
	/* :: and ::1 */
	return memcmp(a->ip, zero, 15) != 0 && a->ip[0] != 0xff && !is_link_local(a);
}

/* Adds it where it is good and there is room. */
static void add(const char *text, uint16_t port, struct addr *ret, size_t *n)
{
	struct addr a;

	if (*n >= GATEWAY_SLICE_MAX || port == 0 || addr_parse_ip(text, &a) < 0 ||
	    !can_be_reached(&a))
		return;
	a.port = port;
	ret[(*n)++] = a;
}

/* ---- objects ---- */

/* Absent conditions count as ready, as the API has it. */
static bool is_ready(const json_t *endpoint)
{
	const json_t *conditions = json_object_get(endpoint, "conditions");

	return kube_json_bool(conditions, "ready", true) &&
	       !kube_json_bool(conditions, "terminating", false);
}

size_t gateway_slice_read(const json_t *slice, struct addr ret[static GATEWAY_SLICE_MAX])
{
	const json_t *endpoints = json_object_get(slice, "endpoints");
	uint16_t port = port_of(json_object_get(slice, "ports"));
	size_t n = 0;

	for (size_t i = 0; i < json_array_size(endpoints); i++) {
		const json_t *endpoint = json_array_get(endpoints, i);
		const json_t *addresses = json_object_get(endpoint, "addresses");

		/* All addresses of one endpoint are the same pod's: the first will do. An
		 * addressType of FQDN gives what is no address.
		 */
		if (is_ready(endpoint))
			add(json_string_value(json_array_get(addresses, 0)) ?: "", port, ret, &n);
	}
	return n;
}

size_t gateway_endpoints_read(const json_t *endpoints, struct addr ret[static GATEWAY_SLICE_MAX])
{
	const json_t *subsets = json_object_get(endpoints, "subsets");
	size_t n = 0;

	for (size_t i = 0; i < json_array_size(subsets); i++) {
		const json_t *subset = json_array_get(subsets, i);
		const json_t *addresses = json_object_get(subset, "addresses"); /* ready ones */
		uint16_t port = port_of(json_object_get(subset, "ports"));

		for (size_t k = 0; k < json_array_size(addresses); k++)
			add(kube_json_text(json_array_get(addresses, k), "ip"), port, ret, &n);
	}
	return n;
}
