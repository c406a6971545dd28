/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Counters by Istio's names and labels, and our own, in Prometheus' text format 0.0.4. Counters are
 * atomics found once per connection and then kept; they live as long as the metrics do.
 */
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "admin/access_log.h" /* enum reporter */
#include "base/reason.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define METRICS_MAX_SETS     10000 /* label sets of one kind; the next ones share "overflow" */

struct metrics;

int metrics_new(struct metrics **ret);
void metrics_free(struct metrics *metrics); /* NULL is fine */

/* Labels of the istio_* series. NULL and "" print as "unknown", as Istio does. Copied; each value
 * is cut after 255 bytes (escaped). The labels that are not here (destination_workload, source_app,
 * ...) are "unknown", the canonical revisions "latest".
 */
struct metric_labels {
	enum reporter reporter;
	/* the workload is the canonical service too, which is what Kiali draws */
	const char *source_namespace, *source_workload, *source_principal;
	const char *destination_service;   /* registered host, port not included; also printed as
					      destination_service_name, as Istio does */
	const char *destination_namespace; /* of the ServiceEntry */
	const char *request_protocol;      /* "tcp" or "http" */
	const char *response_flags;        /* "-" when none, also for NULL */
	const char *security_policy;       /* "none", "mutual_tls" */
	int response_code;                 /* istio_requests_total only; else 0 */
};

/* The istio_tcp_* family of one label set. */
struct tcp_series {
	_Atomic uint64_t opened, closed, failed, sent_bytes, received_bytes;
};

/* Any thread; never NULL: past METRICS_MAX_SETS everything goes into one called "overflow". */
struct tcp_series *metrics_tcp(struct metrics *metrics, const struct metric_labels *labels);

/* Adds one to istio_requests_total. Any thread. */
void metrics_request(struct metrics *metrics, const struct metric_labels *labels);

/* sluice_denied_total{reason,namespace} += 1. Any thread. */
void metrics_denied(struct metrics *metrics, enum reason reason, const char *ns);
void metrics_denied_many(struct metrics *metrics, enum reason reason, const char *ns, uint64_t n);

/* All of the above as text, istio_build too. Own gauges are written by the caller with
 * metrics_sample. Any thread; holds nobody up.
 */
void metrics_print(struct metrics *metrics, FILE *out);

/* One sample with HELP and TYPE lines where `help` is given: with the first of a family, whose
 * samples follow each other. `labels` is "" or `a="b",c="d"` already escaped (metrics_escape).
 * `type` is "gauge" or "counter".
 */
void metrics_sample(FILE *out, const char *name, const char *type, const char *help,
		    const char *labels, double value);

/* Escapes a label value into buf, cutting what does not fit between characters; bytes that are no
 * UTF-8 become U+FFFD, since one of them would void a whole scrape. Returns buf; size > 0.
 */
const char *metrics_escape(const char *value, char *buf, size_t size);
