/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/ipt_rule.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/owned.h"

#define TEXT_(n) #n
#define TEXT(n)  TEXT_(n)

/* One list for each namespace (xt_recent), of at most 100 addresses: the oldest make room. */
#define NEIGHBOURS        "SLUICE-NEIGHBOURS"
#define NEIGHBOUR_TIMEOUT 3600 /* seconds */
#define RECENT(what, whose)                                                                    \
	"recent " what " --name " NEIGHBOURS " --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" \
	" --" whose

#define REPORT(prefix)                                                                             \
	" -m limit --limit " TEXT(PLAN_REPORT_RATE) "/sec --limit-burst " TEXT(                    \
		PLAN_REPORT_BURST) " -j NFLOG --nflog-prefix " prefix                              \
				   " --nflog-group " TEXT(PLAN_NFLOG_GROUP) " --nflog-size " TEXT( \
					   PLAN_REPORT_SNAPLEN)

/* ---- matches ---- */

/* Each can be asked once: a second one is another answer, or nonsense. */
static void set(struct ipt_rule *rule, const char **place, const char *value)
{
	if (*place && strcmp(*place, value) != 0)
		rule->r = -EINVAL;
	*place = value;
}

static void add(struct ipt_rule *rule, const char *extension)
{
	size_t n = strlen(rule->more), room = sizeof(rule->more) - n;

	if ((size_t)snprintf(rule->more + n, room, " -m %s", extension) >= room)
		rule->r = -EINVAL;
}

/* What looks at a transport header stands once in a rule. */
static void add_transport(struct ipt_rule *rule, const char *proto, const char *extension)
{
	if (strstr(rule->more, " -m tcp ") || strstr(rule->more, " -m udp "))
		rule->r = -EINVAL;
	set(rule, &rule->proto, proto);
	add(rule, extension);
}

static void add_types(struct ipt_rule *rule, uint8_t from, uint8_t to)
{
	if (rule->n_types > 0)
		rule->r = -EINVAL;
	set(rule, &rule->proto, "ipv6-icmp");
	for (unsigned type = from; type <= to && rule->n_types < IPT_TYPES_MAX; type++)
		rule->types[rule->n_types++] = (uint8_t)type;
}

static void add_match(struct ipt_rule *rule, const struct plan *plan, enum plan_match match,
		      bool v4)
{
	char text[64];

	switch (match) {
	case PLAN_IN_LO:
		return set(rule, &rule->in, "-i lo");
	case PLAN_IN_NOT_LO:
		return set(rule, &rule->in, "! -i lo");
	case PLAN_OUT_LO:
		return set(rule, &rule->out, "-o lo");
	case PLAN_OUT_NOT_LO:
		return set(rule, &rule->out, "! -o lo");
	case PLAN_CT_LIVE:
		return add(rule, "conntrack --ctstate RELATED,ESTABLISHED");
	case PLAN_CT_REPLY:
		return add(rule, "conntrack --ctdir REPLY");
	case PLAN_CT_NEW:
		return add(rule, "conntrack --ctstate NEW");
	case PLAN_CT_DNAT:
		return add(rule, "conntrack --ctstate DNAT");
	case PLAN_TCP:
		return set(rule, &rule->proto, "tcp");
	case PLAN_TCP_RST:
		return add_transport(rule, "tcp", "tcp --tcp-flags RST RST");
	case PLAN_TCP_NOT_SYN:
		return add_transport(rule, "tcp", "tcp ! --tcp-flags FIN,SYN,RST,ACK SYN");
	case PLAN_DPORT_CAPTURE:
		snprintf(text, sizeof(text), "tcp --dport %u", plan->capture_port);
		return add_transport(rule, "tcp", text);
	case PLAN_ND:
		return add_types(rule, 135, 136);
	case PLAN_MLD_OR_RS:
		return add_types(rule, 131, 133);
	case PLAN_MLD2:
		return add_types(rule, 143, 143);
	case PLAN_HOPLIMIT_255:
		return add(rule, "hl --hl-eq 255");
	case PLAN_SRC_CLUSTER:
		rule->src_cluster = true;
		return;
	case PLAN_DST_CLUSTER:
		rule->dst_cluster = true;
		return;
	case PLAN_DST_LOOPBACK:
		return set(rule, &rule->dst, v4 ? "127.0.0.0/8" : "::1/128");
	case PLAN_DST_LINK:
		return set(rule, &rule->dst, "fe80::/10");
	case PLAN_DST_LINK_GROUP:
		return set(rule, &rule->dst, "ff02::/16");
	case PLAN_DST_NEIGHBOUR:
		return add(rule, RECENT("--rcheck --seconds " TEXT(NEIGHBOUR_TIMEOUT), "rdest"));
	case PLAN_SRC_LOCAL:
		return add(rule, "addrtype --src-type LOCAL");
	case PLAN_SRC_NOT_LOCAL:
		return add(rule, "addrtype ! --src-type LOCAL");
	case PLAN_SRC_ASTRAY:
		return add(rule, "rpfilter --invert");
	case PLAN_QUIC:
		return add_transport(rule, "udp", "udp --dport 443");
	case PLAN_DST_ROUTED:
		add(rule, "addrtype --dst-type UNICAST");
		/* UNICAST of IPv6 is a kind of address there, whoever has it (xt_addrtype.c,
		 * match_type6). */
		if (!v4)
			add(rule, "addrtype ! --dst-type LOCAL,ANYCAST,UNREACHABLE");
		return;
	case PLAN_MATCH_END_:
		break;
	}
	rule->r = -EINVAL;
}

int ipt_rule_make(const struct plan *plan, const struct plan_rule *rule, enum plan_family family,
		  struct ipt_rule *ret)
{
	struct ipt_rule made = {0};

	for (uint32_t m = 1; m < PLAN_MATCH_END_; m <<= 1) {
		if (rule->match & m)
			add_match(&made, plan, (enum plan_match)m, family == PLAN_FAMILY_V4);
	}
	if ((made.src_cluster && made.dst_cluster) || (made.dst_cluster && made.dst))
		made.r = -EINVAL;
	if (made.r < 0)
		return made.r;
	*ret = made;
	return 0;
}

/* ---- lines ---- */

/* iptables-save leaves out what holds every address. */
static bool is_all(const struct cidr *net)
{
	return net->bits == (cidr_is_v4(net) ? 96 : 0);
}

static void print_line(const struct ipt_rule *rule, const char *chain, const struct cidr *net,
		       unsigned type, const char *action, FILE *out)
{
	char text[ADDR_TEXT];

	fprintf(out, "-A %s", chain);
	if (net && is_all(net))
		net = NULL;
	if (net && rule->src_cluster)
		fprintf(out, " -s %s", cidr_print(net, text));
	if (net && rule->dst_cluster)
		fprintf(out, " -d %s", cidr_print(net, text));
	if (rule->dst)
		fprintf(out, " -d %s", rule->dst);
	if (rule->in)
		fprintf(out, " %s", rule->in);
	if (rule->out)
		fprintf(out, " %s", rule->out);
	if (rule->proto)
		fprintf(out, " -p %s", rule->proto);
	if (type > 0)
		fprintf(out, " -m icmp6 --icmpv6-type %u", type);
	fprintf(out, "%s%s\n", rule->more, action);
}

void ipt_rule_print(const struct ipt_rule *rule, const char *chain, const struct cidr *net,
		    const char *action, FILE *out)
{
	if (rule->n_types == 0)
		print_line(rule, chain, net, 0, action, out);
	for (size_t i = 0; i < rule->n_types; i++)
		print_line(rule, chain, net, rule->types[i], action, out);
}

/* What may pass goes back to the built-in chain, where the rules of others have their say: ACCEPT
 * would be the end of the table.
 */
const char *ipt_action(const struct plan *plan, enum plan_action action, enum plan_family family,
		       char buf[static IPT_ACTION_MAX])
{
	switch (action) {
	case PLAN_ACTION_ACCEPT:
		return " -j RETURN";
	case PLAN_ACTION_REDIRECT:
		snprintf(buf, IPT_ACTION_MAX, " -j REDIRECT --to-ports %u", plan->capture_port);
		return buf;
	case PLAN_ACTION_RESET:
		return " -j REJECT --reject-with tcp-reset";
	case PLAN_ACTION_PROHIBIT:
		return family == PLAN_FAMILY_V4 ? " -j REJECT --reject-with icmp-admin-prohibited"
						: " -j REJECT --reject-with icmp6-adm-prohibited";
	case PLAN_ACTION_DROP:
		return " -j DROP";
	case PLAN_ACTION_LEARN:
		return " -m " RECENT("--set", "rsource");
	case PLAN_ACTION_REPORT_REFUSED:
		return REPORT(PLAN_PREFIX_REFUSED);
	case PLAN_ACTION_REPORT_BYPASS:
		return REPORT(PLAN_PREFIX_BYPASS);
	case PLAN_ACTION_N_:
		break;
	}
	return NULL;
}
