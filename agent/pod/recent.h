/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Remembers what was said lately, so that it is said once a minute and not once a packet. Bounded:
 * peers choose the keys, and none of their choices makes it slower. Pure but for memory; one
 * thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECENT_KEY_MAX 64

struct recent;

/* At most `max` keys (1 to 65535) are remembered, each for `for_ms`. Memory grows with what is
 * remembered, some 100 bytes a key. -ENOMEM, -EINVAL.
 */
int recent_new(struct recent **ret, size_t max, uint64_t for_ms);
void recent_free(struct recent *recent); /* NULL is fine */

/* True: not said within the time, say it (and it is remembered from now). *ret_times, written in
 * either case, is how often it was asked for in vain since it was said last: 0 the first time. When
 * there is no room, what was said longest ago is forgotten. `len` is 1 to RECENT_KEY_MAX.
 */
bool recent_is_new(struct recent *recent, const void *key, size_t len, uint64_t now_ms,
		   uint64_t *ret_times);
