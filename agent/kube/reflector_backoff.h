/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How long to wait before trying again: doubling, and never the same for all agents. Pure. */
#include <stdint.h>

struct backoff {
	unsigned min_ms, max_ms;
	unsigned next_ms; /* 0: nothing has failed yet */
};

/* The next wait, between min_ms and max_ms, by `random` longer or shorter. */
unsigned backoff_next(struct backoff *b, uint32_t random);

/* For what is cured by trying again at once, unless it has just failed, too: 0 the first time. */
unsigned backoff_first_free(struct backoff *b, uint32_t random);

static inline void backoff_reset(struct backoff *b)
{
	b->next_ms = 0;
}
