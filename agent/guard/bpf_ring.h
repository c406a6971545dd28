/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Records that a BPF program puts into its ring buffer, on a loop. The loop's thread. */
#include <stddef.h>

#include "net/loop.h"

struct bpf_ring;

/* `on_record` gets each record, of at least `size` bytes, in place and aligned to 8 until it
 * returns; shorter ones are left out. The map's descriptor is borrowed. -errno.
 */
int bpf_ring_new(struct bpf_ring **ret, struct loop *loop, int map_fd, size_t size,
		 void (*on_record)(void *ctx, const void *record), void *ctx);
void bpf_ring_free(struct bpf_ring *ring); /* not from its callback; NULL is fine */
