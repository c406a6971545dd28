/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "admin/utf8.h"
#include "base/owned.h"
#include "base/span.h"

#define N_BUCKETS  4096
#define N_EXTRA    64  /* for the series named "overflow" */
#define VALUE_MAX  255 /* bytes of a label value, escaped */
#define PARTS_MAX  10
#define KEY_MAX    (PARTS_MAX * (VALUE_MAX + 1))
#define LABEL_MAX  (48 + VALUE_MAX) /* name, quotes, value, comma */
#define LABELS_MAX 8192
#define HASH_WORDS 2

/* ---- series: one label set each, found by its values ---- */

/* Never moves and never goes before the metrics do. */
struct series {
	struct series *chain; /* of the bucket */
	struct series *older; /* all of them, for printing */
	uint64_t hash;
	union {
		struct tcp_series tcp;
		_Atomic uint64_t count;
	};
	const char *labels; /* as they are printed: a="b",c="d" */
	size_t key_len;
	char key[]; /* the values, escaped, each with its NUL; behind them the labels */
};

/* What a label shows: a value of the key, or always the same. */
struct label {
	const char *name;
	size_t part; /* PART_NONE: `text` */
	const char *text;
};

#define PART_NONE SIZE_MAX

/* The series of one kind. */
struct table {
	const struct label *labels;
	size_t n_labels, n_parts;
	pthread_mutex_t lock;
	struct series **buckets;
	struct series *newest;
	size_t n;
};

struct metrics {
	uint64_t hash_key[HASH_WORDS];
	struct table tcp, requests, denied;
	struct series lost; /* counts when there is no memory; nobody sees it */
};

static uint64_t rotl(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[0] = rotl(v[0], 32);
	v[2] += v[3];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[2] = rotl(v[2], 32);
}

/* SipHash-1-3: namespaces and hosts are chosen by others, who must not choose the bucket. */
static uint64_t hash_of(const uint64_t key[HASH_WORDS], const char *p, size_t len)
{
	uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
			 key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};
	uint64_t last = (uint64_t)len << 56, word;

	for (; len >= 8; p += 8, len -= 8) {
		memcpy(&word, p, 8);
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
	}
	word = 0;
	memcpy(&word, p, len);
	last |= word;
	v[3] ^= last;
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The text that a byte or character of a label value becomes. */
static struct span escaped(const uint8_t *p, size_t step)
{
	switch (*p) {
	case '\\':
		return span_of("\\\\");
	case '"':
		return span_of("\\\"");
	case '\n':
		return span_of("\\n");
	}
	return step > 0 ? (struct span){p, step} : span_of(UTF8_REPLACEMENT);
}

const char *metrics_escape(const char *value, char *buf, size_t size)
{
	const uint8_t *p = (const uint8_t *)value;
	size_t left = strlen(value), n = 0;

	while (left > 0) {
		size_t step = utf8_step(p, left);
		struct span out = escaped(p, step);

		if (n + out.len >= size)
			break;
		memcpy(buf + n, out.p, out.len);
		n += out.len;
		p += step > 0 ? step : 1;
		left -= step > 0 ? step : 1;
	}
	buf[n] = '\0';
	return buf;
}

/* Nearly every value needs no escaping, and this runs for each connection. */
static size_t put_value(char *to, const char *value)
{
	size_t n = 0;

	while (value[n] >= ' ' && value[n] <= '~' && value[n] != '"' && value[n] != '\\')
		n++;
	if (value[n] != '\0' || n > VALUE_MAX)
		return strlen(metrics_escape(value, to, VALUE_MAX + 1));
	memcpy(to, value, n + 1);
	return n;
}

/* Escaped values are the key: what looks the same to a scraper must be one series. */
static size_t make_key(const char *const *parts, size_t n, char key[static KEY_MAX])
{
	char *p = key;

	for (size_t i = 0; i < n; i++)
		p += put_value(p, parts[i]) + 1;
	return (size_t)(p - key);
}

static struct series *find(const struct table *t, uint64_t hash, const char *key, size_t len)
{
	struct series *s = t->buckets[hash % N_BUCKETS];

	while (s && (s->hash != hash || s->key_len != len || memcmp(s->key, key, len) != 0))
		s = s->chain;
	return s;
}

static const char *part_of(const char *key, size_t i)
{
	while (i-- > 0)
		key += strlen(key) + 1;
	return key;
}

static size_t render_labels(const struct table *t, const char *key, char text[static LABELS_MAX])
{
	char *p = text;

	for (size_t i = 0; i < t->n_labels; i++) {
		const struct label *label = &t->labels[i];

		if (i > 0)
			*p++ = ',';
		p = stpcpy(stpcpy(p, label->name), "=\"");
		p = stpcpy(p, label->part == PART_NONE ? label->text : part_of(key, label->part));
		*p++ = '"';
	}
	return (size_t)(p - text);
}

static struct series *add(struct table *t, uint64_t hash, const char *key, size_t len)
{
	char labels[LABELS_MAX];
	size_t labels_len = render_labels(t, key, labels);
	struct series *s = calloc(1, sizeof(*s) + len + labels_len + 1);

	if (!s)
		return NULL;
	s->hash = hash;
	s->key_len = len;
	memcpy(s->key, key, len);
	memcpy(s->key + len, labels, labels_len);
	s->labels = s->key + len;
	s->chain = t->buckets[hash % N_BUCKETS];
	t->buckets[hash % N_BUCKETS] = s;
	s->older = t->newest;
	t->newest = s;
	t->n++;
	return s;
}

/* NULL when it is not there, and there are `max` series already or no memory for one more. */
static struct series *find_or_add(struct metrics *m, struct table *t, const char *const *parts,
				  size_t max)
{
	char key[KEY_MAX];
	size_t len = make_key(parts, t->n_parts, key);
	uint64_t hash = hash_of(m->hash_key, key, len);
	struct series *s;

	pthread_mutex_lock(&t->lock);
	s = find(t, hash, key, len);
	if (!s && t->n < max)
		s = add(t, hash, key, len);
	pthread_mutex_unlock(&t->lock);
	return s;
}

static int table_init(struct table *t, const struct label *labels, size_t n_labels, size_t n_parts)
{
	t->labels = labels;
	t->n_labels = n_labels;
	t->n_parts = n_parts;
	pthread_mutex_init(&t->lock, NULL);
	t->buckets = calloc(N_BUCKETS, sizeof(*t->buckets));
	return t->buckets ? 0 : -ENOMEM;
}

static void table_done(struct table *t)
{
	while (t->newest) {
		struct series *s = t->newest;

		t->newest = s->older;
		free(s);
	}
	free(t->buckets);
	pthread_mutex_destroy(&t->lock);
}

void metrics_free(struct metrics *metrics)
{
	if (!metrics)
		return;
	table_done(&metrics->tcp);
	table_done(&metrics->requests);
	table_done(&metrics->denied);
	free(metrics);
}

/* ---- label sets ---- */

/* The values that a series of istio_* is known by, in the order of its key. */
enum part {
	PART_REPORTER,
	PART_SOURCE_WORKLOAD,
	PART_SOURCE_NAMESPACE,
	PART_SOURCE_PRINCIPAL,
	PART_DESTINATION_SERVICE,
	PART_DESTINATION_NAMESPACE,
	PART_PROTOCOL,
	PART_FLAGS,
	PART_POLICY,
	PART_CODE, /* istio_requests_total only */
	PART_N_,
};
_Static_assert(PART_N_ <= PARTS_MAX, "a key holds every part");

/* Istio's standard labels, all of them, so that its dashboards find what they group by. */
static const struct label istio_labels[] = {
	{"reporter", PART_REPORTER, NULL},
	{"source_workload", PART_SOURCE_WORKLOAD, NULL},
	{"source_canonical_service", PART_SOURCE_WORKLOAD, NULL},
	{"source_canonical_revision", PART_NONE, "latest"},
	{"source_workload_namespace", PART_SOURCE_NAMESPACE, NULL},
	{"source_principal", PART_SOURCE_PRINCIPAL, NULL},
	{"source_app", PART_NONE, "unknown"},
	{"source_version", PART_NONE, "unknown"},
	{"source_cluster", PART_NONE, "unknown"},
	{"destination_workload", PART_NONE, "unknown"},
	{"destination_workload_namespace", PART_NONE, "unknown"},
	{"destination_principal", PART_NONE, "unknown"},
	{"destination_app", PART_NONE, "unknown"},
	{"destination_version", PART_NONE, "unknown"},
	{"destination_service", PART_DESTINATION_SERVICE, NULL},
	{"destination_canonical_service", PART_NONE, "unknown"},
	{"destination_canonical_revision", PART_NONE, "latest"},
	{"destination_service_name", PART_DESTINATION_SERVICE, NULL},
	{"destination_service_namespace", PART_DESTINATION_NAMESPACE, NULL},
	{"destination_cluster", PART_NONE, "unknown"},
	{"request_protocol", PART_PROTOCOL, NULL},
	{"response_flags", PART_FLAGS, NULL},
	{"connection_security_policy", PART_POLICY, NULL},
	/* of requests only */
	{"response_code", PART_CODE, NULL},
	{"grpc_response_status", PART_NONE, ""},
};
#define N_REQUEST_LABELS ARRAY_SIZE(istio_labels)
#define N_TCP_LABELS     (N_REQUEST_LABELS - 2)
_Static_assert(N_REQUEST_LABELS *LABEL_MAX < LABELS_MAX, "all labels fit");

static const struct label denied_labels[] = {{"reason", 0, NULL}, {"namespace", 1, NULL}};

int metrics_new(struct metrics **ret)
{
	struct metrics *m = calloc(1, sizeof(*m));
	int tcp, requests, denied;

	if (!m)
		return -ENOMEM;
	tcp = table_init(&m->tcp, istio_labels, N_TCP_LABELS, PART_CODE);
	requests = table_init(&m->requests, istio_labels, N_REQUEST_LABELS, PART_N_);
	denied = table_init(&m->denied, denied_labels, ARRAY_SIZE(denied_labels), 2);
	if (tcp < 0 || requests < 0 || denied < 0) {
		metrics_free(m);
		return -ENOMEM;
	}
	if (getrandom(m->hash_key, sizeof(m->hash_key), 0) != sizeof(m->hash_key)) {
		metrics_free(m);
		return -EIO;
	}
	*ret = m;
	return 0;
}

static const char *or_unknown(const char *text)
{
	return text && *text ? text : "unknown";
}

/* `code` holds the response code's text and must live as long as `parts`. */
static void parts_of(const struct metric_labels *l, char code[static 12],
		     const char *parts[static PART_N_])
{
	parts[PART_REPORTER] = l->reporter == REPORTER_SOURCE ? "source" : "destination";
	parts[PART_SOURCE_WORKLOAD] = or_unknown(l->source_workload);
	parts[PART_SOURCE_NAMESPACE] = or_unknown(l->source_namespace);
	parts[PART_SOURCE_PRINCIPAL] = or_unknown(l->source_principal);
	parts[PART_DESTINATION_SERVICE] = or_unknown(l->destination_service);
	parts[PART_DESTINATION_NAMESPACE] = or_unknown(l->destination_namespace);
	parts[PART_PROTOCOL] = or_unknown(l->request_protocol);
	parts[PART_FLAGS] = l->response_flags && *l->response_flags ? l->response_flags : "-";
	parts[PART_POLICY] = or_unknown(l->security_policy);
	snprintf(code, 12, "%d", l->response_code);
	parts[PART_CODE] = code;
}

static struct series *istio_series(struct metrics *m, struct table *t,
				   const struct metric_labels *labels)
{
	static const struct metric_labels nobody = {.destination_service = "overflow"};
	const char *parts[PART_N_];
	struct series *s;
	char code[12];

	parts_of(labels, code, parts);
	s = find_or_add(m, t, parts, METRICS_MAX_SETS);
	if (s)
		return s;
	parts_of(&nobody, code, parts);
	parts[PART_REPORTER] = labels->reporter == REPORTER_SOURCE ? "source" : "destination";
	s = find_or_add(m, t, parts, METRICS_MAX_SETS + N_EXTRA);
	return s ?: &m->lost;
}

static void count_many(struct series *s, uint64_t n)
{
	atomic_fetch_add_explicit(&s->count, n, memory_order_relaxed);
}

static void count(struct series *s)
{
	count_many(s, 1);
}

struct tcp_series *metrics_tcp(struct metrics *metrics, const struct metric_labels *labels)
{
	return &istio_series(metrics, &metrics->tcp, labels)->tcp;
}

void metrics_request(struct metrics *metrics, const struct metric_labels *labels)
{
	count(istio_series(metrics, &metrics->requests, labels));
}

void metrics_denied(struct metrics *metrics, enum reason reason, const char *ns)
{
	metrics_denied_many(metrics, reason, ns, 1);
}

void metrics_denied_many(struct metrics *metrics, enum reason reason, const char *ns, uint64_t n)
{
	const char *parts[] = {or_unknown(reason_str(reason)), or_unknown(ns)};
	struct series *s;

	s = find_or_add(metrics, &metrics->denied, parts, METRICS_MAX_SETS);
	if (!s) {
		_Static_assert(REASON_N_ <= N_EXTRA, "each reason has its overflow");
		parts[1] = "overflow";
		s = find_or_add(metrics, &metrics->denied, parts, METRICS_MAX_SETS + N_EXTRA);
	}
	count_many(s ?: &metrics->lost, n);
}

/* ---- printing ---- */

struct family {
	const char *name, *help;
	size_t counter; /* where in struct series */
};

#define TCP_COUNTER(member) (offsetof(struct series, tcp) + offsetof(struct tcp_series, member))

static const struct family tcp_families[] = {
	{"istio_tcp_connections_opened_total", "Connections accepted from pods.",
	 TCP_COUNTER(opened)},
	{"istio_tcp_connections_closed_total", "Connections that ended.", TCP_COUNTER(closed)},
	{"istio_tcp_connections_failed_total", "Connections that could not be forwarded.",
	 TCP_COUNTER(failed)},
	{"istio_tcp_sent_bytes_total", "Bytes sent to the pod.", TCP_COUNTER(sent_bytes)},
	{"istio_tcp_received_bytes_total", "Bytes received from the pod.",
	 TCP_COUNTER(received_bytes)},
};

static const struct family request_family = {"istio_requests_total", "HTTP requests.",
					     offsetof(struct series, count)};
static const struct family denied_family = {"sluice_denied_total",
					    "Connections and requests refused, by reason.",
					    offsetof(struct series, count)};

static uint64_t counter_of(const struct series *s, size_t offset)
{
	const _Atomic uint64_t *counter = (const void *)((const char *)s + offset);

	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Escapes as HELP wants it: quotes stand as they are. */
static void print_head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s ", name);
	for (const char *p = help; *p; p++) {
		if (*p == '\\')
			fputs_unlocked("\\\\", out);
		else if (*p == '\n')
			fputs_unlocked("\\n", out);
		else
			fputc_unlocked(*p, out);
	}
	fprintf(out, "\n# TYPE %s %s\n", name, type);
}

/* Series are only ever added, in front of `newest`: what hangs behind it needs no lock. */
static void print_family(const struct family *family, const struct series *newest, FILE *out)
{
	print_head(out, family->name, "counter", family->help);
	for (const struct series *s = newest; s; s = s->older) {
		fputs_unlocked(family->name, out);
		fputc_unlocked('{', out);
		fputs_unlocked(s->labels, out);
		fprintf(out, "} %" PRIu64 "\n", counter_of(s, family->counter));
	}
}

static const struct series *newest_of(struct table *t)
{
	const struct series *s;

	pthread_mutex_lock(&t->lock);
	s = t->newest;
	pthread_mutex_unlock(&t->lock);
	return s;
}

void metrics_print(struct metrics *metrics, FILE *out)
{
	const struct series *tcp = newest_of(&metrics->tcp);

	metrics_sample(out, "istio_build", "gauge", "Which version this is.",
		       "component=\"sluice\",tag=\"" SLUICE_VERSION "\"", 1);
	for (size_t i = 0; i < ARRAY_SIZE(tcp_families); i++)
		print_family(&tcp_families[i], tcp, out);
	print_family(&request_family, newest_of(&metrics->requests), out);
	print_family(&denied_family, newest_of(&metrics->denied), out);
}

/* 17 digits are what reads back as the same number (and prints whole numbers whole). */
static void print_value(double value, FILE *out)
{
	if (isnan(value))
		fputs("NaN\n", out);
	else if (isinf(value))
		fputs(value > 0 ? "+Inf\n" : "-Inf\n", out);
	else
		fprintf(out, "%.17g\n", value);
}

void metrics_sample(FILE *out, const char *name, const char *type, const char *help,
		    const char *labels, double value)
{
	if (help)
		print_head(out, name, type, help);
	if (*labels)
		fprintf(out, "%s{%s} ", name, labels);
	else
		fprintf(out, "%s ", name);
	print_value(value, out);
}
