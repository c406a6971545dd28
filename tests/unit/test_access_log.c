/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "admin/utf8.h"
#include "base/owned.h"

#define SPAN(text)                                        \
	{                                                 \
		(const uint8_t *)(text), sizeof(text) - 1 \
	}

static char folder[] = "/tmp/test_access_log.XXXXXX";

static struct addr parse(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(text, &a), 0);
	return a;
}

static char *print(const struct access_record *record, bool json)
{
	char *line = NULL;
	size_t len;

	assert_int_equal(access_record_print(record, json, &line, &len), 0);
	assert_int_equal(len, strlen(line)); /* no NUL inside */
	assert_int_equal(line[len - 1], '\n');
	assert_ptr_equal(strchr(line, '\n'), line + len - 1);
	return line;
}

static struct access_record full_record(void)
{
	return (struct access_record){
		.start_time_us = 1606339578409123,
		.duration_ms = 42,
		.protocol = "HTTP/1.1",
		.method = SPAN("GET"),
		.path = SPAN("/status/418?q=\"a b\"\\"),
		.authority = SPAN("httpbin.org:80"),
		.user_agent = SPAN("curl/7.73 (\"x\")"),
		.requested_server_name = SPAN("b\xc3\xbc\x63her.example"),
		.response_code = 418,
		.response_flags = "DC",
		.connection_termination_details = "idle timeout",
		.bytes_received = INT64_MAX,
		.bytes_sent = 135,
		.downstream_remote_address = parse("10.44.1.27:37652"),
		.downstream_local_address = parse("93.184.216.34:80"),
		.upstream_host = parse("[2001:db8::1]:15443"),
		.upstream_local_address = parse("192.0.2.1:40000"),
		.upstream_cluster = "outbound|80||httpbin.org",
		.route_name = "default",
		.request_id = "84961386-6d84-929d-98bd-c5aee93b5c88",
		.reporter = REPORTER_SOURCE,
		.allow = true,
		.source_namespace = "shop",
		.source_pod = "cart-7d9",
		.source_principal = "spiffe://cluster.local/ns/shop/sa/cart",
		.gateway = "egressgateway.istio-system.svc.cluster.local",
	};
}

static struct access_record denied_record(void)
{
	return (struct access_record){
		.start_time_us = 951827696999999, /* on a leap day */
		.protocol = "TLS",
		.requested_server_name = SPAN("evil.example"),
		.response_flags = "",
		.downstream_remote_address = parse("[fd00::5]:1"),
		.reporter = REPORTER_DESTINATION,
		.reason = REASON_HOST_NOT_REGISTERED,
		.source_namespace = "",
	};
}

/* ---- the line ---- */

static void assert_golden(const char *path, bool json)
{
	const struct access_record records[] = {full_record(), denied_record(), {0}};
	char want[16384] = "", got[16384] = "";
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	want[fread(want, 1, sizeof(want) - 1, f)] = '\0';
	fclose(f);
	for (size_t i = 0; i < ARRAY_SIZE(records); i++) {
		OWNED_MEM char *line = print(&records[i], json);

		strcat(got, line);
	}
	assert_string_equal(got, want);
}

static void test_golden(void **state)
{
	(void)state;
	assert_golden("tests/golden/access_log.json.golden", true);
	assert_golden("tests/golden/access_log.text.golden", false);
}

static void test_names_every_field_in_order(void **state)
{
	static const char *const names[] = {
		"start_time",
		"protocol",
		"method",
		"path",
		"authority",
		"user_agent",
		"requested_server_name",
		"response_code",
		"response_flags",
		"connection_termination_details",
		"bytes_received",
		"bytes_sent",
		"duration",
		"downstream_remote_address",
		"downstream_local_address",
		"upstream_host",
		"upstream_local_address",
		"upstream_cluster",
		"route_name",
		"request_id",
		"reporter",
		"decision",
		"reason",
		"source_namespace",
		"source_pod",
		"source_principal",
		"gateway",
	};
	struct access_record empty = {0};
	OWNED_MEM char *line = print(&empty, true);
	json_t *json = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
	const char *at = line;

	(void)state;
	assert_non_null(json);
	assert_int_equal(json_object_size(json), ARRAY_SIZE(names));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char key[64];

		snprintf(key, sizeof(key), "\"%s\":", names[i]);
		at = strstr(at, key);
		assert_non_null(at);
	}
	json_decref(json);
}

static void test_start_time(void **state)
{
	static const struct {
		int64_t us;
		const char *want;
	} cases[] = {
		{0, "1970-01-01T00:00:00.000Z"},
		{-5, "1970-01-01T00:00:00.000Z"},
		{951782400000000, "2000-02-29T00:00:00.000Z"},
		{951868799999999, "2000-02-29T23:59:59.999Z"},
		{951868800000000, "2000-03-01T00:00:00.000Z"},
		{1704067199000000, "2023-12-31T23:59:59.000Z"},
		{4107542400000000, "2100-03-01T00:00:00.000Z"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct access_record r = {.start_time_us = cases[i].us};
		OWNED_MEM char *line = print(&r, true);

		assert_memory_equal(line + strlen("{\"start_time\":\""), cases[i].want, 24);
	}
	for (int64_t day = 0; day < 50000; day += 7) { /* against the C library's calendar */
		struct access_record r = {.start_time_us = day * 86400000000};
		time_t t = (time_t)(day * 86400);
		OWNED_MEM char *line = print(&r, true);
		char want[32];
		struct tm tm;

		strftime(want, sizeof(want), "%Y-%m-%d", gmtime_r(&t, &tm));
		assert_memory_equal(line + strlen("{\"start_time\":\""), want, 10);
	}
}

/* What stands between `before` and `after`. */
static char *between(const char *line, const char *before, const char *after)
{
	const char *from = strstr(line, before), *to;

	assert_non_null(from);
	from += strlen(before);
	to = strstr(from, after);
	assert_non_null(to);
	return strndup(from, (size_t)(to - from));
}

static void test_escapes(void **state)
{
	static const struct {
		struct span in;
		const char *json, *text;
	} cases[] = {
		{SPAN("/a"), "/a", "/a"},
		{SPAN("a\"b\\c"), "a\\\"b\\\\c", "a\\x22b\\x5cc"},
		{SPAN("a\nb\tc\rd"), "a\\nb\\tc\\u000dd", "a\\x0ab\\x09c\\x0dd"},
		{SPAN("a\0b\x1b[1m\x7f"), "a\\u0000b\\u001b[1m\\u007f", "a\\x00b\\x1b[1m\\x7f"},
		{SPAN("a b"), "a b", "a\\x20b"},
		{SPAN("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
		 "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
		{SPAN("\xc2\x9b"), "\\u009b", "\\xc2\\x9b"}, /* C1: CSI */
		{SPAN("\xff"), UTF8_REPLACEMENT, "\\xff"},
		{SPAN("\x80x"), UTF8_REPLACEMENT "x", "\\x80x"},
		{SPAN("\xc0\xaf"), UTF8_REPLACEMENT UTF8_REPLACEMENT, "\\xc0\\xaf"},
		{SPAN("\xe2\x82"), UTF8_REPLACEMENT UTF8_REPLACEMENT, "\\xe2\\x82"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct access_record r = {.path = cases[i].in};
		OWNED_MEM char *json = print(&r, true), *text = print(&r, false);
		OWNED_MEM char *in_json = between(json, "\"path\":\"", "\",\"authority\"");
		OWNED_MEM char *in_text = between(text, " \"- ", " -\" 0");

		assert_string_equal(in_json, cases[i].json);
		assert_string_equal(in_text, cases[i].text);
	}
}

static void test_utf8(void **state)
{
	static const struct {
		struct span in;
		size_t want;
	} cases[] = {
		{SPAN(""), 0},
		{SPAN("a"), 1},
		{SPAN("\0"), 1},
		{SPAN("\x7f"), 1},
		{SPAN("\xc2\x80"), 2},
		{SPAN("\xdf\xbf"), 2},
		{SPAN("\xe0\xa0\x80"), 3},
		{SPAN("\xed\x9f\xbf"), 3},
		{SPAN("\xee\x80\x80"), 3},
		{SPAN("\xef\xbf\xbf"), 3},
		{SPAN("\xf0\x90\x80\x80"), 4},
		{SPAN("\xf4\x8f\xbf\xbf"), 4},
		{SPAN("\x80"), 0},
		{SPAN("\xbf"), 0},
		{SPAN("\xc0\x80"), 0},
		{SPAN("\xc1\xbf"), 0}, /* overlong */
		{SPAN("\xe0\x9f\xbf"), 0},
		{SPAN("\xf0\x8f\xbf\xbf"), 0},
		{SPAN("\xed\xa0\x80"), 0},
		{SPAN("\xed\xbf\xbf"), 0}, /* surrogates */
		{SPAN("\xf4\x90\x80\x80"), 0},
		{SPAN("\xf5\x80\x80\x80"), 0},
		{SPAN("\xff"), 0},
		{SPAN("\xc3"), 0}, /* cut short */
		{SPAN("\xe2\x82"), 0},
		{SPAN("\xf0\x9f\x98"), 0},
		{SPAN("\xc3\x41"), 0},
		{SPAN("\xe2\x82\x41"), 0},
		{SPAN("\xf0\x9f\x98\x41"), 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(utf8_step(cases[i].in.p, cases[i].in.len), cases[i].want);
}

static void test_cuts_between_characters(void **state)
{
	char path[1030], want[1030];

	(void)state;
	memset(path, 'a', sizeof(path));
	for (size_t at = 1020; at <= 1024; at++) {
		struct access_record r = {.path = {(uint8_t *)path, at + 3}};
		size_t shown = at + 3 <= 1024 ? at + 3 : at;

		memcpy(path + at, "\xe2\x82\xac", 3);
		snprintf(want, sizeof(want), "%.*s", (int)shown, path);
		OWNED_MEM char *line = print(&r, true);
		OWNED_MEM char *got = between(line, "\"path\":\"", "\"");

		assert_string_equal(got, want);
		memset(path + at, 'a', 3);
	}
}

/* Fields that claim more than a line may hold, of what expands most. */
static void test_line_is_bounded(void **state)
{
	OWNED_MEM char *long_text = malloc(100001);
	struct span s = {(uint8_t *)long_text, 100000};

	(void)state;
	assert_non_null(long_text);
	memset(long_text, 1, 100000);
	long_text[100000] = '\0';

	struct access_record r = full_record();

	r.method = r.path = r.authority = r.user_agent = r.requested_server_name = s;
	r.protocol = r.response_flags = r.connection_termination_details = long_text;
	r.upstream_cluster = r.route_name = r.request_id = r.source_namespace = long_text;
	r.source_pod = r.source_principal = r.gateway = long_text;
	for (int json = 0; json <= 1; json++) {
		OWNED_MEM char *line = print(&r, json);

		assert_in_range(strlen(line), 10000, ACCESS_LINE_MAX);
	}
}

static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* A TEXT line must fall apart into its 22 columns, whatever is in them. */
static int count_columns(const char *line)
{
	bool quoted = false;
	int n = 1;

	for (const char *p = line; *p != '\n'; p++) {
		assert_true((unsigned char)*p >= ' ' && *p != 0x7f);
		if (*p == '"')
			quoted = !quoted;
		else if (*p == ' ' && !quoted)
			n++;
	}
	assert_false(quoted);
	return n;
}

static void test_any_bytes_make_a_valid_line(void **state)
{
	static const uint8_t spice[] = {'"', '\\', '\n', 0xc2, 0xe2, 0xed, 0xf0, 0x80, 0x9f, 0xbf};
	uint32_t seed = 4711;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		uint8_t bytes[64];
		struct access_record r = full_record();
		size_t n = next_random(&seed) % sizeof(bytes);

		for (size_t i = 0; i < n; i++) {
			uint32_t x = next_random(&seed);

			bytes[i] = x & 256 ? spice[x % sizeof(spice)] : (uint8_t)x;
		}
		r.method = r.path = r.authority = (struct span){bytes, n};
		r.user_agent = r.requested_server_name = (struct span){bytes, n};

		OWNED_MEM char *line = print(&r, true), *text = print(&r, false);
		json_t *json = json_loads(line, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);

		assert_non_null(json);
		assert_string_equal(json_string_value(json_object_get(json, "decision")), "ALLOW");
		json_decref(json);
		assert_int_equal(count_columns(text), 22);
	}
}

/* ---- the file ---- */

static char *path_of(const char *name)
{
	char *path;

	assert_true(asprintf(&path, "%s/%s", folder, name) > 0);
	return path;
}

/* Counts the lines, each of which must be a JSON object. */
static uint64_t count_json_lines(FILE *f)
{
	char *line = NULL;
	size_t size = 0;
	uint64_t n = 0;
	ssize_t len;

	while ((len = getline(&line, &size, f)) > 0) {
		json_t *json = json_loads(line, 0, NULL);

		assert_int_equal(line[len - 1], '\n');
		assert_non_null(json);
		json_decref(json);
		n++;
	}
	free(line);
	return n;
}

static uint64_t lines_in(const char *path)
{
	FILE *f = fopen(path, "r");
	uint64_t n;

	assert_non_null(f);
	n = count_json_lines(f);
	fclose(f);
	return n;
}

/* Waits for what has to come, for 10 s. */
#define WAIT_FOR(condition)                         \
	do {                                        \
		int left_ = 1000;                   \
		while (!(condition) && left_-- > 0) \
			poll(NULL, 0, 10);          \
		assert_true(condition);             \
	} while (0)

static size_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? (size_t)st.st_size : 0;
}

#define LINES_EACH 3000

static void *write_lines(void *arg)
{
	struct access_record r = full_record();

	for (int i = 0; i < LINES_EACH; i++)
		access_log_write(arg, &r);
	return NULL;
}

static void test_threads_write_whole_lines(void **state)
{
	OWNED_MEM char *path = path_of("threads");
	struct access_log *log = NULL;
	pthread_t threads[4];

	(void)state;
	assert_int_equal(access_log_open(&log, path, true), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_lines, log), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(access_log_dropped(log), 0);
	access_log_close(log);
	assert_int_equal(lines_in(path), LINES_EACH * ARRAY_SIZE(threads));
	assert_true(size_of(path) < 16UL << 20); /* so much may wait for a slow disk */
}

static void test_line_arrives_without_close(void **state)
{
	OWNED_MEM char *path = path_of("soon");
	struct access_record r = full_record();
	struct access_log *log = NULL;

	(void)state;
	assert_int_equal(access_log_open(&log, path, true), 0);
	for (uint64_t i = 1; i <= 3; i++) {
		access_log_write(log, &r);
		WAIT_FOR(lines_in(path) == i);
	}
	access_log_close(log);
	access_log_close(NULL);
}

static void test_reopens_after_rotation(void **state)
{
	OWNED_MEM char *path = path_of("rotated"), *old = path_of("rotated.1");
	struct access_record r = full_record();
	struct access_log *log = NULL;

	(void)state;
	assert_int_equal(access_log_open(&log, path, true), 0);
	access_log_write(log, &r);
	WAIT_FOR(size_of(path) > 0);
	assert_int_equal(rename(path, old), 0);
	access_log_reopen(log);
	access_log_write(log, &r);
	WAIT_FOR(size_of(path) > 0);
	access_log_close(log);
	assert_int_equal(lines_in(old), 1);
	assert_int_equal(lines_in(path), 1);
}

static void test_says_what_cannot_be_opened(void **state)
{
	struct access_log *log = NULL;

	(void)state;
	assert_int_equal(access_log_open(&log, folder, true), -EISDIR);
	assert_int_equal(access_log_open(&log, "/nowhere/at/all", true), -ENOENT);
	assert_null(log);
}

/* Nobody reads for a while: lines wait up to the bound, then are dropped, and none is torn. */
static void test_full_pipe_drops_and_counts(void **state)
{
	OWNED_MEM char *path = path_of("fifo"), *line = NULL;
	struct access_record r = full_record();
	struct access_log *log = NULL;
	uint64_t written = 0;
	size_t size = 0;
	FILE *reader;
	int fd;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(access_log_open(&log, path, true), 0);
	while (access_log_dropped(log) == 0) {
		access_log_write(log, &r);
		written++;
		assert_in_range(written, 1, 100000);
	}
	assert_in_range(written, 10000, 100000); /* 16 MiB of about 900 bytes */

	OWNED_MEM char *want = print(&r, true);

	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
	reader = fdopen(fd, "r");
	for (uint64_t i = 0; i < written - 1; i++) { /* the last one was dropped */
		assert_true(getline(&line, &size, reader) > 0);
		assert_string_equal(line, want);
	}
	access_log_write(log, &r); /* there is room again */
	assert_true(getline(&line, &size, reader) > 0);
	assert_string_equal(line, want);
	assert_int_equal(access_log_dropped(log), 1);
	access_log_close(log);
	fclose(reader);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void test_close_does_not_wait_for_ever(void **state)
{
	OWNED_MEM char *path = path_of("stuck");
	struct access_record r = full_record();
	struct access_log *log = NULL;
	uint64_t start;
	int fd;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_int_equal(access_log_open(&log, path, true), 0);
	for (int i = 0; i < 1000; i++) /* more than a pipe holds */
		access_log_write(log, &r);
	start = now_ms();
	access_log_close(log);
	assert_in_range(now_ms() - start, 1900, 9000);
	close(fd);
}

static void test_survives_its_reader(void **state)
{
	OWNED_MEM char *path = path_of("broken");
	struct access_record r = full_record();
	struct access_log *log = NULL;
	int fd;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_int_equal(access_log_open(&log, path, true), 0);
	close(fd);
	access_log_write(log, &r); /* EPIPE, and no SIGPIPE */
	WAIT_FOR(access_log_dropped(log) == 1);

	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	access_log_write(log, &r);
	access_log_close(log);
	FILE *reader = fdopen(fd, "r");

	assert_int_equal(count_json_lines(reader), 1);
	fclose(reader);
}

static void test_full_disk_is_counted(void **state)
{
	struct access_record r = full_record();
	struct access_log *log = NULL;

	(void)state;
	if (access("/dev/full", W_OK) < 0)
		fail_msg("/dev/full is needed");
	assert_int_equal(access_log_open(&log, "/dev/full", true), 0);
	access_log_write(log, &r);
	WAIT_FOR(access_log_dropped(log) == 1);
	access_log_close(log);
}

/* In a process of its own, whose limits and streams may be changed. Returns its exit status. */
static int in_child(void (*run)(const char *path), const char *path)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		run(path);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

#define TORN_AT 100

/* A limit stands for a full disk: it cuts a line, and is lifted. */
static void tear_a_line(const char *path)
{
	struct access_record r = full_record();
	struct rlimit limit;
	struct access_log *log;

	getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = TORN_AT;
	if (setrlimit(RLIMIT_FSIZE, &limit) < 0 || access_log_open(&log, path, true) < 0)
		_exit(1);
	access_log_write(log, &r);
	while (access_log_dropped(log) == 0)
		poll(NULL, 0, 1);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_FSIZE, &limit);
	access_log_write(log, &r);
	access_log_close(log);
}

static void test_torn_line_harms_no_other(void **state)
{
	OWNED_MEM char *path = path_of("torn");
	char first[2 * TORN_AT];
	FILE *f;

	(void)state;
	assert_int_equal(in_child(tear_a_line, path), 0);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(fgets(first, sizeof(first), f));
	assert_int_equal(strlen(first), TORN_AT + 1);
	assert_int_equal(count_json_lines(f), 1);
	fclose(f);
}

static int stdout_socket;

static void write_to_socket(const char *path)
{
	struct access_record r = full_record();
	struct access_log *log;

	if (dup2(stdout_socket, STDOUT_FILENO) < 0 || access_log_open(&log, path, true) < 0)
		_exit(1);
	access_log_write(log, &r);
	access_log_close(log);
}

/* As under systemd: /dev/stdout is a socket, which open() refuses. */
static void test_stdout_may_be_a_socket(void **state)
{
	int pair[2];
	FILE *f;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	stdout_socket = pair[1];
	assert_int_equal(in_child(write_to_socket, "/dev/stdout"), 0);
	close(pair[1]);
	f = fdopen(pair[0], "r");
	assert_int_equal(count_json_lines(f), 1);
	fclose(f);
}

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	static const char *const names[] = {"threads", "soon",  "rotated", "rotated.1",
					    "fifo",    "stuck", "broken",  "torn"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		OWNED_MEM char *path = path_of(names[i]);

		unlink(path);
	}
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_names_every_field_in_order),
		cmocka_unit_test(test_start_time),
		cmocka_unit_test(test_escapes),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_cuts_between_characters),
		cmocka_unit_test(test_line_is_bounded),
		cmocka_unit_test(test_any_bytes_make_a_valid_line),
		cmocka_unit_test(test_threads_write_whole_lines),
		cmocka_unit_test(test_line_arrives_without_close),
		cmocka_unit_test(test_reopens_after_rotation),
		cmocka_unit_test(test_says_what_cannot_be_opened),
		cmocka_unit_test(test_full_pipe_drops_and_counts),
		cmocka_unit_test(test_close_does_not_wait_for_ever),
		cmocka_unit_test(test_survives_its_reader),
		cmocka_unit_test(test_full_disk_is_counted),
		cmocka_unit_test(test_torn_line_harms_no_other),
		cmocka_unit_test(test_stdout_may_be_a_socket),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
