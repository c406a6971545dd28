/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>

#include "pod/pods_own.h"

static int need_host_ends(const struct pod_links *links, char error[static ENROL_ERROR_MAX])
{
	for (size_t i = 0; i < links->n_links; i++) {
		if (links->links[i].ifindex > 0)
			continue;
		snprintf(error, ENROL_ERROR_MAX,
			 "its interface '%s' (%s) has no end in the node's namespace, so no guard "
			 "can be put around it: set guard: optional to do with rules in the pod",
			 links->links[i].name, links->links[i].kind);
		return -ENODEV;
	}
	return 0;
}

static bool is_anothers(const struct pods *pods, const struct pod *pod, const struct addr *a)
{
	for (const struct pod *p = pods->list; p; p = p->next) {
		if (p != pod && pod_links_has_addr(&p->state.links, a))
			return true;
	}
	return false;
}

static bool is_among(const struct ifaddrs *list, const struct addr *a)
{
	struct addr have;

	for (; list; list = list->ifa_next) {
		if (list->ifa_addr &&
		    addr_from_sockaddr((const struct sockaddr_storage *)list->ifa_addr, &have) ==
			    0 &&
		    addr_ip_equal(&have, a))
			return true;
	}
	return false;
}

/* On a link that came later, a process in the pod can have put whatever address it likes before we
 * looked: not that of another pod, nor the node's. Where the node's cannot be asked for, none is
 * taken.
 */
static void drop_anothers(const struct pods *pods, const struct pod *pod,
			  const struct pod_links *before, struct pod_links *links)
{
	struct ifaddrs *nodes = NULL;
	bool known = getifaddrs(&nodes) == 0;
	size_t n = 0;

	for (size_t i = 0; i < links->n_addrs; i++) {
		const struct addr *a = &links->addrs[i];

		if (pod_links_has_addr(before, a) ||
		    (known && !is_among(nodes, a) &&
		     (addr_is_link_local(a) || !is_anothers(pods, pod, a))))
			links->addrs[n++] = *a;
	}
	links->n_addrs = n;
	if (known)
		freeifaddrs(nodes);
}

int links_look(struct pods *pods, struct pod *pod, int netns_fd, char error[static ENROL_ERROR_MAX])
{
	struct pod_links *links = &pod->state.links, before = *links;
	bool first = links->n_links == 0;
	int r;

	if (!pods->guard || pod->state.by_cgroup)
		return 0;
	r = pod_links_read(netns_fd, links, loop_now_ms(pods->loop), links, error);
	if (r < 0)
		return first && pods->guard_required ? r : 0;
	if (first && pods->guard_required && need_host_ends(links, error) < 0) {
		*links = (struct pod_links){0};
		return -ENODEV;
	}
	if (!first && pod_links_are_more(links, &before))
		drop_anothers(pods, pod, &before, links);
	return pod_links_are_more(links, &before);
}
