/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/decide.h"

/* May what was spoken go to a port of this protocol? A name on an opaque port is fine: the gateway
 * dials that name and nothing else.
 */
static bool is_fit(enum spoken spoken, enum protocol protocol)
{
	switch (spoken) {
	case SPOKEN_TLS:
		return !protocol_is_http(protocol);
	case SPOKEN_HTTP:
		return !protocol_is_tls(protocol);
	case SPOKEN_NOTHING:
	case SPOKEN_OTHER:
		break;
	}
	return protocol_is_opaque(protocol) || protocol == PROTOCOL_UNSET;
}

/* A client that names a host is judged by that name alone, whatever address it called. */
static bool is_named(const struct query *q)
{
	return q->name.len > 0 && (q->spoken == SPOKEN_TLS || q->spoken == SPOKEN_HTTP);
}

/* Without a server name and without a known address, the missing name is what a user can mend. */
static enum reason refusal(const struct query *q, enum reason reason)
{
	if (q->spoken == SPOKEN_TLS && !is_named(q) && reason != REASON_NOT_EXPORTED)
		return REASON_NO_SERVER_NAME;
	return reason;
}

bool decide_early(const struct registry *reg, const struct addr *dst, const char *ns,
		  struct verdict *ret)
{
	enum reason reason;
	const struct service *service = registry_find_addr(reg, dst, ns, &reason);

	if (!service || !protocol_is_opaque(service->protocol))
		return false;
	*ret = (struct verdict){.allow = true, .service = service};
	return true;
}

void decide(const struct registry *reg, enum outbound_mode mode, const struct query *q,
	    struct verdict *ret)
{
	struct verdict v = {.by_name = is_named(q)};
	const struct service *service;
	enum reason reason;

	service = v.by_name ? registry_find_name(reg, q->name, q->dst->port, q->ns, &reason)
			    : registry_find_addr(reg, q->dst, q->ns, &reason);
	if (service && is_fit(q->spoken, service->protocol)) {
		v.allow = true;
		v.service = service;
	} else if (service) {
		v.reason = REASON_PROTOCOL_MISMATCH; /* in any mode: it is registered, otherwise */
	} else if (mode == OUTBOUND_ALLOW_ANY) {
		v.allow = true;
		v.reason = REASON_NOT_REGISTERED;
	} else {
		v.reason = refusal(q, reason);
	}
	*ret = v;
}

void decide_told(const struct registry *reg, enum outbound_mode mode, const struct query *q,
		 struct verdict *ret)
{
	struct verdict v = {.by_name = true};

	v.service = registry_find_name(reg, q->name, q->dst->port, q->ns, &v.reason);
	if (v.service) {
		v.allow = true;
		v.reason = REASON_NONE;
	} else if (mode == OUTBOUND_ALLOW_ANY) {
		v.allow = true;
		v.reason = REASON_NOT_REGISTERED;
	}
	*ret = v;
}
