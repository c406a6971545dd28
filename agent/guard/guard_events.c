/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/libbpf.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/owned.h"
#include "guard/guard_ebpf.h"

#define A_WAKE_UP 64 /* events; what is left wakes us again, after others had their turn */

struct guard_events {
	struct loop *loop;
	struct watch watch; /* its fd is the ring buffer's */
	struct guard_hooks hooks;
	struct ring_buffer *ring;
	unsigned n; /* since we woke up */
};

/* Below zero ends ring_buffer__consume(), with this one consumed. */
static int on_event(void *ctx, void *data, size_t size)
{
	struct guard_events *events = ctx;
	struct guard_event event;

	if (size >= sizeof(event)) {
		memcpy(&event, data, sizeof(event));
		events->hooks.on_event(events->hooks.ctx, &event);
	}
	return ++events->n < A_WAKE_UP ? 0 : -EAGAIN;
}

static void on_wake_up(struct watch *w, uint32_t what)
{
	struct guard_events *events = CONTAINER_OF(w, struct guard_events, watch);

	(void)what;
	events->n = 0;
	ring_buffer__consume(events->ring);
}

void guard_events_free(struct guard_events *events)
{
	if (!events)
		return;
	if (events->watch.fd >= 0)
		watch_remove(events->loop, &events->watch);
	ring_buffer__free(events->ring);
	free(events);
}

int guard_events_new(struct guard_events **ret, struct loop *loop, int map_fd,
		     const struct guard_hooks *hooks)
{
	struct guard_events *events = calloc(1, sizeof(*events));
	int r;

	if (!events)
		return -ENOMEM;
	events->loop = loop;
	events->hooks = *hooks;
	events->watch.fd = -1;
	events->ring = ring_buffer__new(map_fd, on_event, events, NULL);
	if (!events->ring) {
		r = -errno;
		guard_events_free(events);
		return r;
	}
	events->watch =
		(struct watch){.fd = ring_buffer__epoll_fd(events->ring), .on_event = on_wake_up};
	r = watch_add(loop, &events->watch, EPOLLIN);
	if (r < 0) {
		events->watch.fd = -1;
		guard_events_free(events);
		return r;
	}
	*ret = events;
	return 0;
}
