/* SPDX-License-Identifier: Apache-2.0 */
#include "sniff/http_field.h"
#include "sniff/http_head.h"

#define DIGITS_MAX   16
#define LINE_MAX_LEN 1024 /* a size with its extensions */
#define TRAILERS_MAX 8192 /* all of them */

/*
 *   SIZE -> PAD -> EXT -> SIZE_LF -> DATA -> DATA_LF -> SIZE ...
 *                            '-(0)-> TRAILER -> NAME -> VALUE -> VALUE_LF -> TRAILER ...
 *                                       '-> END_LF -> END
 */
enum state {
	STATE_SIZE, /* must be 0: where a zeroed reader starts */
	STATE_PAD,  /* white space after the size, which some servers send */
	STATE_EXT,
	STATE_SIZE_LF,
	STATE_DATA,
	STATE_DATA_LF,
	STATE_TRAILER,
	STATE_NAME,
	STATE_VALUE,
	STATE_VALUE_LF,
	STATE_END_LF,
	STATE_END,
	STATE_BAD,
};

static int hex(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum state after_size(uint8_t c)
{
	if (c == ' ' || c == '\t')
		return STATE_PAD;
	if (c == ';')
		return STATE_EXT;
	return c == '\r' ? STATE_SIZE_LF : STATE_BAD;
}

static enum state in_size(struct http_chunked *h, uint8_t c)
{
	int digit = hex(c);

	if (digit < 0)
		return h->digits > 0 ? after_size(c) : STATE_BAD;
	if (++h->digits > DIGITS_MAX)
		return STATE_BAD;
	h->size = h->size << 4 | (uint64_t)digit;
	return STATE_SIZE;
}

static enum state begin_chunk(struct http_chunked *h)
{
	uint64_t size = h->size;

	h->size = 0;
	h->digits = 0;
	h->line = 0;
	if (size > INT64_MAX)
		return STATE_BAD;
	h->left = size;
	return size > 0 ? STATE_DATA : STATE_TRAILER;
}

static enum state want(uint8_t c, uint8_t wanted, enum state next)
{
	return c == wanted ? next : STATE_BAD;
}

/* `c` is of `class`: stay; `end`: go on; else bad. */
static enum state stay(uint8_t c, uint8_t class, enum state here, uint8_t end, enum state next)
{
	if (http_class[c] & class)
		return here;
	return want(c, end, next);
}

static enum state step(struct http_chunked *h, uint8_t c)
{
	switch ((enum state)h->state) {
	case STATE_SIZE:
		return in_size(h, c);
	case STATE_PAD:
		return after_size(c);
	case STATE_EXT:
		return stay(c, HTTP_TEXT, STATE_EXT, '\r', STATE_SIZE_LF);
	case STATE_SIZE_LF:
		return c == '\n' ? begin_chunk(h) : STATE_BAD;
	case STATE_DATA: /* all of the data was seen */
		return want(c, '\r', STATE_DATA_LF);
	case STATE_DATA_LF:
		return want(c, '\n', STATE_SIZE);
	case STATE_TRAILER:
		return stay(c, HTTP_TOKEN, STATE_NAME, '\r', STATE_END_LF);
	case STATE_NAME:
		return stay(c, HTTP_TOKEN, STATE_NAME, ':', STATE_VALUE);
	case STATE_VALUE:
		return stay(c, HTTP_TEXT, STATE_VALUE, '\r', STATE_VALUE_LF);
	case STATE_VALUE_LF:
		return want(c, '\n', STATE_TRAILER);
	case STATE_END_LF:
		return want(c, '\n', STATE_END);
	case STATE_END:
	case STATE_BAD:
		break;
	}
	return STATE_BAD;
}

/* Counts what is no data against its limit: a size line, or the trailers together. */
static bool within_limits(struct http_chunked *h)
{
	if (h->state == STATE_DATA || h->state == STATE_DATA_LF)
		return true;
	return ++h->line <= (h->state < STATE_DATA ? LINE_MAX_LEN : TRAILERS_MAX);
}

enum chunked http_chunked_read(struct http_chunked *c, struct span in, size_t *ret_used)
{
	struct span rest = in, cut = {0};

	while (rest.len > 0 && c->state != STATE_END && c->state != STATE_BAD) {
		if (c->state == STATE_DATA && c->left > 0) {
			span_cut(&rest, c->left < rest.len ? (size_t)c->left : rest.len, &cut);
			c->left -= cut.len;
			continue;
		}
		c->state = within_limits(c) ? (uint8_t)step(c, rest.p[0]) : STATE_BAD;
		if (c->state != STATE_BAD)
			span_cut(&rest, 1, &cut);
	}
	*ret_used = in.len - rest.len;
	if (c->state == STATE_BAD)
		return CHUNKED_BAD;
	if (c->state == STATE_END)
		return CHUNKED_END;
	return c->state == STATE_DATA && c->left > 0 ? CHUNKED_DATA : CHUNKED_MORE;
}
