/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Bytes that arrive piece by piece, kept whole or cut into lines. Pure. */
#include <stdbool.h>
#include <stddef.h>

/* All zero is empty. */
struct http_text {
	char *p; /* NUL-terminated when not NULL */
	size_t len, room;
	size_t read;    /* how much http_text_line() has given away */
	size_t scanned; /* up to where no line ends */
};

/* -EMSGSIZE beyond `max` bytes not yet given away, -ENOMEM. */
int http_text_add(struct http_text *text, const char *p, size_t len, size_t max);

/* The next line without its end, to be changed at will; valid until the next http_text_add().
 * False: there is no whole line.
 */
bool http_text_line(struct http_text *text, char **ret, size_t *ret_len);

/* What is left behind the last line. */
char *http_text_rest(struct http_text *text, size_t *ret_len);
void http_text_done(struct http_text *text); /* empties it, too */
