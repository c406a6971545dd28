/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/metrics.h"

#include <ctype.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/owned.h"

/* ---- a strict reader of the text format 0.0.4 ---- */

struct family {
	char name[128], type[16];
	size_t samples;
};

/* What was read, and where the reader is. */
struct scrape {
	const char *p;
	struct family families[64];
	size_t n;
	/* the sample that is looked for: name and one label, e.g. `reason="x"`; found, its value */
	const char *name, *label;
	double value;
	size_t found;
};

static size_t read_name(const char *p, bool colons)
{
	size_t n = 0;

	while (isalpha((unsigned char)p[n]) || p[n] == '_' || (colons && p[n] == ':') ||
	       (n > 0 && isdigit((unsigned char)p[n])))
		n++;
	assert_true(n > 0);
	return n;
}

static void expect(struct scrape *s, const char *text)
{
	if (strncmp(s->p, text, strlen(text)) != 0)
		fail_msg("expected '%s' at '%.60s'", text, s->p);
	s->p += strlen(text);
}

static void copy(char *to, size_t size, const char *from, size_t n)
{
	assert_true(n < size);
	memcpy(to, from, n);
	to[n] = '\0';
}

/* HELP, then TYPE of the same family, which was not there before. */
static void read_head(struct scrape *s)
{
	struct family *f = &s->families[s->n];
	size_t n;

	assert_true(s->n < ARRAY_SIZE(s->families));
	expect(s, "# HELP ");
	n = read_name(s->p, true);
	copy(f->name, sizeof(f->name), s->p, n);
	s->p += n;
	expect(s, " ");
	for (; *s->p != '\n'; s->p++) {
		if (*s->p == '\\') {
			s->p++;
			assert_true(*s->p == '\\' || *s->p == 'n');
		}
		assert_true(*s->p != '\0');
	}
	expect(s, "\n# TYPE ");
	expect(s, f->name);
	expect(s, " ");
	n = strcspn(s->p, "\n");
	copy(f->type, sizeof(f->type), s->p, n);
	s->p += n;
	expect(s, "\n");
	assert_true(strcmp(f->type, "counter") == 0 || strcmp(f->type, "gauge") == 0);
	for (size_t i = 0; i < s->n; i++)
		assert_string_not_equal(s->families[i].name, f->name);
	s->n++;
}

/* Between the quotes: escapes of three kinds, no raw quote, no newline. */
static void read_value_text(struct scrape *s)
{
	for (; *s->p != '"'; s->p++) {
		assert_true(*s->p != '\n' && *s->p != '\0');
		if (*s->p == '\\') {
			s->p++;
			assert_true(*s->p == '\\' || *s->p == '"' || *s->p == 'n');
		}
	}
}

static bool read_labels(struct scrape *s)
{
	char names[40][64];
	bool wanted = false;
	size_t n = 0;

	expect(s, "{");
	do {
		const char *start = s->p;
		size_t len = read_name(s->p, false);

		assert_true(n < ARRAY_SIZE(names));
		copy(names[n], sizeof(names[n]), s->p, len);
		for (size_t i = 0; i < n; i++)
			assert_string_not_equal(names[i], names[n]);
		n++;
		s->p += len;
		expect(s, "=\"");
		read_value_text(s);
		expect(s, "\"");
		len = (size_t)(s->p - start);
		if (s->label && len == strlen(s->label) && memcmp(start, s->label, len) == 0)
			wanted = true;
	} while (*s->p == ',' && s->p++);
	expect(s, "}");
	return wanted;
}

/* Of the family whose head came last: families are never torn apart. */
static void read_sample(struct scrape *s)
{
	struct family *f = &s->families[s->n - 1];
	bool wanted = !s->label;
	double value;
	char *end;

	assert_true(s->n > 0);
	expect(s, f->name);
	if (*s->p == '{')
		wanted = read_labels(s) || !s->label;
	expect(s, " ");
	value = strtod(s->p, &end);
	assert_ptr_not_equal(end, s->p);
	s->p = end;
	expect(s, "\n");
	f->samples++;
	if (wanted && s->name && strcmp(s->name, f->name) == 0) {
		s->value = value;
		s->found++;
	}
}

static void read_all(struct scrape *s, const char *text)
{
	s->p = text;
	while (*s->p) {
		if (*s->p == '#')
			read_head(s);
		else
			read_sample(s);
	}
}

static char *print(struct metrics *metrics)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	metrics_print(metrics, f);
	assert_int_equal(fclose(f), 0);
	return text;
}

/* The value of the only sample of `name` with `label` (NULL: any). */
static double value_of(struct metrics *metrics, const char *name, const char *label)
{
	OWNED_MEM char *text = print(metrics);
	struct scrape s = {.name = name, .label = label};

	read_all(&s, text);
	assert_int_equal(s.found, 1);
	return s.value;
}

static size_t samples_of(struct metrics *metrics, const char *name)
{
	OWNED_MEM char *text = print(metrics);
	struct scrape s = {0};

	read_all(&s, text);
	for (size_t i = 0; i < s.n; i++) {
		if (strcmp(s.families[i].name, name) == 0)
			return s.families[i].samples;
	}
	fail_msg("no family '%s'", name);
	return 0;
}

/* ---- tests ---- */

static void free_metrics(struct metrics **m)
{
	metrics_free(*m);
}

static struct metrics *make(void)
{
	struct metrics *m = NULL;

	assert_int_equal(metrics_new(&m), 0);
	return m;
}

static const struct metric_labels example = {
	.reporter = REPORTER_SOURCE,
	.source_namespace = "shop",
	.source_workload = "cart",
	.source_principal = "spiffe://cluster.local/ns/shop/sa/cart",
	.destination_service = "api.example.com",
	.destination_namespace = "egress",
	.request_protocol = "tcp",
	.response_flags = "-",
	.security_policy = "none",
};

#define EXAMPLE_LABELS                                                                            \
	"reporter=\"source\",source_workload=\"cart\",source_canonical_service=\"cart\","         \
	"source_canonical_revision=\"latest\",source_workload_namespace=\"shop\","                \
	"source_principal=\"spiffe://cluster.local/ns/shop/sa/cart\",source_app=\"unknown\","     \
	"source_version=\"unknown\",source_cluster=\"unknown\",destination_workload=\"unknown\"," \
	"destination_workload_namespace=\"unknown\",destination_principal=\"unknown\","           \
	"destination_app=\"unknown\",destination_version=\"unknown\","                            \
	"destination_service=\"api.example.com\",destination_canonical_service=\"unknown\","      \
	"destination_canonical_revision=\"latest\",destination_service_name=\"api.example.com\"," \
	"destination_service_namespace=\"egress\",destination_cluster=\"unknown\","               \
	"request_protocol=\"tcp\",response_flags=\"-\",connection_security_policy=\"none\""

static void test_exact_lines(void **state)
{
	OWNED(free_metrics) struct metrics *m = make();
	struct metric_labels request = example;
	struct tcp_series *tcp;

	(void)state;
	tcp = metrics_tcp(m, &example);
	atomic_fetch_add(&tcp->opened, 3);
	atomic_fetch_add(&tcp->closed, 2);
	atomic_fetch_add(&tcp->failed, 1);
	atomic_fetch_add(&tcp->sent_bytes, UINT64_MAX);
	atomic_fetch_add(&tcp->received_bytes, 5);
	request.response_code = 200;
	metrics_request(m, &request);
	metrics_request(m, &request);
	metrics_denied(m, REASON_NO_SERVER_NAME, "shop");

	static const char *const lines[] = {
		"istio_tcp_connections_opened_total{" EXAMPLE_LABELS "} 3\n",
		"istio_tcp_connections_closed_total{" EXAMPLE_LABELS "} 2\n",
		"istio_tcp_connections_failed_total{" EXAMPLE_LABELS "} 1\n",
		"istio_tcp_sent_bytes_total{" EXAMPLE_LABELS "} 18446744073709551615\n",
		"istio_tcp_received_bytes_total{" EXAMPLE_LABELS "} 5\n",
		"istio_requests_total{" EXAMPLE_LABELS
		",response_code=\"200\",grpc_response_status=\"\"} 2\n",
		"sluice_denied_total{reason=\"no_server_name\",namespace=\"shop\"} 1\n",
		"istio_build{component=\"sluice\",tag=\"" SLUICE_VERSION "\"} 1\n",
		"# TYPE istio_tcp_connections_opened_total counter\n",
		"# TYPE istio_build gauge\n",
	};
	OWNED_MEM char *text = print(m);
	struct scrape s = {0};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		assert_non_null(strstr(text, lines[i]));
	read_all(&s, text);
	assert_int_equal(s.n, 8);
}

static void test_same_labels_are_one_series(void **state)
{
	OWNED(free_metrics) struct metrics *m = make();
	char name[] = "api.example.com";
	struct metric_labels again = example, other = example;

	(void)state;
	again.destination_service = name; /* by value, not by pointer */
	other.reporter = REPORTER_DESTINATION;
	assert_ptr_equal(metrics_tcp(m, &example), metrics_tcp(m, &again));
	assert_ptr_not_equal(metrics_tcp(m, &example), metrics_tcp(m, &other));
	other = example;
	other.destination_service = "api.example.co";
	other.destination_namespace = "megress"; /* the same bytes, cut elsewhere */
	assert_ptr_not_equal(metrics_tcp(m, &example), metrics_tcp(m, &other));
	other = example;
	other.response_code = 200; /* no label of TCP series */
	assert_ptr_equal(metrics_tcp(m, &example), metrics_tcp(m, &other));
}

static void test_absent_is_unknown(void **state)
{
	OWNED(free_metrics) struct metrics *m = make();
	const struct metric_labels none = {.source_namespace = ""};

	(void)state;
	atomic_store(&metrics_tcp(m, &none)->opened, 7);
	metrics_denied(m, REASON_NO_ROUTE, NULL);
	metrics_denied(m, REASON_NO_ROUTE, "");
	assert_true(value_of(m, "istio_tcp_connections_opened_total",
			     "source_workload_namespace=\"unknown\"") == 7);
	assert_true(value_of(m, "istio_tcp_connections_opened_total", "response_flags=\"-\"") == 7);
	assert_true(value_of(m, "sluice_denied_total", "namespace=\"unknown\"") == 2);
}

static void test_values_are_escaped(void **state)
{
	OWNED(free_metrics) struct metrics *m = make();
	char long_name[1001];

	(void)state;
	metrics_denied(m, REASON_NO_ROUTE, "a\"b\\c\nd");
	assert_true(value_of(m, "sluice_denied_total", "namespace=\"a\\\"b\\\\c\\nd\"") == 1);

	/* What would print alike is one series, or the scraper would see it twice. */
	metrics_denied(m, REASON_NO_ROUTE, "x\xff");
	metrics_denied(m, REASON_NO_ROUTE, "x\xfe");
	assert_true(value_of(m, "sluice_denied_total", "namespace=\"x\xef\xbf\xbd\"") == 2);

	memset(long_name, 'n', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	metrics_denied(m, REASON_NO_ROUTE, long_name);
	long_name[600] = '\0';
	metrics_denied(m, REASON_NO_ROUTE, long_name);
	assert_int_equal(samples_of(m, "sluice_denied_total"), 3);
}

static void test_escape(void **state)
{
	static const struct {
		const char *in;
		size_t size;
		const char *want;
	} cases[] = {
		{"", 8, ""},
		{"abc", 4, "abc"},
		{"abcd", 4, "abc"},
		{"a\\", 3, "a"}, /* no half escape */
		{"a\\", 4, "a\\\\"},
		{"\"\n", 5, "\\\"\\n"},
		{"\xc3\xa9", 2, ""}, /* no half character */
		{"\xc3\xa9", 3, "\xc3\xa9"},
		{"\xc3", 4, "\xef\xbf\xbd"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char buf[16];

		assert_string_equal(metrics_escape(cases[i].in, buf, cases[i].size), cases[i].want);
	}
}

static void test_sample(void **state)
{
	static const struct {
		const char *help, *labels;
		double value;
		const char *want;
	} cases[] = {
		{"Pods.", "", 3, "# HELP g Pods.\n# TYPE g gauge\ng 3\n"},
		{NULL, "a=\"b\"", -1, "g{a=\"b\"} -1\n"},
		{NULL, "", 1234567890123, "g 1234567890123\n"},
		{NULL, "", 0.5, "g 0.5\n"},
		{NULL, "", (double)INFINITY, "g +Inf\n"},
		{NULL, "", -(double)INFINITY, "g -Inf\n"},
		{NULL, "", (double)NAN, "g NaN\n"},
		{"a\\b\n\"c\"", "", 0, "# HELP g a\\\\b\\n\"c\"\n# TYPE g gauge\ng 0\n"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED_MEM char *text = NULL;
		size_t len;
		FILE *f = open_memstream(&text, &len);

		metrics_sample(f, "g", "gauge", cases[i].help, cases[i].labels, cases[i].value);
		fclose(f);
		assert_string_equal(text, cases[i].want);
	}
}

static void test_too_many_sets_overflow(void **state)
{
	OWNED(free_metrics) struct metrics *m = make();
	struct metric_labels l = example;
	struct tcp_series *first = metrics_tcp(m, &example), *last = NULL;
	char name[32];

	(void)state;
	l.destination_service = name;
	for (int i = 0; i < METRICS_MAX_SETS + 100; i++) {
		snprintf(name, sizeof(name), "host-%d", i);
		last = metrics_tcp(m, &l);
		atomic_fetch_add(&last->opened, 1);
		metrics_request(m, &l);
		metrics_denied(m, REASON_NO_ROUTE, name);
	}
	metrics_denied(m, REASON_NOT_EXPORTED, "one more");
	assert_ptr_equal(metrics_tcp(m, &example), first); /* old ones are still found */
	assert_ptr_not_equal(last, first);
	assert_int_equal(samples_of(m, "istio_tcp_connections_opened_total"), METRICS_MAX_SETS + 1);
	assert_int_equal(samples_of(m, "istio_requests_total"), METRICS_MAX_SETS + 1);
	assert_int_equal(samples_of(m, "sluice_denied_total"), METRICS_MAX_SETS + 2);
	assert_true(value_of(m, "istio_tcp_connections_opened_total",
			     "destination_service=\"overflow\"") == 101);
	assert_true(value_of(m, "istio_requests_total", "destination_service=\"overflow\"") == 100);
	assert_true(value_of(m, "sluice_denied_total", "reason=\"not_exported\"") == 1);
}

#define ROUNDS 20000

static void *work(void *arg)
{
	struct metrics *m = arg;
	struct metric_labels l = example;
	char name[32];

	l.destination_service = name;
	for (int i = 0; i < ROUNDS; i++) {
		snprintf(name, sizeof(name), "host-%d", i % 50);
		atomic_fetch_add(&metrics_tcp(m, &l)->opened, 1);
		metrics_request(m, &l);
		metrics_denied(m, REASON_NO_ROUTE, "shop");
	}
	return NULL;
}

static void test_threads_lose_nothing(void **state)
{
	OWNED(free_metrics) struct metrics *m = make();
	pthread_t threads[4];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, m), 0);
	for (int i = 0; i < 20; i++) { /* a scrape meanwhile is whole */
		OWNED_MEM char *text = print(m);
		struct scrape s = {0};

		read_all(&s, text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(samples_of(m, "istio_requests_total"), 50);
	assert_true(value_of(m, "istio_tcp_connections_opened_total",
			     "destination_service=\"host-7\"") ==
		    ARRAY_SIZE(threads) * ROUNDS / 50);
	assert_true(value_of(m, "istio_requests_total", "destination_service=\"host-7\"") ==
		    ARRAY_SIZE(threads) * ROUNDS / 50);
	assert_true(value_of(m, "sluice_denied_total", NULL) == ARRAY_SIZE(threads) * ROUNDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact_lines),
		cmocka_unit_test(test_same_labels_are_one_series),
		cmocka_unit_test(test_absent_is_unknown),
		cmocka_unit_test(test_values_are_escaped),
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_sample),
		cmocka_unit_test(test_too_many_sets_overflow),
		cmocka_unit_test(test_threads_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
