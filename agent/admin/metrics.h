/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Counters by Istio's names and labels, and our own, in Prometheus' text format 0.0.4. Counters are
 * atomics found once per connection and then kept; they live as long as the metrics do.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#include "admin/access_log.h" /* enum reporter */
#include "base/reason.h"

struct metrics;

int metrics_new(struct metrics **ret);
void metrics_free(struct metrics *metrics);

/* Labels of the istio_* series. NULL and "" print as "unknown", as Istio does. Copied. */
struct metric_labels {
	enum reporter reporter;
	const char *source_namespace, *source_workload, *source_principal;
	const char *destination_service; /* registered host, port not included */
	const char *destination_namespace, *destination_name; /* of the ServiceEntry */
	const char *request_protocol;                         /* "tcp" or "http" */
	const char *response_flags;                           /* "-" when none */
	const char *security_policy;                          /* "none", "mutual_tls" */
	int response_code; /* istio_requests_total only; else 0 */
};

/* The istio_tcp_* family of one label set. */
struct tcp_series {
	_Atomic uint64_t opened, closed, failed, sent_bytes, received_bytes;
};

/* Any thread; never NULL: past 10,000 label sets everything goes into one called "overflow". */
struct tcp_series *metrics_tcp(struct metrics *metrics, const struct metric_labels *labels);

/* Adds one to istio_requests_total. Any thread. */
void metrics_request(struct metrics *metrics, const struct metric_labels *labels);

/* sluice_denied_total{reason,namespace} += 1. Any thread. */
void metrics_denied(struct metrics *metrics, enum reason reason, const char *ns);

/* All of the above as text, istio_build too. Own gauges are written by the caller with
 * metrics_gauge. */
void metrics_print(struct metrics *metrics, FILE *out);

/* One sample with HELP and TYPE lines where `help` is given. `labels` is "" or `a="b",c="d"`
 * already escaped (metrics_escape). `type` is "gauge" or "counter".
 */
void metrics_sample(FILE *out, const char *name, const char *type, const char *help,
		    const char *labels, double value);

/* Escapes a label value into buf, cutting what does not fit. Returns buf. */
const char *metrics_escape(const char *value, char *buf, size_t size);
