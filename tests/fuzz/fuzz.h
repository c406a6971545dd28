/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What every fuzz target defines, and how it says that a promise was broken: by dying, so that
 * libFuzzer and replay.c both see it. NDEBUG does not switch it off.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(promise)         \
	do {                     \
		if (!(promise))  \
			abort(); \
	} while (0)
