/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/http_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_MIN  ((size_t)4096)
#define ROOM_IDLE ((size_t)256 * 1024) /* more is given back once all lines are read */

static void drop_read(struct http_text *text)
{
	if (text->read == 0)
		return;
	text->len -= text->read;
	text->scanned -= text->read;
	if (text->len == 0 && text->room > ROOM_IDLE) {
		http_text_done(text);
		return;
	}
	memmove(text->p, text->p + text->read, text->len + 1);
	text->read = 0;
}

static int make_room(struct http_text *text, size_t need)
{
	size_t room = text->room ?: ROOM_MIN;
	char *p;

	while (room < need)
		room *= 2;
	if (room == text->room)
		return 0;
	p = realloc(text->p, room);
	if (!p)
		return -ENOMEM;
	text->p = p;
	text->room = room;
	return 0;
}

int http_text_add(struct http_text *text, const char *p, size_t len, size_t max)
{
	int r;

	drop_read(text);
	if (len > max || text->len > max - len)
		return -EMSGSIZE;
	r = make_room(text, text->len + len + 1);
	if (r < 0)
		return r;
	memcpy(text->p + text->len, p, len);
	text->len += len;
	text->p[text->len] = '\0';
	return 0;
}

bool http_text_line(struct http_text *text, char **ret, size_t *ret_len)
{
	char *end = NULL, *start;

	if (text->p)
		end = memchr(text->p + text->scanned, '\n', text->len - text->scanned);
	if (!end) {
		text->scanned = text->len;
		return false;
	}
	start = text->p + text->read;
	*end = '\0';
	*ret = start;
	*ret_len = (size_t)(end - start);
	text->read = text->scanned = (size_t)(end - text->p) + 1;
	return true;
}

char *http_text_rest(struct http_text *text, size_t *ret_len)
{
	*ret_len = text->len - text->read;
	return text->p ? text->p + text->read : NULL;
}

void http_text_done(struct http_text *text)
{
	free(text->p);
	*text = (struct http_text){0};
}
