/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Finds the server name in a TLS ClientHello (RFC 8446 4.1.2, RFC 6066 3). Pure: no allocation, no
 * logging, no state. Strict where a doubt could be abused; each leniency is named below.
 */
#include "base/span.h"

enum sniff {
	SNIFF_FOUND,     /* a name, written to ret->name */
	SNIFF_NEED_MORE, /* every byte so far is fine; call again from the start with more */
	SNIFF_NO_NAME,   /* well formed, but names no host */
	SNIFF_NOT,       /* not this protocol at all */
	SNIFF_BAD,       /* this protocol, malformed; ret->why says how */
};

struct tls_hello {
	char name[254];     /* normalised (sniff/host.h), "" unless FOUND */
	char raw_name[256]; /* as it was sent, for the log; "" unless FOUND or an IP literal */
	bool ech;        /* an encrypted_client_hello extension is there (the outer name decides) */
	const char *why; /* static text on BAD, else NULL */
};

/* `in` is all that was read so far, from the first byte of the connection. `max` bounds the whole
 * hello with its record headers (limits.helloBytes): a length that claims more is BAD at once.
 * SNIFF_NOT when the first two bytes are no handshake record's (and it is no SSLv2 hello, which is
 * BAD). Leniencies: any record version 3.x; what follows the hello is not looked at; names of
 * unknown type in server_name are passed over, as servers do. Once it says something else than
 * NEED_MORE, more bytes do not change it.
 */
enum sniff tls_hello_read(struct span in, size_t max, struct tls_hello *ret);
