/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/nflog.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/owned.h"
#include "redirect/plan.h"

#define PACKET_MESSAGE (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET)

#define EXTENSIONS_MAX 16 /* a packet with more of them is as well described by the last */

/* ---- netlink: lengths and types are in the machine's order, pieces padded to 4 bytes ---- */

/* Cuts `n` bytes and the padding behind them, which the last piece may lack. */
static bool cut_padded(struct span *in, size_t n, struct span *ret)
{
	struct span padding;

	if (!span_cut(in, n, ret))
		return false;
	n = NLMSG_ALIGN(n) - n;
	return span_cut(in, n < in->len ? n : in->len, &padding);
}

static bool cut_message(struct span *in, struct nlmsghdr *ret_header, struct span *ret_body)
{
	struct span message, head;

	if (in->len < sizeof(*ret_header))
		return false;
	memcpy(ret_header, in->p, sizeof(*ret_header));
	if (!cut_padded(in, ret_header->nlmsg_len, &message) ||
	    !span_cut(&message, sizeof(*ret_header), &head))
		return false;
	*ret_body = message;
	return true;
}

static bool cut_attr(struct span *in, uint16_t *ret_type, struct span *ret_value)
{
	struct span attr, head;
	struct nlattr h;

	if (in->len < sizeof(h))
		return false;
	memcpy(&h, in->p, sizeof(h));
	if (!cut_padded(in, h.nla_len, &attr) || !span_cut(&attr, sizeof(h), &head))
		return false;
	*ret_type = h.nla_type & NLA_TYPE_MASK;
	*ret_value = attr;
	return true;
}

static const char *text_of(struct span value)
{
	return value.len > 0 && memchr(value.p, '\0', value.len) ? (const char *)value.p : "";
}

enum nflog nflog_read(struct span *in, struct refused_packet *ret)
{
	struct refused_packet packet = {.prefix = ""};
	struct span body, head, value, data = {0};
	struct nlmsghdr header;
	uint16_t type;

	if (!cut_message(in, &header, &body)) {
		in->len = 0;
		return NFLOG_END;
	}
	if (header.nlmsg_type != PACKET_MESSAGE || !span_cut(&body, sizeof(struct nfgenmsg), &head))
		return NFLOG_OTHER;
	while (cut_attr(&body, &type, &value)) {
		if (type == NFULA_PREFIX)
			packet.prefix = text_of(value);
		else if (type == NFULA_PAYLOAD)
			data = value;
	}
	if (!nflog_read_packet(data, &packet))
		return NFLOG_OTHER;
	*ret = packet;
	return NFLOG_PACKET;
}

/* ---- the packet ---- */

static bool has_ports(uint8_t proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP ||
	       proto == IPPROTO_DCCP || proto == IPPROTO_UDPLITE;
}

static void read_ports(struct span transport, struct refused_packet *p)
{
	uint64_t src, dst;

	if (!has_ports(p->proto) || !span_cut_num(&transport, 2, &src) ||
	    !span_cut_num(&transport, 2, &dst))
		return;
	p->src.port = (uint16_t)src;
	p->dst.port = (uint16_t)dst;
}

static struct addr mapped(struct span v4)
{
	struct addr a = {.ip = {[10] = 0xff, [11] = 0xff}};

	memcpy(a.ip + 12, v4.p, 4);
	return a;
}

/* RFC 791, 3.1 */
static bool read_v4(struct span in, struct refused_packet *p)
{
	struct span head, options;
	size_t len;
	bool first;

	if (!span_cut(&in, 20, &head))
		return false;
	len = (size_t)(head.p[0] & 15) * 4;
	if (len < 20)
		return false;
	p->proto = head.p[9];
	p->src = mapped((struct span){head.p + 12, 4});
	p->dst = mapped((struct span){head.p + 16, 4});
	first = (head.p[6] & 0x1f) == 0 && head.p[7] == 0;
	if (first && span_cut(&in, len - 20, &options))
		read_ports(in, p);
	return true;
}

/* Cuts an extension header; false when `proto` is none, or it is not all there. */
static bool cut_extension(struct span *in, uint8_t proto, uint8_t *ret_next, bool *ret_later)
{
	struct span head;
	size_t len;

	if (in->len < 8)
		return false;
	switch (proto) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
		len = (size_t)(in->p[1] + 1) * 8; /* RFC 8200, 4.3 */
		break;
	case IPPROTO_AH:
		len = (size_t)(in->p[1] + 2) * 4; /* RFC 4302, 2.2 */
		break;
	case IPPROTO_FRAGMENT:
		*ret_later = (in->p[2] << 8 | in->p[3]) >> 3 != 0; /* RFC 8200, 4.5 */
		len = 8;
		break;
	default:
		return false;
	}
	*ret_next = in->p[0];
	return span_cut(in, len, &head);
}

/* RFC 8200, 3 */
static bool read_v6(struct span in, struct refused_packet *p)
{
	bool later = false;
	struct span head;

	if (!span_cut(&in, 40, &head))
		return false;
	p->proto = head.p[6];
	memcpy(p->src.ip, head.p + 8, 16);
	memcpy(p->dst.ip, head.p + 24, 16);
	for (int i = 0; i < EXTENSIONS_MAX && !later; i++) {
		uint8_t next = 0;

		if (!cut_extension(&in, p->proto, &next, &later))
			break;
		p->proto = next;
	}
	if (!later)
		read_ports(in, p);
	return true;
}

bool nflog_read_packet(struct span packet, struct refused_packet *ret)
{
	struct refused_packet p = {.prefix = ret->prefix};
	uint8_t version = packet.len > 0 ? packet.p[0] >> 4 : 0;

	if (version == 4 ? !read_v4(packet, &p) : version != 6 || !read_v6(packet, &p))
		return false;
	*ret = p;
	return true;
}

/* ---- words ---- */

enum reason nflog_reason(const struct refused_packet *packet)
{
	return strcmp(packet->prefix, PLAN_PREFIX_REFUSED) == 0 ? REASON_PROTOCOL_REFUSED
								: REASON_BYPASS_ATTEMPT;
}

const char *nflog_protocol_str(uint8_t proto, uint16_t dport, char buf[static NFLOG_PROTOCOL_MAX])
{
	static const char *const words[256] = {
		[IPPROTO_ICMP] = "ICMP",       [IPPROTO_IGMP] = "IGMP",     [IPPROTO_IPIP] = "IPIP",
		[IPPROTO_TCP] = "TCP",         [IPPROTO_UDP] = "UDP",       [IPPROTO_DCCP] = "DCCP",
		[IPPROTO_IPV6] = "6in4",       [IPPROTO_GRE] = "GRE",       [IPPROTO_ESP] = "ESP",
		[IPPROTO_AH] = "AH",           [IPPROTO_ICMPV6] = "ICMPv6", [IPPROTO_SCTP] = "SCTP",
		[IPPROTO_UDPLITE] = "UDPLite",
	};

	if (proto == IPPROTO_UDP && dport == 443)
		return "QUIC";
	if (words[proto])
		return words[proto];
	snprintf(buf, NFLOG_PROTOCOL_MAX, "IP protocol %u", proto);
	return buf;
}
