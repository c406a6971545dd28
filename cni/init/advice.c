/* SPDX-License-Identifier: Apache-2.0 */
#include "init/advice.h"

#include <stdio.h>
#include <string.h>

#include "base/owned.h"

#define TEXT_MAX  1024
#define VALUE_MAX 256 /* of a value that is quoted */

/* ---- when ---- */

static bool is_given(const struct init_options *o, enum init_flag flag)
{
	return o->source[flag] != INIT_BY_DEFAULT;
}

static bool is_not(const struct init_options *o, enum init_flag flag, const char *harmless)
{
	return is_given(o, flag) && strcmp(o->value[flag], harmless) != 0;
}

static bool set(const struct init_options *o, enum init_flag flag)
{
	return init_is_set(o, flag);
}

static bool on(const struct init_options *o, enum init_flag flag)
{
	return init_is_on(o, flag);
}

static bool not_our_port(const struct init_options *o, enum init_flag flag)
{
	return is_not(o, flag, "15001");
}

static bool not_all(const struct init_options *o, enum init_flag flag)
{
	return is_not(o, flag, "*");
}

static bool not_all_and_set(const struct init_options *o, enum init_flag flag)
{
	return init_is_set(o, flag) && not_all(o, flag);
}

/* With all networks included, more ports take nothing away. */
static bool ports_alone(const struct init_options *o, enum init_flag flag)
{
	return init_is_set(o, flag) && not_all(o, INIT_INCLUDE_CIDRS);
}

/* ---- what ---- */

static const struct advice {
	enum init_flag flag;
	bool (*applies)(const struct init_options *o, enum init_flag flag);
	enum log_level level;
	const char *text;
} advices[] = {
	{INIT_ENVOY_PORT, not_our_port, LOG_LEVEL_WARNING,
	 "the agent listens on 15001 in every pod, and that is used; keep that port free in the "
	 "pod"},
	{INIT_PROXY_UID, set, LOG_LEVEL_WARNING,
	 "no user is exempt, these are captured like all others; register the hosts that they "
	 "need"},
	{INIT_PROXY_GID, set, LOG_LEVEL_WARNING,
	 "no group is exempt, these are captured like all others; register the hosts that they "
	 "need"},
	{INIT_EXCLUDE_INTERFACES, set, LOG_LEVEL_WARNING,
	 "no interface is exempt; networks that pods are to reach directly belong to clusterCIDRs "
	 "of the agent"},
	{INIT_INCLUDE_CIDRS, not_all, LOG_LEVEL_WARNING,
	 "all networks are captured, not only these; networks that pods are to reach directly "
	 "belong to clusterCIDRs of the agent"},
	{INIT_EXCLUDE_CIDRS, set, LOG_LEVEL_WARNING,
	 "these networks are captured like all others; those that pods are to reach directly "
	 "belong to clusterCIDRs of the agent"},
	{INIT_OUTBOUND_PORTS, ports_alone, LOG_LEVEL_WARNING,
	 "all ports are captured, not only these; register the hosts behind the others"},
	{INIT_OUTBOUND_EXCLUDE_PORTS, set, LOG_LEVEL_WARNING,
	 "these ports are captured like all others; register the hosts behind them"},
	{INIT_VIRT_INTERFACES, set, LOG_LEVEL_WARNING,
	 "what machines behind these interfaces send outside the cluster is refused, not captured; "
	 "give them a pod of their own"},
	{INIT_OWNER_GROUPS, not_all_and_set, LOG_LEVEL_WARNING,
	 "all groups are captured, not only these; register the hosts that the others need"},
	{INIT_OWNER_GROUPS_EXCLUDE, set, LOG_LEVEL_WARNING,
	 "no group is exempt, these are captured like all others; register the hosts that they "
	 "need"},
	{INIT_REDIRECT_DNS, on, LOG_LEVEL_WARNING,
	 "DNS is not captured; name servers in clusterCIDRs of the agent are reached, others are "
	 "refused"},
	{INIT_CAPTURE_ALL_DNS, on, LOG_LEVEL_WARNING,
	 "DNS is not captured; name servers in clusterCIDRs of the agent are reached, others are "
	 "refused"},
	{INIT_SKIP_RULE_APPLY, on, LOG_LEVEL_INFO,
	 "the pod is left as it is until the agent answers"},
	{INIT_TRACE_LOGGING, on, LOG_LEVEL_INFO,
	 "no rule logs; refusals are in the agent's access log, and counted"},
};

/* A value may be long; the head of it will do to recognise it. */
static void advise(const struct init_options *o, const struct advice *a,
		   void say(void *ctx, enum log_level level, const char *text), void *ctx)
{
	char text[TEXT_MAX], name[64];

	snprintf(text, sizeof(text), "%s '%.*s': %s", init_flag_name(o, a->flag, name), VALUE_MAX,
		 o->value[a->flag], a->text);
	say(ctx, a->level, text);
}

static void advise_inbound(const struct init_options *o,
			   void say(void *ctx, enum log_level level, const char *text), void *ctx)
{
	static const enum init_flag inbound[] = {
		INIT_INBOUND_CAPTURE_PORT, INIT_INBOUND_TUNNEL_PORT,   INIT_INBOUND_MODE,
		INIT_INBOUND_PORTS,        INIT_INBOUND_EXCLUDE_PORTS, INIT_TPROXY_MARK,
		INIT_TPROXY_TABLE,
	};
	char text[TEXT_MAX], name[64];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(inbound) && n < sizeof(text); i++) {
		if (init_is_set(o, inbound[i]))
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", n ? ", " : "",
					      init_flag_name(o, inbound[i], name));
	}
	if (n == 0)
		return;
	if (n < sizeof(text))
		snprintf(text + n, sizeof(text) - n,
			 ": nothing inbound is captured; connections to the pod reach it directly");
	say(ctx, LOG_LEVEL_INFO, text);
}

void init_advise(const struct init_options *o,
		 void say(void *ctx, enum log_level level, const char *text), void *ctx)
{
	for (size_t i = 0; i < ARRAY_SIZE(advices); i++) {
		if (advices[i].applies(o, advices[i].flag))
			advise(o, &advices[i], say, ctx);
	}
	advise_inbound(o, say, ctx);
}
