/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A short memory for what took processes to find out: bytes that were once found to be good. It
 * holds a few, because pods of a node hold the same rules. Any thread.
 */
#include <stdbool.h>
#include <stddef.h>

bool ipt_known(const char *bytes, size_t n);

/* Keeps a copy, in place of those that were asked for longest ago; does nothing when it is too
 * large or there is no memory.
 */
void ipt_known_add(const char *bytes, size_t n);
