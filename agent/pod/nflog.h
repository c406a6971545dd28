/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Reads what the kernel's NFLOG sends: netlink messages, and in each the head of a packet that
 * somebody made, cut off somewhere. Pure, any thread.
 */
#include "base/reason.h"
#include "base/span.h"
#include "pod/sentinel.h"

enum nflog {
	NFLOG_PACKET, /* *ret is set; its prefix points into the input */
	NFLOG_OTHER,  /* another message, or a packet that is not IP */
	NFLOG_END,    /* nothing more, or nothing that makes sense: `in` is empty now */
};

/* Cuts the next message off `in`, which is what one recv() gave. */
enum nflog nflog_read(struct span *in, struct refused_packet *ret);

/* Reads the head of an IP packet: all but the prefix. False when it is none. The extension headers
 * of IPv6 are passed over as far as they are there; behind the first fragment there are no ports.
 */
bool nflog_read_packet(struct span packet, struct refused_packet *ret);

/* By the prefix of the rule: REASON_PROTOCOL_REFUSED, or REASON_BYPASS_ATTEMPT, also for prefixes
 * that none of our rules has.
 */
enum reason nflog_reason(const struct refused_packet *packet);

#define NFLOG_PROTOCOL_MAX 32

/* For people: "UDP", "QUIC" (UDP to port 443), "ICMP", "IP protocol 47". Static text or `buf`. */
const char *nflog_protocol_str(uint8_t proto, uint16_t dport, char buf[static NFLOG_PROTOCOL_MAX]);
