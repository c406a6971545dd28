/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "base/log.h"
#include "guard/forward.h"
#include "pod/nflog.h"
#include "pod/pods_own.h"

#define SAY_MAX    4096  /* refusals remembered, so that each is said once */
#define SAY_FOR_MS 60000 /* within this time */
#define SAY_LINES  120   /* of one pod within that time: it chooses the destinations */

struct said_key {
	uint64_t pod; /* serial */
	uint8_t dst[16];
	uint16_t dport;
	uint8_t proto, why;
};

static bool may_say(struct pods *pods, struct pod *pod)
{
	uint64_t now = loop_now_ms(pods->loop);

	if (!pod)
		return true; /* of pods that are gone: rare, and bounded by `said` */
	if (pod->lines_full_ms == 0 || now - pod->lines_full_ms >= SAY_FOR_MS) {
		pod->lines_full_ms = now;
		pod->lines = SAY_LINES;
	}
	if (pod->lines == 0)
		return false;
	pod->lines--;
	return true;
}

/* Counts each, and says each once a minute for a pod, destination and protocol. */
static void report(struct pods *pods, struct pod *pod, struct pods_refusal *refusal, uint8_t proto)
{
	struct said_key key;
	uint64_t times;

	if (!pods->hooks.refused)
		return;
	memset(&key, 0, sizeof(key)); /* padding too: it is compared as bytes */
	key.pod = pod ? pod->serial : 0;
	memcpy(key.dst, refusal->dst.ip, 16);
	key.dport = refusal->dst.port;
	key.proto = proto;
	key.why = (uint8_t)refusal->reason;
	refusal->source = pod ? pod->id : NULL;
	refusal->say =
		recent_is_new(pods->said, &key, sizeof(key), loop_now_ms(pods->loop), &times) &&
		may_say(pods, pod);
	pods->hooks.refused(pods->hooks.ctx, refusal);
}

static struct addr addr_of(const uint8_t ip[16], __be16 port)
{
	struct addr a = {.port = ntohs(port)};

	memcpy(a.ip, ip, 16);
	return a;
}

static const char *proto_str(uint8_t proto, uint16_t dport, char buf[static 32])
{
	if (proto == GUARD_PROTO_ARP)
		return "ARP";
	if (proto == GUARD_PROTO_ETHER)
		return "ethernet";
	if (proto == GUARD_PROTO_OTHER)
		return "other";
	return nflog_protocol_str(proto, dport, buf);
}

/* What steering refuses because it is not TCP is no attempt to get around anything. */
static enum reason reason_of(const struct guard_event *e)
{
	switch ((enum guard_why)e->why) {
	case GUARD_WHY_PROTOCOL:
		return REASON_PROTOCOL_REFUSED;
	case GUARD_WHY_NO_LISTENER:
		return REASON_GATEWAY_UNAVAILABLE;
	case GUARD_WHY_FLOWS_FULL:
		return REASON_LIMIT_EXCEEDED;
	default:
		return REASON_BYPASS_ATTEMPT;
	}
}

void refusals_on_guard(void *ctx, const struct guard_event *e)
{
	struct pods *pods = ctx;
	char word[32];
	struct pods_refusal refusal = {
		.src = addr_of(e->src, e->sport),
		.dst = addr_of(e->dst, e->dport),
		.protocol = proto_str(e->proto, ntohs(e->dport), word),
		.detail = guard_why_str(e->why),
		.reason = reason_of(e),
		.count = 1 + (uint64_t)e->suppressed,
	};

	report(pods, pods_find_ifindex(pods, e->ifindex), &refusal, e->proto);
}

void refusals_on_hostnet(void *ctx, const struct hostnet_event *e)
{
	struct pods *pods = ctx;
	char word[32];
	struct pods_refusal refusal = {
		.dst = e->dst,
		.protocol = nflog_protocol_str(e->proto, e->dst.port, word),
		.detail = e->table_full ? "table_full" : "outside",
		.reason = e->table_full             ? REASON_LIMIT_EXCEEDED
			  : e->proto == IPPROTO_TCP ? REASON_BYPASS_ATTEMPT
						    : REASON_PROTOCOL_REFUSED,
		.count = 1 + (uint64_t)e->suppressed,
	};

	report(pods, pods_find_cgroup(pods, e->cgroup), &refusal, e->proto);
}

static void report_packet(struct pods *pods, struct pod *pod, const struct refused_packet *packet,
			  const char *detail)
{
	char word[32];
	struct pods_refusal refusal = {
		.src = packet->src,
		.dst = packet->dst,
		.protocol = nflog_protocol_str(packet->proto, packet->dst.port, word),
		.detail = detail,
		.reason = nflog_reason(packet),
		.count = 1,
	};

	report(pods, pod, &refusal, packet->proto);
}

void refusals_on_pod(void *ctx, const struct refused_packet *packet)
{
	struct pod *pod = ctx;

	report_packet(pod->pods, pod, packet, "refused_in_pod");
}

void refusals_on_node(void *ctx, const struct refused_packet *packet)
{
	struct pods *pods = ctx;

	report_packet(pods, pods_find_addr(pods, &packet->src), packet, "refused_by_node");
}

int refusals_open(struct pods *pods)
{
	return recent_new(&pods->said, SAY_MAX, SAY_FOR_MS);
}

/* ---- counting ---- */

void pods_stats(const struct pods *pods, struct pods_stats *ret)
{
	uint64_t packets = 0, bytes;

	if (pods->forward && forward_counts(&packets, &bytes) < 0)
		packets = 0;
	*ret = (struct pods_stats){.repairs = pods->repairs, .forward_dropped = packets};
}

struct each_dropped {
	struct pods *pods;
	void (*each)(void *ctx, const struct pods_dropped *d);
	void *ctx;
};

static void on_count(void *ctx, const struct guard_count_key *key, const struct guard_count *count)
{
	const struct each_dropped *to = ctx;
	const struct pod *pod = pods_find_ifindex(to->pods, key->ifindex);
	char word[32];
	struct pods_dropped d = {
		.ns = pod ? pod->state.pod.ns : "",
		.pod = pod ? pod->state.pod.name : "",
		.protocol = proto_str(key->proto, 0, word),
		.why = guard_why_str(key->why),
		.packets = count->packets,
		.bytes = count->bytes,
	};

	to->each(to->ctx, &d);
}

void pods_each_dropped(struct pods *pods, void (*each)(void *ctx, const struct pods_dropped *d),
		       void *ctx)
{
	struct each_dropped to = {pods, each, ctx};
	int r = pods->guard ? guard_counts(pods->guard, on_count, &to) : 0;

	if (r < 0)
		log_debug("cannot read the guard's counters: %s", strerrordesc_np(-r));
}
