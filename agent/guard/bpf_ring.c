/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/bpf_ring.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>

#include "base/owned.h"

#define A_WAKE_UP 64 /* records; what is left wakes us again, after others had their turn */

struct bpf_ring {
	struct loop *loop;
	struct watch watch; /* its fd is the ring buffer's */
	struct ring_buffer *buffer;
	size_t size;
	void (*on_record)(void *ctx, const void *record);
	void *ctx;
	unsigned n; /* since we woke up */
};

/* Below zero ends ring_buffer__consume(), with this one consumed. */
static int on_sample(void *ctx, void *data, size_t size)
{
	struct bpf_ring *ring = ctx;

	if (size >= ring->size)
		ring->on_record(ring->ctx, data);
	return ++ring->n < A_WAKE_UP ? 0 : -EAGAIN;
}

static void on_wake_up(struct watch *w, uint32_t what)
{
	struct bpf_ring *ring = CONTAINER_OF(w, struct bpf_ring, watch);

	(void)what;
	ring->n = 0;
	ring_buffer__consume(ring->buffer);
}

void bpf_ring_free(struct bpf_ring *ring)
{
	if (!ring)
		return;
	if (ring->watch.fd >= 0)
		watch_remove(ring->loop, &ring->watch);
	ring_buffer__free(ring->buffer);
	free(ring);
}

int bpf_ring_new(struct bpf_ring **ret, struct loop *loop, int map_fd, size_t size,
		 void (*on_record)(void *ctx, const void *record), void *ctx)
{
	struct bpf_ring *ring = malloc(sizeof(*ring));
	int r;

	if (!ring)
		return -ENOMEM;
	*ring = (struct bpf_ring){
		.loop = loop, .watch.fd = -1, .size = size, .on_record = on_record, .ctx = ctx};
	ring->buffer = ring_buffer__new(map_fd, on_sample, ring, NULL);
	if (!ring->buffer) {
		r = -errno;
		bpf_ring_free(ring);
		return r;
	}
	ring->watch =
		(struct watch){.fd = ring_buffer__epoll_fd(ring->buffer), .on_event = on_wake_up};
	r = watch_add(loop, &ring->watch, EPOLLIN);
	if (r < 0) {
		ring->watch.fd = -1;
		bpf_ring_free(ring);
		return r;
	}
	*ret = ring;
	return 0;
}
