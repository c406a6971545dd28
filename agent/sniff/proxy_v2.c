/* SPDX-License-Identifier: Apache-2.0 */
#include "sniff/proxy_v2.h"

#include <errno.h>

#include "sniff/host.h"

#define SIGNATURE_LEN 12
#define HEADER_LEN    16 /* with version, family and length */
#define UNIX_LEN      216
#define CRC_LEN       4

enum {
	FAMILY_UNSPEC = 0x00,
	FAMILY_TCP4 = 0x11,
	FAMILY_UDP4 = 0x12,
	FAMILY_TCP6 = 0x21,
	FAMILY_UDP6 = 0x22,
	FAMILY_UNIX = 0x31,
};

enum {
	VERSION_LOCAL = 0x20,
	VERSION_PROXY = 0x21,
};

enum tlv {
	TLV_AUTHORITY = 0x02,
	TLV_CRC32C = 0x03,
	TLV_UNIQUE_ID = 0x05,
	TLV_PRINCIPAL = 0xe0,
	TLV_POD = 0xe1,
};

static const uint8_t signature[SIGNATURE_LEN] = "\r\n\r\n\0\r\nQUIT\n";

static enum sniff bad(struct proxy_v2 *ret, const char *why)
{
	ret->why = why;
	return SNIFF_BAD;
}

/* RFC 3720 B.4 (Castagnoli), reflected, half a byte a step. Start with 0; feed on with what it
 * gave.
 */
static uint32_t crc32c(uint32_t crc, struct span in)
{
	static const uint32_t table[16] = {
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
		0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
		0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};

	crc = ~crc;
	for (size_t i = 0; i < in.len; i++) {
		crc ^= in.p[i];
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return ~crc;
}

/* ---- reading ---- */

static bool cut_addrs(struct span *in, size_t ip_len, struct proxy_v2 *ret)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	struct addr *const both[] = {&ret->src, &ret->dst};
	uint64_t port;
	struct span ip;

	for (size_t i = 0; i < 2; i++) {
		if (!span_cut(in, ip_len, &ip))
			return false;
		memcpy(both[i]->ip, mapped, 16 - ip_len);
		memcpy(both[i]->ip + 16 - ip_len, ip.p, ip_len);
	}
	for (size_t i = 0; i < 2; i++) {
		if (!span_cut_num(in, 2, &port))
			return false;
		both[i]->port = (uint16_t)port;
	}
	ret->has_addrs = true;
	return true;
}

static const char *addresses(uint8_t family, struct span *in, struct proxy_v2 *ret)
{
	struct span skipped;
	bool enough;

	switch (family) {
	case FAMILY_UNSPEC:
		return NULL;
	case FAMILY_TCP4:
		enough = cut_addrs(in, 4, ret);
		break;
	case FAMILY_TCP6:
		enough = cut_addrs(in, 16, ret);
		break;
	case FAMILY_UNIX:
		enough = span_cut(in, UNIX_LEN, &skipped);
		break;
	case FAMILY_UDP4:
	case FAMILY_UDP6:
		return "UDP on a stream";
	default:
		return "unknown address family";
	}
	return enough ? NULL : "shorter than its addresses";
}

static const char *read_authority(struct span value, struct proxy_v2 *ret)
{
	struct span name;

	if (value.len == 0)
		return NULL;
	switch (host_normalise(value, ret->authority, &name)) {
	case HOST_NAME:
		return NULL;
	case HOST_LITERAL:
		ret->authority[0] = '\0';
		return "authority is an IP address";
	case HOST_BAD:
		break;
	}
	ret->authority[0] = '\0';
	return "authority is no host name";
}

static const char *read_text(struct span value, char *buf, size_t size)
{
	if (value.len >= size)
		return "name too long";
	for (size_t i = 0; i < value.len; i++) {
		if (value.p[i] <= ' ' || value.p[i] > '~')
			return "byte that no name has";
	}
	if (value.len > 0)
		memcpy(buf, value.p, value.len);
	buf[value.len] = '\0';
	return NULL;
}

static const char *read_unique_id(struct span value, struct proxy_v2 *ret)
{
	if (value.len > sizeof(ret->unique_id))
		return "unique id over 128 bytes";
	if (value.len > 0)
		memcpy(ret->unique_id, value.p, value.len);
	ret->unique_id_len = (uint8_t)value.len;
	return NULL;
}

/* Over the whole header, with zeros in place of the checksum itself. */
static const char *check_crc(struct span header, struct span value, struct proxy_v2 *ret)
{
	static const uint8_t zeros[CRC_LEN];
	struct span rest = header, before, own = value;
	uint64_t wanted;
	uint32_t crc;

	if (value.len != CRC_LEN || !span_cut_num(&own, CRC_LEN, &wanted))
		return "CRC32C is not 4 bytes long";
	if (!span_cut(&rest, (size_t)(value.p - header.p), &before) ||
	    !span_cut(&rest, CRC_LEN, &own))
		return "TLVs overrun the header";
	crc = crc32c(0, before);
	crc = crc32c(crc, (struct span){zeros, CRC_LEN});
	crc = crc32c(crc, rest);
	if (crc != wanted)
		return "wrong CRC32C";
	ret->has_crc = true;
	return NULL;
}

/* One bit for each TLV that may come once only. */
static unsigned once_bit(uint64_t type)
{
	switch (type) {
	case TLV_AUTHORITY:
		return 1;
	case TLV_CRC32C:
		return 2;
	case TLV_UNIQUE_ID:
		return 4;
	case TLV_PRINCIPAL:
		return 8;
	case TLV_POD:
		return 16;
	default:
		return 0;
	}
}

static const char *read_tlv(struct span header, uint64_t type, struct span value,
			    struct proxy_v2 *ret)
{
	switch (type) {
	case TLV_AUTHORITY:
		return read_authority(value, ret);
	case TLV_CRC32C:
		return check_crc(header, value, ret);
	case TLV_UNIQUE_ID:
		return read_unique_id(value, ret);
	case TLV_PRINCIPAL:
		return read_text(value, ret->principal, sizeof(ret->principal));
	case TLV_POD:
		return read_text(value, ret->pod, sizeof(ret->pod));
	default:
		return NULL;
	}
}

static const char *tlvs(struct span header, struct span rest, struct proxy_v2 *ret)
{
	unsigned seen = 0;

	while (rest.len > 0) {
		const char *why;
		struct span value;
		uint64_t type;

		if (!span_cut_num(&rest, 1, &type) || !span_cut_vec(&rest, 2, &value))
			return "TLVs overrun the header";
		if (seen & once_bit(type))
			return "a TLV twice";
		seen |= once_bit(type);
		why = read_tlv(header, type, value, ret);
		if (why)
			return why;
	}
	return NULL;
}

/* The 16 bytes that every header has, each judged as soon as it is there. */
static enum sniff prologue(struct span *in, struct proxy_v2 *ret, uint8_t *ret_family,
			   size_t *ret_len)
{
	struct span fixed, seen = *in;
	uint64_t len;

	if (seen.len > 0 &&
	    memcmp(seen.p, signature, seen.len < SIGNATURE_LEN ? seen.len : SIGNATURE_LEN) != 0)
		return bad(ret, memcmp(seen.p, "PROXY ", seen.len < 6 ? seen.len : 6) == 0
					? "PROXY version 1"
					: "no PROXY signature");
	if (seen.len > 12 && seen.p[12] != VERSION_LOCAL && seen.p[12] != VERSION_PROXY)
		return bad(ret, "unknown version or command");
	if (!span_cut(in, HEADER_LEN - 2, &fixed) || !span_cut_num(in, 2, &len))
		return SNIFF_NEED_MORE;
	if (HEADER_LEN + len > PROXY_V2_READ_MAX)
		return bad(ret, "header too long");
	ret->local = fixed.p[12] == VERSION_LOCAL;
	*ret_family = fixed.p[13];
	*ret_len = (size_t)len;
	return SNIFF_FOUND;
}

enum sniff proxy_v2_read(struct span in, struct proxy_v2 *ret)
{
	struct span rest = in, body;
	uint8_t family;
	enum sniff r;
	size_t len;

	*ret = (struct proxy_v2){0};
	r = prologue(&rest, ret, &family, &len);
	if (r != SNIFF_FOUND)
		return r;
	if (!span_cut(&rest, len, &body))
		return SNIFF_NEED_MORE;
	ret->len = HEADER_LEN + len;
	if (ret->local)
		return SNIFF_FOUND;
	ret->why = addresses(family, &body, ret);
	if (!ret->why)
		ret->why = tlvs((struct span){in.p, ret->len}, body, ret);
	return ret->why ? SNIFF_BAD : SNIFF_FOUND;
}

/* ---- writing ---- */

struct writer {
	uint8_t *p;
	size_t len;
};

static void put(struct writer *w, const void *bytes, size_t n)
{
	if (n > 0)
		memcpy(w->p + w->len, bytes, n);
	w->len += n;
}

static void put_num(struct writer *w, size_t width, uint32_t n)
{
	for (size_t i = width; i-- > 0;)
		w->p[w->len++] = (uint8_t)(n >> (8 * i));
}

static void put_tlv(struct writer *w, enum tlv type, const void *value, size_t n)
{
	if (n == 0)
		return;
	put_num(w, 1, type);
	put_num(w, 2, (uint32_t)n);
	put(w, value, n);
}

static void put_addrs(struct writer *w, const struct proxy_v2 *header)
{
	size_t skip = addr_is_v4(&header->src) && addr_is_v4(&header->dst) ? 12 : 0;

	put(w, header->src.ip + skip, 16 - skip);
	put(w, header->dst.ip + skip, 16 - skip);
	put_num(w, 2, header->src.port);
	put_num(w, 2, header->dst.port);
}

static uint8_t family_of(const struct proxy_v2 *header)
{
	if (header->local || !header->has_addrs)
		return FAMILY_UNSPEC;
	return addr_is_v4(&header->src) && addr_is_v4(&header->dst) ? FAMILY_TCP4 : FAMILY_TCP6;
}

static void put_tlvs(struct writer *w, const struct proxy_v2 *header)
{
	static const uint8_t zeros[CRC_LEN];

	put_tlv(w, TLV_AUTHORITY, header->authority, strlen(header->authority));
	put_tlv(w, TLV_UNIQUE_ID, header->unique_id, header->unique_id_len);
	put_tlv(w, TLV_PRINCIPAL, header->principal, strlen(header->principal));
	put_tlv(w, TLV_POD, header->pod, strlen(header->pod));
	put_tlv(w, TLV_CRC32C, zeros, sizeof(zeros)); /* the last, see proxy_v2_write() */
}

static bool fits(const struct proxy_v2 *header)
{
	return memchr(header->authority, '\0', sizeof(header->authority)) &&
	       memchr(header->principal, '\0', sizeof(header->principal)) &&
	       memchr(header->pod, '\0', sizeof(header->pod)) &&
	       header->unique_id_len <= sizeof(header->unique_id);
}

_Static_assert(HEADER_LEN + 36 + 5 * 3 + sizeof(((struct proxy_v2 *)0)->authority) +
			       sizeof(((struct proxy_v2 *)0)->principal) +
			       sizeof(((struct proxy_v2 *)0)->pod) +
			       sizeof(((struct proxy_v2 *)0)->unique_id) + CRC_LEN <=
		       PROXY_V2_MAX,
	       "whatever fits its fields fits the header");

int proxy_v2_write(const struct proxy_v2 *header, uint8_t buf[static PROXY_V2_MAX])
{
	struct writer w = {.p = buf}, at;

	if (!header->local && !fits(header))
		return -EMSGSIZE;
	put(&w, signature, sizeof(signature));
	put_num(&w, 1, header->local ? VERSION_LOCAL : VERSION_PROXY);
	put_num(&w, 1, family_of(header));
	put_num(&w, 2, 0); /* the length, below */
	if (header->local)
		return (int)w.len;
	if (header->has_addrs)
		put_addrs(&w, header);
	put_tlvs(&w, header);

	at = (struct writer){.p = buf, .len = HEADER_LEN - 2};
	put_num(&at, 2, (uint32_t)(w.len - HEADER_LEN));
	at.len = w.len - CRC_LEN;
	put_num(&at, CRC_LEN, crc32c(0, (struct span){buf, w.len}));
	return (int)w.len;
}
