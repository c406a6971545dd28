/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* SipHash-1-3: a keyed hash for tables whose keys outsiders choose. Without the key nobody can make
 * names that collide. Pure, any thread.
 */
#include <stdint.h>

#include "base/span.h"

struct siphash_key {
	uint64_t k[2];
};

uint64_t siphash13(const struct siphash_key *key, struct span in);
