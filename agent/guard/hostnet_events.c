/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/libbpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

#include "abi/hostnet.h"
#include "base/owned.h"
#include "guard/hostnet_own.h"

#define A_WAKE_UP 64 /* events; what is left wakes us again, after others had their turn */

struct hostnet_events {
	struct loop *loop;
	struct watch watch; /* its fd is the ring buffer's */
	struct hostnet_hooks hooks;
	struct ring_buffer *ring;
	unsigned n; /* since we woke up */
};

static struct hostnet_event event_of(const struct hostnet_report *report)
{
	struct hostnet_event event = {
		.cgroup = report->cgroup,
		.proto = report->proto,
		.table_full = report->why == HOSTNET_WHY_FULL,
		.dst.port = ntohs(report->dport),
		.suppressed = report->suppressed,
	};

	memcpy(event.dst.ip, report->dst, sizeof(event.dst.ip));
	return event;
}

/* Below zero ends ring_buffer__consume(), with this one consumed. */
static int on_report(void *ctx, void *data, size_t size)
{
	struct hostnet_events *events = ctx;
	struct hostnet_report report;

	if (size >= sizeof(report) && events->hooks.on_event) {
		struct hostnet_event event;

		memcpy(&report, data, sizeof(report));
		event = event_of(&report);
		events->hooks.on_event(events->hooks.ctx, &event);
	}
	return ++events->n < A_WAKE_UP ? 0 : -EAGAIN;
}

static void on_wake_up(struct watch *w, uint32_t what)
{
	struct hostnet_events *events = CONTAINER_OF(w, struct hostnet_events, watch);

	(void)what;
	events->n = 0;
	ring_buffer__consume(events->ring);
}

void hostnet_events_free(struct hostnet_events *events)
{
	if (!events)
		return;
	if (events->watch.fd >= 0)
		watch_remove(events->loop, &events->watch);
	ring_buffer__free(events->ring);
	free(events);
}

int hostnet_events_new(struct hostnet_events **ret, struct loop *loop, int map_fd,
		       const struct hostnet_hooks *hooks)
{
	struct hostnet_events *events = calloc(1, sizeof(*events));
	int r;

	if (!events)
		return -ENOMEM;
	events->loop = loop;
	events->hooks = *hooks;
	events->watch.fd = -1;
	events->ring = ring_buffer__new(map_fd, on_report, events, NULL);
	if (!events->ring) {
		r = -errno;
		hostnet_events_free(events);
		return r;
	}
	events->watch =
		(struct watch){.fd = ring_buffer__epoll_fd(events->ring), .on_event = on_wake_up};
	r = watch_add(loop, &events->watch, EPOLLIN);
	if (r < 0) {
		events->watch.fd = -1;
		hostnet_events_free(events);
		return r;
	}
	*ret = events;
	return 0;
}
