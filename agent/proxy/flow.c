/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/flow.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/refusal.h"

int flow_set_name(struct flow *f, struct span name)
{
	char *copy = strndup((const char *)name.p, name.len);

	if (!copy)
		return -ENOMEM;
	free(f->name);
	f->name = copy;
	return 0;
}

int flow_set_service(struct flow *f, const struct service *service)
{
	size_t host, ns, entry;
	char *text;

	if (!service)
		return 0;
	host = strlen(service->host) + 1;
	ns = strlen(service->ns) + 1;
	entry = strlen(service->entry) + 1;
	text = malloc(host + ns + entry);
	if (!text)
		return -ENOMEM;
	memcpy(text, service->host, host);
	memcpy(text + host, service->ns, ns);
	memcpy(text + host + ns, service->entry, entry);
	free(f->service_host);
	f->service_host = text;
	f->service_ns = text + host;
	f->service_entry = text + host + ns;
	return 0;
}

static struct metric_labels labels_of(const struct flow *f, const struct observers *to)
{
	return (struct metric_labels){
		.reporter = to->reporter,
		.source_namespace = f->source ? f->source->ns : NULL,
		.source_workload = f->source ? f->source->workload : NULL,
		.source_principal = f->source ? f->source->principal : NULL,
		/* Without a service (ALLOW_ANY) there is no name that is bounded in number. */
		.destination_service = f->service_host,
		.destination_namespace = f->service_host ? f->service_ns : NULL,
		.request_protocol = f->spoken == SPOKEN_HTTP ? "http" : "tcp",
		.response_flags = "-",
		.security_policy = "none",
	};
}

void flow_opened(struct flow *f, const struct observers *to)
{
	struct metric_labels labels = labels_of(f, to);

	f->series = metrics_tcp(to->metrics, &labels);
	atomic_fetch_add_explicit(&f->series->opened, 1, memory_order_relaxed);
}

void flow_count(struct flow *f)
{
	if (!f->series)
		return;
	/* Istio: sent is towards the destination's client (responses), received is requests. */
	if (f->received > f->counted_received)
		atomic_fetch_add_explicit(&f->series->received_bytes,
					  f->received - f->counted_received, memory_order_relaxed);
	if (f->sent > f->counted_sent)
		atomic_fetch_add_explicit(&f->series->sent_bytes, f->sent - f->counted_sent,
					  memory_order_relaxed);
	f->counted_received = f->received;
	f->counted_sent = f->sent;
}

void flow_closed(struct flow *f, const struct observers *to)
{
	if (f->series) {
		flow_count(f);
		atomic_fetch_add_explicit(&f->series->closed, 1, memory_order_relaxed);
	} else if (f->allow) {
		struct metric_labels labels = labels_of(f, to);

		labels.response_flags = response_flags_of(f->reason);
		atomic_fetch_add_explicit(&metrics_tcp(to->metrics, &labels)->failed, 1,
					  memory_order_relaxed);
	}
}

void flow_denied(const struct flow *f, const struct observers *to)
{
	metrics_denied(to->metrics, f->reason, f->source ? f->source->ns : "");
}

void flow_count_request(const struct flow *f, const struct observers *to, int response_code,
			const char *flags)
{
	struct metric_labels labels = labels_of(f, to);

	labels.response_code = response_code;
	labels.response_flags = flags;
	metrics_request(to->metrics, &labels);
}

const char *flow_request_id(const struct flow *f, char buf[static REQUEST_ID_TEXT])
{
	const uint8_t *b = f->request_id;
	static const char hex[] = "0123456789abcdef";
	char *at = buf;

	for (unsigned i = 0; i < REQUEST_ID_BYTES; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*at++ = '-';
		*at++ = hex[b[i] >> 4];
		*at++ = hex[b[i] & 15];
	}
	*at = '\0';
	return buf;
}

static const char *protocol_of(const struct flow *f)
{
	switch (f->spoken) {
	case SPOKEN_TLS:
		return "TLS";
	case SPOKEN_HTTP:
		return "HTTP/1.1";
	case SPOKEN_NOTHING:
	case SPOKEN_OTHER:
		return "TCP";
	}
	return "TCP";
}

void flow_log(const struct flow *f, const struct observers *to, const struct flow_line *line,
	      bool allow, enum reason reason)
{
	struct span server_name = line->server_name;
	char id[REQUEST_ID_TEXT], cluster[320] = "", route[320] = "";
	struct access_record record;

	if (!server_name.len && f->spoken == SPOKEN_TLS && f->name)
		server_name = span_of(f->name);
	if (f->service_host) {
		snprintf(cluster, sizeof(cluster), "outbound|%u||%s", f->dst.port, f->service_host);
		snprintf(route, sizeof(route), "%.63s/%.253s", f->service_ns, f->service_entry);
	} else {
		strcpy(cluster, allow ? "PassthroughCluster" : "BlackHoleCluster");
	}

	record = (struct access_record){
		.start_time_us = line->start_us ?: f->start_us,
		.duration_ms = line->duration_ms,
		.protocol = line->protocol ?: protocol_of(f),
		.method = line->method,
		.path = line->path,
		.authority = line->authority,
		.user_agent = line->user_agent,
		.requested_server_name = server_name,
		.response_code = line->response_code,
		.response_flags = line->flags ?: response_flags_of(reason),
		.connection_termination_details = line->detail,
		.bytes_received = line->received,
		.bytes_sent = line->sent,
		.downstream_remote_address = f->remote,
		.downstream_local_address = f->dst,
		.upstream_host = f->upstream,
		.upstream_local_address = f->upstream_local,
		.upstream_cluster = cluster,
		.route_name = route,
		.request_id = flow_request_id(f, id),
		.reporter = to->reporter,
		.allow = allow,
		.reason = reason,
		.source_namespace = f->source ? f->source->ns : NULL,
		.source_pod = f->source ? f->source->pod : NULL,
		.source_principal = f->source ? f->source->principal : NULL,
		.gateway = f->gateway,
	};
	access_log_write(to->log, &record);
	if (!allow && to->denied)
		to->denied(to->ctx, &record);
}

void flow_done(struct flow *f)
{
	identity_unref(f->source);
	free(f->name);
	free(f->service_host);
	memset(f, 0, sizeof(*f));
}
