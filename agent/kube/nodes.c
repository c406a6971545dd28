/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/nodes.h"

#include <stdbool.h>
#include <string.h>

#include "kube/kube_json.h"

size_t node_read(const json_t *node, struct addr ret[static NODE_ADDRS_MAX])
{
	const json_t *list = json_object_get(json_object_get(node, "status"), "addresses");
	size_t n = 0;

	for (size_t i = 0; i < json_array_size(list) && n < NODE_ADDRS_MAX; i++) {
		const json_t *item = json_array_get(list, i);
		const char *type = kube_json_text(item, "type");
		bool is_ip = strcmp(type, "InternalIP") == 0 || strcmp(type, "ExternalIP") == 0;

		if (is_ip && addr_parse_ip(kube_json_text(item, "address"), &ret[n]) == 0)
			n++;
	}
	return n;
}
