/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the rules of a table have counted. Any thread; does not log. */
#include <stdint.h>

/* One rule with a counter; borrowed for the call. */
struct nft_counted {
	const char *chain;
	const char *comment; /* "" when none */
	uint64_t packets, bytes;
};

/* -ENOENT; -EINTR: rules changed meanwhile, some may have been missed. -errno. */
int nft_count_rules(uint16_t family, const char *table,
		    void (*each)(void *ctx, const struct nft_counted *rule), void *ctx);
