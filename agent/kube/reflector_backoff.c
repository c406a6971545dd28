/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/reflector_backoff.h"

unsigned backoff_next(struct backoff *b, uint32_t random)
{
	unsigned base = b->next_ms ?: b->min_ms;
	unsigned ms = base + random % (base / 2 + 1);

	b->next_ms = base < b->max_ms / 2 ? base * 2 : b->max_ms;
	return ms <= b->max_ms ? ms : b->max_ms - random % (b->max_ms / 4 + 1);
}

unsigned backoff_first_free(struct backoff *b, uint32_t random)
{
	if (b->next_ms > 0)
		return backoff_next(b, random);
	b->next_ms = b->min_ms;
	return 0;
}
