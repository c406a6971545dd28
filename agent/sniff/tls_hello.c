/* SPDX-License-Identifier: Apache-2.0 */
#include "sniff/tls_hello.h"

#include "sniff/host.h"

#define RECORD_HEADER    5
#define RECORD_HANDSHAKE 22
#define RECORD_MAX       16384 /* RFC 8446 5.1 */
#define HANDSHAKE_HEADER 4
#define CLIENT_HELLO     1
#define RANDOM_LEN       32
#define SESSION_ID_MAX   32
#define NAME_HOST        0

enum {
	EXT_SERVER_NAME = 0,
	EXT_ALPN = 16,
	EXT_ECH = 0xfe0d,
};

/* Bytes of the hello, read across the record headers that may interrupt them anywhere. */
struct flow {
	struct span piece; /* what is left of the record in hand */
	struct span rest;  /* the records after it, whose headers were checked */
	size_t len;        /* bytes of this vector left, all pieces together */
};

static void flow_next_record(struct flow *f)
{
	struct span header;
	uint64_t len = 0;

	span_cut(&f->rest, RECORD_HEADER - 2, &header);
	span_cut_num(&f->rest, 2, &len);
	if (len > f->rest.len) /* the hello ends within this record */
		len = f->rest.len;
	span_cut(&f->rest, (size_t)len, &f->piece);
}

/* Cuts up to `n` bytes that lie together. Only when f->len > 0. */
static inline struct span flow_piece(struct flow *f, size_t n)
{
	struct span got = {0};

	if (f->piece.len == 0)
		flow_next_record(f);
	span_cut(&f->piece, n < f->piece.len ? n : f->piece.len, &got);
	f->len -= got.len;
	return got;
}

/* `buf` may be NULL: the bytes are passed over. */
static inline bool flow_cut(struct flow *f, size_t n, uint8_t *buf)
{
	if (n > f->len)
		return false;
	while (n > 0) {
		struct span got = flow_piece(f, n);

		if (buf) {
			memcpy(buf, got.p, got.len);
			buf += got.len;
		}
		n -= got.len;
	}
	return true;
}

static bool flow_cut_num(struct flow *f, size_t width, size_t *ret)
{
	uint8_t bytes[2];
	size_t n = 0;

	if (!flow_cut(f, width, bytes))
		return false;
	for (size_t i = 0; i < width; i++)
		n = n << 8 | bytes[i];
	*ret = n;
	return true;
}

static bool flow_cut_vec(struct flow *f, size_t width, struct flow *ret)
{
	size_t n;

	if (!flow_cut_num(f, width, &n) || n > f->len)
		return false;
	*ret = *f;
	ret->len = n;
	return flow_cut(f, n, NULL);
}

static enum sniff bad(struct tls_hello *ret, const char *why)
{
	ret->why = why;
	return SNIFF_BAD;
}

/* ---- records ---- */

/* The first byte is no handshake record's. */
static enum sniff sslv2_or_not(struct span in, struct tls_hello *ret)
{
	if (!(in.p[0] & 0x80))
		return SNIFF_NOT;
	if (in.len >= 3 && in.p[2] != CLIENT_HELLO)
		return SNIFF_NOT;
	if (in.len < 5)
		return SNIFF_NEED_MORE;
	if ((in.p[3] == 0 && in.p[4] == 2) || in.p[3] == 3)
		return bad(ret, "SSLv2 hello");
	return SNIFF_NOT;
}

/* Cuts a record header, and of its payload what is there. FOUND, or why not. */
static enum sniff record_cut(struct span *in, bool first, size_t *ret_len, struct span *ret_payload,
			     struct tls_hello *ret)
{
	struct span header;
	uint64_t len;

	if (in->len > 0 && in->p[0] != RECORD_HANDSHAKE)
		return first ? sslv2_or_not(*in, ret) : bad(ret, "other record inside the hello");
	if (in->len > 1 && in->p[1] != 3) /* any minor: real clients differ */
		return first ? SNIFF_NOT : bad(ret, "record version");
	if (!span_cut(in, RECORD_HEADER - 2, &header) || !span_cut_num(in, 2, &len))
		return SNIFF_NEED_MORE;
	if (len == 0)
		return bad(ret, "empty record");
	if (len > RECORD_MAX)
		return bad(ret, "record over 16384 bytes");
	*ret_len = (size_t)len;
	span_cut(in, len < in->len ? (size_t)len : in->len, ret_payload);
	return SNIFF_FOUND;
}

/* Goes over as many records as the hello takes. FOUND: all of it is there, *ret_body is what
 * follows the handshake header.
 */
static enum sniff hello_gather(struct span in, size_t max, struct flow *ret_body,
			       struct tls_hello *ret)
{
	size_t need = HANDSHAKE_HEADER, have = 0, n_head = 0, used = 0;
	uint8_t head[HANDSHAKE_HEADER];
	struct span rest = in;

	while (have < need) {
		struct span payload;
		size_t len;
		enum sniff r = record_cut(&rest, have == 0, &len, &payload, ret);

		if (r != SNIFF_FOUND)
			return r;
		used += RECORD_HEADER + len;
		if (used > max)
			return bad(ret, "hello longer than allowed");
		have += payload.len;
		for (size_t i = 0; i < payload.len && n_head < HANDSHAKE_HEADER; i++)
			head[n_head++] = payload.p[i];
		if (n_head > 0 && head[0] != CLIENT_HELLO)
			return bad(ret, "handshake, but no ClientHello");
		if (n_head == HANDSHAKE_HEADER) {
			need = HANDSHAKE_HEADER +
			       ((size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3]);
			if (need > have && in.len - rest.len + need - have > max)
				return bad(ret, "hello longer than allowed");
		}
		if (have < need && payload.len < len)
			return SNIFF_NEED_MORE;
	}
	*ret_body = (struct flow){.rest = in, .len = need};
	flow_cut(ret_body, HANDSHAKE_HEADER, NULL);
	return SNIFF_FOUND;
}

/* ---- the hello itself ---- */

/* FOUND, NO_NAME (no host_name in the list, or an IP literal) or BAD. */
static enum sniff server_name(struct flow ext, struct tls_hello *ret)
{
	struct flow list, name, host = {0};
	struct span raw, normal;
	bool found = false;
	size_t type;

	if (!flow_cut_vec(&ext, 2, &list) || ext.len > 0 || list.len == 0)
		return bad(ret, "server_name: lengths do not add up");
	while (list.len > 0) {
		if (!flow_cut_num(&list, 1, &type) || !flow_cut_vec(&list, 2, &name))
			return bad(ret, "server_name: lengths do not add up");
		if (type != NAME_HOST)
			continue; /* servers pass over types that nobody has defined */
		if (found)
			return bad(ret, "two server names");
		found = true;
		host = name;
	}
	if (!found)
		return SNIFF_NO_NAME;
	if (host.len >= sizeof(ret->raw_name))
		return bad(ret, "host name over 253 bytes");

	raw = (struct span){(const uint8_t *)ret->raw_name, host.len};
	flow_cut(&host, host.len, (uint8_t *)ret->raw_name);
	ret->raw_name[raw.len] = '\0';
	switch (host_normalise(raw, ret->name, &normal)) {
	case HOST_NAME:
		return SNIFF_FOUND;
	case HOST_LITERAL:
		ret->name[0] = '\0';
		return SNIFF_NO_NAME;
	case HOST_BAD:
		break;
	}
	ret->why = host_bad_why(raw);
	ret->name[0] = ret->raw_name[0] = '\0';
	return SNIFF_BAD;
}

static bool alpn_is_good(struct flow ext)
{
	struct flow list, protocol;

	if (!flow_cut_vec(&ext, 2, &list) || ext.len > 0 || list.len == 0)
		return false;
	while (list.len > 0) {
		if (!flow_cut_vec(&list, 1, &protocol) || protocol.len == 0)
			return false;
	}
	return true;
}

static enum sniff extensions(struct flow exts, struct tls_hello *ret)
{
	uint64_t seen[65536 / 64] = {
		0}; /* a list to search would be quadratic in what a peer sends */
	enum sniff r = SNIFF_NO_NAME;

	while (exts.len > 0) {
		struct flow ext;
		size_t type;

		if (!flow_cut_num(&exts, 2, &type) || !flow_cut_vec(&exts, 2, &ext))
			return bad(ret, "extensions: lengths do not add up");
		if (seen[type / 64] >> (type % 64) & 1)
			return bad(ret, type == EXT_SERVER_NAME ? "two server_name extensions"
								: "an extension twice");
		seen[type / 64] |= UINT64_C(1) << (type % 64);

		if (type == EXT_SERVER_NAME)
			r = server_name(ext, ret);
		else if (type == EXT_ALPN && !alpn_is_good(ext))
			return bad(ret, "alpn: lengths do not add up");
		else if (type == EXT_ECH)
			ret->ech = true;
		if (r == SNIFF_BAD)
			return r;
	}
	return r;
}

static enum sniff hello_parse(struct flow body, struct tls_hello *ret)
{
	struct flow session, suites, compression, exts;
	size_t version;

	if (!flow_cut_num(&body, 2, &version) || !flow_cut(&body, RANDOM_LEN, NULL))
		return bad(ret, "hello too short");
	if (version >> 8 != 3)
		return bad(ret, "hello version");
	if (!flow_cut_vec(&body, 1, &session) || session.len > SESSION_ID_MAX)
		return bad(ret, "session id");
	if (!flow_cut_vec(&body, 2, &suites) || suites.len == 0 || suites.len % 2 != 0)
		return bad(ret, "cipher suites");
	if (!flow_cut_vec(&body, 1, &compression) || compression.len == 0)
		return bad(ret, "compression methods");
	if (body.len == 0)
		return SNIFF_NO_NAME; /* TLS 1.0 to 1.2 may leave the extensions out */
	if (!flow_cut_vec(&body, 2, &exts) || body.len > 0)
		return bad(ret, "extensions: lengths do not add up");
	return extensions(exts, ret);
}

enum sniff tls_hello_read(struct span in, size_t max, struct tls_hello *ret)
{
	struct flow body;
	enum sniff r;

	ret->name[0] = ret->raw_name[0] = '\0';
	ret->ech = false;
	ret->why = NULL;

	r = hello_gather(in, max, &body, ret);
	if (r == SNIFF_FOUND)
		r = hello_parse(body, ret);
	else if (r == SNIFF_NEED_MORE && in.len >= max)
		return bad(ret, "hello longer than allowed");
	if (r == SNIFF_BAD)
		ret->name[0] = ret->raw_name[0] = '\0';
	return r;
}
