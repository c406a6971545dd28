/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The interfaces of a pod, seen from inside and from the node. Any thread; does not log. */
#include "guard/pod_links.h"

#define HOST_LINK_ERROR_MAX 256
/* Reads them by netlink: enters the pod's namespace for its links and addresses, and finds each
 * veth's peer by IFLA_LINK and IFLA_LINK_NETNSID in the calling thread's. A link without a peer in
 * this namespace (ipvlan, macvlan, SR-IOV; a veth to elsewhere) has ifindex 0: the caller decides
 * whether that will do.
 *
 * `known` is what was read before, all zero for the first time; afterwards processes may run in the
 * pod that add what they like. So its links stay for as long as their peers are there, wherever the
 * pod has put its own ends, and so do addresses, seen or not, until one of those links is gone. Of
 * other addresses only those are taken that are on a link whose peer came since, until that is
 * closed (open_until_ms). `ret` may be `known`.
 *
 * What a pod makes can also be too much to read, or change all the time: then links whose peers
 * came since are found by these, and have no addresses.
 *
 * `now_ms`: CLOCK_MONOTONIC. -ENODEV when the pod has no interface but `lo`; -E2BIG beyond the
 * bounds; -errno, each with what is wrong, and what to do, in `error`.
 */
int pod_links_read(int netns_fd, const struct pod_links *known, uint64_t now_ms,
		   struct pod_links *ret, char error[static HOST_LINK_ERROR_MAX]);
