/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/conn.h"

static const char *state_str(enum conn_state state)
{
	switch (state) {
	case CONN_HEADER:
		return "header";
	case CONN_SNIFF:
		return "sniff";
	case CONN_CONNECT:
		return "connect";
	case CONN_RELAY:
		return "relay";
	case CONN_REFUSE:
		return "refuse";
	case CONN_CLOSED:
		return "closed";
	}
	return "";
}

static const char *spoken_str(const struct flow *f)
{
	switch (f->spoken) {
	case SPOKEN_TLS:
		return "TLS";
	case SPOKEN_HTTP:
		return "HTTP";
	case SPOKEN_NOTHING:
	case SPOKEN_OTHER:
		return "TCP";
	}
	return "";
}

static json_t *addr_json(const struct addr *a)
{
	char text[ADDR_TEXT];

	return a->port ? json_string(addr_print(a, text)) : json_null();
}

json_t *conn_print(const struct conn *c)
{
	const struct flow *f = &c->flow;
	uint64_t now = loop_now_ms(c->worker->loop);
	char id[REQUEST_ID_TEXT];

	return json_pack(
		"{s:s, s:o, s:s, s:s?, s:o, s:o, s:s?, s:s, s:I, s:I, s:I, s:I}", "request_id",
		flow_request_id(f, id), "source",
		f->source ? json_sprintf("%s/%s", f->source->ns, f->source->pod) : json_null(),
		"protocol", spoken_str(f), "authority", f->name, "original_destination",
		addr_json(&f->dst), "upstream", addr_json(&f->upstream), "gateway", f->gateway,
		"state", state_str(c->state), "bytes_received", (json_int_t)c->out.bytes,
		"bytes_sent", (json_int_t)c->in.bytes, "age_ms", (json_int_t)(now - f->start_ms),
		"idle_ms", (json_int_t)(c->state == CONN_RELAY ? now - c->active_ms : 0));
}
