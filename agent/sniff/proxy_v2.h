/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The PROXY protocol, version 2 (haproxy's proxy-protocol.txt, section 2.2), as our tunnel speaks
 * it. Pure. Strict: bad CRC, overrun, a TLV of ours twice, NUL in a name, short length are BAD.
 */
#include "base/addr.h"
#include "sniff/tls_hello.h" /* enum sniff */

#define PROXY_V2_MAX       1536 /* longest header we write */
#define PROXY_V2_READ_MAX  4096 /* longest header we read (16 + length field) */
#define PROXY_V2_UNIQUE_ID 16

struct proxy_v2 {
	bool local;     /* LOCAL: a health probe; nothing else is meaningful */
	bool has_addrs; /* false for UNSPEC */
	struct addr src, dst;
	char authority[254]; /* checked name, normalised; "" when absent */
	char principal[512]; /* TLV 0xE0; "" when absent */
	char pod[320];       /* TLV 0xE1, "ns/name"; "" when absent */
	uint8_t unique_id[128];
	uint8_t unique_id_len; /* 0 when absent */
	bool has_crc;
	size_t len;      /* of the header: payload starts here */
	const char *why; /* static text on BAD */
};

/* FOUND, NEED_MORE or BAD. A UNIX address family counts as UNSPEC; UDP is BAD. Version 1 is BAD. Of
 * LOCAL only the length is read. An empty AUTHORITY counts as absent, an IP literal in it is BAD;
 * principal and pod are visible ASCII. Unknown TLVs are passed over.
 */
enum sniff proxy_v2_read(struct span in, struct proxy_v2 *ret);

/* Writes a header with all TLVs that are not empty, and CRC32C, to `buf` (PROXY_V2_MAX bytes). Both
 * addresses are written in one family: mapped to IPv6 when they differ. Returns its length, or
 * -EMSGSIZE when a field is longer than its limit. For LOCAL: 16 bytes. `len`, `has_crc` and `why`
 * of `header` are not looked at.
 */
int proxy_v2_write(const struct proxy_v2 *header, uint8_t buf[static PROXY_V2_MAX]);
