/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* UTF-8 as RFC 3629 has it, for everything that quotes a peer. Pure, any thread. */
#include <stddef.h>
#include <stdint.h>

/* U+FFFD, which stands for each byte that is no part of a character. */
#define UTF8_REPLACEMENT "\xef\xbf\xbd"

/* Length (1 to 4) of the character at the start of `p`; 0 when there is none: a stray or missing
 * continuation byte, an overlong form, a surrogate, beyond U+10FFFF, or `n` is 0.
 */
size_t utf8_step(const uint8_t *p, size_t n);
