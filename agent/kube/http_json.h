/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* JSON as the API server sends it. Whoever may write one object can put into it what the server
 * takes and jansson refuses - a number beyond 64 bits, a NUL, half a surrogate pair, what is no
 * UTF-8, thousands of brackets - and would make a list of all objects unreadable. Such pieces are
 * blunted: the number becomes a real one, NUL and half a pair U+FFFD, a byte that is no UTF-8 '?',
 * the brackets 0, so that the object is read, and judged, alone. Pure.
 */
#include <jansson.h>
#include <stddef.h>

#define HTTP_JSON_DEPTH 512 /* of what is left as it is */

/* An object or array; NULL with *ret_error. Changes `text` (`len` bytes and a NUL) where it has to.
 */
json_t *http_json_read(char *text, size_t len, json_error_t *ret_error);
