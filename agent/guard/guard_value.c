/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "guard/guard_ebpf.h"
#include "guard/node_link.h"

int guard_pod_value(const struct guard_pod_at *pod, unsigned buckets, struct guard_pod *ret)
{
	struct node_link end, upper;
	int r = node_link_read(pod->ifindex, &end);

	upper = end;
	if (r == 0 && end.bridge)
		r = node_link_read(end.bridge, &upper);
	if (r < 0)
		return r;
	*ret = (struct guard_pod){
		.flags = (pod->steer ? GUARD_POD_STEER : 0) | (pod->dhcp ? GUARD_POD_DHCP : 0),
		.buckets = buckets,
		.upper = end.bridge ? end.bridge : pod->ifindex,
	};
	memcpy(ret->mac, end.mac, sizeof(ret->mac));
	memcpy(ret->upper_mac, upper.mac, sizeof(ret->upper_mac));
	if (end.bridge)
		memcpy(ret->pod_mac, pod->mac, sizeof(ret->pod_mac));
	return 0;
}
