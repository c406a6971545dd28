/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/admin.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/owned.h"

#define BIG (8UL << 20)

/* The server on a thread of its own, and what its handlers keep. */
struct server {
	struct loop *loop;
	struct admin *admin;
	pthread_t thread;
	char folder[32], *path;
	uint16_t port;
	struct message stop;
	struct timer timer;
	struct admin_request *delayed;        /* answered by the timer */
	_Atomic(struct admin_request *) held; /* answered by the test, on the loop */
	struct message answer_held;
};

/* ---- handlers ---- */

static void handle_now(void *ctx, struct admin_request *request)
{
	(void)ctx;
	admin_reply_json(request, 200, json_pack("{s:s}", "a", "b"));
}

static void on_delay(struct timer *t)
{
	struct server *s = CONTAINER_OF(t, struct server, timer);

	admin_reply_text(s->delayed, 503, "later\n");
}

static void handle_later(void *ctx, struct admin_request *request)
{
	struct server *s = ctx;

	s->delayed = request;
	timer_start(s->loop, &s->timer, 30);
}

static void handle_held(void *ctx, struct admin_request *request)
{
	struct server *s = ctx;

	s->held = request;
}

static void on_answer_held(struct message *m)
{
	struct server *s = CONTAINER_OF(m, struct server, answer_held);

	admin_reply_text(s->held, 200, "held\n");
	s->held = NULL;
}

static void handle_big(void *ctx, struct admin_request *request)
{
	char *body = malloc(BIG);

	(void)ctx;
	assert_non_null(body);
	for (size_t i = 0; i < BIG; i++)
		body[i] = (char)('a' + i % 23);
	admin_reply(request, 200, "text/plain", body, BIG);
}

static void handle_echo(void *ctx, struct admin_request *request)
{
	const char *target = admin_param(request, "target"), *pod = admin_param(request, "pod");
	char text[512];

	(void)ctx;
	snprintf(text, sizeof(text), "[%s][%s][%s]", target ?: "-", pod ?: "-",
		 admin_param(request, "flag") ?: "-");
	admin_reply_text(request, 200, text);
}

static void handle_no_memory(void *ctx, struct admin_request *request)
{
	(void)ctx;
	admin_reply_json(request, 200, NULL);
}

static const struct admin_route routes[] = {
	{"/now", handle_now}, {"/later", handle_later}, {"/held", handle_held},
	{"/big", handle_big}, {"/echo", handle_echo},   {"/no-memory", handle_no_memory},
	{NULL, NULL},
};

/* ---- the server ---- */

static void on_stop(struct message *m)
{
	struct server *s = CONTAINER_OF(m, struct server, stop);

	loop_stop(s->loop);
}

static void *run(void *arg)
{
	struct server *s = arg;

	assert_int_equal(loop_run(s->loop), 0);
	return NULL;
}

/* A bound socket that never listens keeps the port for the server: both have SO_REUSEADDR. */
static int reserve_port(uint16_t *ret_port)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	*ret_port = ntohs(sa.sin6_port);
	return fd;
}

static void server_start(struct server *s)
{
	OWNED_FD int reserved = -1;
	struct addr any = {0};

	*s = (struct server){.folder = "/tmp/test_admin.XXXXXX"};
	s->timer.on_expire = on_delay;
	s->stop.run = on_stop;
	s->answer_held.run = on_answer_held;
	assert_non_null(mkdtemp(s->folder));
	assert_true(asprintf(&s->path, "%s/made/admin.sock", s->folder) > 0);
	assert_int_equal(loop_new(&s->loop), 0);
	assert_int_equal(admin_new(&s->admin, s->loop), 0);
	assert_int_equal(admin_listen_unix(s->admin, s->path, routes, s), 0);
	reserved = reserve_port(&s->port);
	any.port = s->port;
	assert_int_equal(admin_listen_tcp(s->admin, &any, routes, s), 0);
	assert_int_equal(pthread_create(&s->thread, NULL, run, s), 0);
}

static void server_stop(struct server *s)
{
	char folder[64];

	loop_post(s->loop, &s->stop);
	pthread_join(s->thread, NULL);
	admin_free(s->admin);
	if (s->held)
		admin_reply_text(s->held, 200, "into the void");
	loop_free(s->loop);
	assert_int_equal(access(s->path, F_OK), -1);
	snprintf(folder, sizeof(folder), "%s/made", s->folder);
	assert_int_equal(rmdir(folder), 0);
	assert_int_equal(rmdir(s->folder), 0);
	free(s->path);
}

static int setup(void **state)
{
	struct server *s = malloc(sizeof(*s));

	server_start(s);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	server_stop(*state);
	free(*state);
	return 0;
}

/* ---- clients ---- */

/* Everything that curl prints. `where` is what comes before the URL's path. */
static char *curl(const char *options, const char *where, const char *path)
{
	OWNED_MEM char *command = NULL, *buf = malloc(BIG + 65536);
	size_t n;
	FILE *f;

	assert_non_null(buf);
	assert_true(asprintf(&command, "curl -q -s -g --noproxy '*' -m 20 %s '%s%s'", options,
			     where, path) > 0);
	f = popen(command, "r");
	assert_non_null(f);
	n = fread(buf, 1, BIG + 65535, f);
	buf[n] = '\0';
	assert_int_equal(pclose(f), 0);
	return TAKE_PTR(buf);
}

static char *curl_unix(const struct server *s, const char *options, const char *path)
{
	char text[256];

	snprintf(text, sizeof(text), "%s --unix-socket %s", options, s->path);
	return curl(text, "http://localhost", path);
}

static int connect_unix(const struct server *s)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", s->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static int connect_tcp(const struct server *s)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(s->port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static void send_all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t got = send(fd, p, n, MSG_NOSIGNAL);

		assert_true(got > 0);
		p += got;
		n -= (size_t)got;
	}
}

static size_t receive_all(int fd, char *buf, size_t size)
{
	size_t n = 0;
	ssize_t got;

	while (n < size - 1 && (got = recv(fd, buf + n, size - 1 - n, 0)) > 0)
		n += (size_t)got;
	buf[n] = '\0';
	return n;
}

static void exchange(int fd, const char *request, size_t len, char answer[4096])
{
	send_all(fd, request, len);
	receive_all(fd, answer, 4096);
	close(fd);
}

#define WAIT_FOR(condition)                         \
	do {                                        \
		int left_ = 1000;                   \
		while (!(condition) && left_-- > 0) \
			poll(NULL, 0, 10);          \
		assert_true(condition);             \
	} while (0)

/* ---- tests ---- */

static void test_curl_gets_json(void **state)
{
	struct server *s = *state;
	char where[64];

	OWNED_MEM char *over_unix = curl_unix(s, "-i", "/now");

	assert_string_equal(over_unix, "HTTP/1.1 200 OK\r\n"
				       "Content-Type: application/json\r\n"
				       "Content-Length: 9\r\n"
				       "Cache-Control: no-store\r\n"
				       "Connection: close\r\n\r\n"
				       "{\"a\":\"b\"}");
	snprintf(where, sizeof(where), "http://127.0.0.1:%u", s->port);
	OWNED_MEM char *over_v4 = curl("", where, "/now");

	assert_string_equal(over_v4, "{\"a\":\"b\"}");
	snprintf(where, sizeof(where), "http://[::1]:%u", s->port);
	OWNED_MEM char *over_v6 = curl("", where, "/now");

	assert_string_equal(over_v6, "{\"a\":\"b\"}");
}

static void test_head_has_no_body(void **state)
{
	OWNED_MEM char *answer = curl_unix(*state, "-I", "/now");

	assert_non_null(strstr(answer, "200 OK"));
	assert_non_null(strstr(answer, "Content-Length: 9\r\n"));
	assert_null(strstr(answer, "{"));
}

static void test_answer_may_come_later(void **state)
{
	OWNED_MEM char *answer = curl_unix(*state, "-w '%{http_code}'", "/later");

	assert_string_equal(answer, "later\n503");
}

static void test_parameters(void **state)
{
	static const struct {
		const char *path, *want;
	} cases[] = {
		{"/echo", "[-][-][-]"},
		{"/echo?", "[-][-][-]"},
		{"/echo?target=a.io%3A443&pod=ns/x", "[a.io:443][ns/x][-]"},
		{"/echo?pod=a+b%2Bc&flag", "[-][a b+c][]"},
		{"/echo?target=&pod==x=y&", "[][=x=y][-]"},
		{"/echo?target=1&target=2", "[1][-][-]"},
		{"/echo?t%61rget=q?x", "[q?x][-][-]"},
		{"/echo?target=%5B2001:db8::1%5D:443", "[[2001:db8::1]:443][-][-]"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED_MEM char *answer = curl_unix(*state, "", cases[i].path);

		assert_string_equal(answer, cases[i].want);
	}
}

static void test_errors(void **state)
{
	static const struct {
		const char *options, *path, *want;
	} cases[] = {
		{"", "/nothing", "404"},
		{"", "/now/", "404"},
		{"", "/", "404"},
		{"-X POST", "/now", "405"},
		{"-X POST", "/nothing", "404"},
		{"-d a=b", "/now", "405"},
		{"-X DELETE", "/now", "405"},
		{"", "/echo?a=%00", "400"},
		{"", "/echo?a=%4", "400"},
		{"", "/echo?a=%zz", "400"},
		{"", "/echo?a&b&c&d&e&f&g&h&i&j&k&l&m&n&o&p&q", "400"},
		{"", "/no-memory", "500"},
		{"-0", "/now", "200"}, /* HTTP/1.0 */
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char options[64];

		snprintf(options, sizeof(options), "%s -o /dev/null -w '%%{http_code}'",
			 cases[i].options);
		OWNED_MEM char *code = curl_unix(*state, options, cases[i].path);

		assert_string_equal(code, cases[i].want);
	}

	OWNED_MEM char *answer = curl_unix(*state, "-i -X PUT", "/now");

	assert_non_null(strstr(answer, "\r\nAllow: GET, HEAD\r\n"));
}

static void test_raw_requests(void **state)
{
	static const struct {
		const char *request, *want;
	} cases[] = {
		{"GET /now HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200 "},
		{"GET /now HTTP/1.0\r\n\r\n", "HTTP/1.1 200 "},
		{"GET /now HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"GET /now HTTP/1.1\r\nHost : x\r\n\r\n", "HTTP/1.1 400 "},
		{"GET /now HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 400 "},
		{"\x16\x03\x01\x02\x00\x01", "HTTP/1.1 400 "},
		/* what follows the request does not destroy the answer */
		{"GET /now HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 200 "},
		{"GET /now HTTP/1.1\r\nHost: x\r\n\r\nGET /now HTTP/1.1\r\nHost: x\r\n\r\n",
		 "HTTP/1.1 200 "},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char answer[4096];

		exchange(connect_unix(*state), cases[i].request, strlen(cases[i].request), answer);
		assert_memory_equal(answer, cases[i].want, strlen(cases[i].want));
		exchange(connect_tcp(*state), cases[i].request, strlen(cases[i].request), answer);
		assert_memory_equal(answer, cases[i].want, strlen(cases[i].want));
		assert_null(strstr(answer + 1, "HTTP/1.1")); /* one answer, then the end */
	}
}

static void test_request_too_long(void **state)
{
	static const char start[] = "GET /now HTTP/1.1\r\nHost: x\r\nA: ";
	char request[9000], answer[4096];

	memset(request, 'a', sizeof(request));
	memcpy(request, start, sizeof(start) - 1);
	exchange(connect_tcp(*state), request, sizeof(request), answer);
	assert_memory_equal(answer, "HTTP/1.1 431 ", 13);
}

static void test_byte_by_byte(void **state)
{
	static const char request[] = "GET /now HTTP/1.1\r\nHost: x\r\n\r\n";
	int fd = connect_tcp(*state);
	char answer[4096];

	for (size_t i = 0; i < sizeof(request) - 1; i++)
		send_all(fd, request + i, 1);
	receive_all(fd, answer, sizeof(answer));
	close(fd);
	assert_memory_equal(answer, "HTTP/1.1 200 ", 13);
}

/* More than any socket buffer, read slowly, whole. */
static void test_big_answer(void **state)
{
	OWNED_MEM char *answer = curl_unix(*state, "", "/big");
	OWNED_MEM char *slow = malloc(BIG + 4096);
	static const char request[] = "GET /big HTTP/1.1\r\nHost: x\r\n\r\n";
	int fd = connect_tcp(*state);
	size_t n = 0;
	char *body;
	ssize_t got;

	assert_int_equal(strlen(answer), BIG);
	for (size_t i = 0; i < BIG; i += 997)
		assert_int_equal(answer[i], 'a' + i % 23);

	assert_non_null(slow);
	send_all(fd, request, sizeof(request) - 1);
	while ((got = recv(fd, slow + n, BIG + 4095 - n > 10000 ? 10000 : BIG + 4095 - n, 0)) > 0)
		n += (size_t)got;
	close(fd);
	slow[n] = '\0';
	body = strstr(slow, "\r\n\r\n");
	assert_non_null(body);
	assert_string_equal(body + 4, answer);
}

static void test_client_gone_before_the_answer(void **state)
{
	static const char request[] = "GET /held HTTP/1.1\r\nHost: x\r\n\r\n";
	struct server *s = *state;

	for (int tcp = 0; tcp <= 1; tcp++) {
		int fd = tcp ? connect_tcp(s) : connect_unix(s);

		send_all(fd, request, sizeof(request) - 1);
		WAIT_FOR(s->held);
		close(fd);
		OWNED_MEM char *meanwhile = curl_unix(s, "", "/now");

		assert_string_equal(meanwhile, "{\"a\":\"b\"}");
		loop_post(s->loop, &s->answer_held);
		WAIT_FOR(!s->held);
	}

	/* One that only closed its own direction still wants the answer. */
	int fd = connect_unix(s);
	char answer[4096];

	send_all(fd, request, sizeof(request) - 1);
	shutdown(fd, SHUT_WR);
	WAIT_FOR(s->held);
	loop_post(s->loop, &s->answer_held);
	receive_all(fd, answer, sizeof(answer));
	close(fd);
	assert_non_null(strstr(answer, "held\n"));

	/* And one that is never answered: the server's end deals with it. */
	fd = connect_unix(s);
	send_all(fd, request, sizeof(request) - 1);
	WAIT_FOR(s->held);
	close(fd);
}

/* Two hundred that say nothing do not keep a probe out; the oldest make room. */
static void test_scanner_locks_nobody_out(void **state)
{
	int fds[200];
	char byte;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = connect_tcp(*state);
	static const char request[] = "GET /now HTTP/1.1\r\nHost: x\r\n\r\n";
	char answer[4096];

	exchange(connect_tcp(*state), request, sizeof(request) - 1, answer);
	assert_memory_equal(answer, "HTTP/1.1 200 ", 13);
	assert_int_equal(recv(fds[0], &byte, 1, 0), 0);               /* the oldest was closed */
	assert_int_equal(recv(fds[199], &byte, 1, MSG_DONTWAIT), -1); /* the youngest was not */

	OWNED_MEM char *on_unix = curl_unix(*state, "", "/now");

	assert_string_equal(on_unix, "{\"a\":\"b\"}");
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

/* ---- sockets ---- */

static void free_admin(struct admin **a)
{
	admin_free(*a);
}

static void free_loop(struct loop **l)
{
	loop_free(*l);
}

static void test_unix_socket_file(void **state)
{
	struct server *s = *state;
	OWNED(free_loop) struct loop *loop = NULL;
	OWNED(free_admin) struct admin *admin = NULL;
	char path[128], long_path[200];
	struct stat st;
	int fd;

	assert_int_equal(stat(s->path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0600);

	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(admin_new(&admin, loop), 0);
	assert_int_equal(admin_listen_unix(admin, s->path, routes, s), -EADDRINUSE);
	assert_int_equal(access(s->path, F_OK), 0); /* the other's is still there */

	memset(long_path, 'x', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	assert_int_equal(admin_listen_unix(admin, long_path, routes, s), -ENAMETOOLONG);

	snprintf(path, sizeof(path), "%s/file", s->folder);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(admin_listen_unix(admin, path, routes, s), -EEXIST);
	assert_int_equal(unlink(path), 0);
}

static void test_stale_socket_is_replaced(void **state)
{
	struct server *s = *state;
	OWNED(free_loop) struct loop *loop = NULL;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct admin *first = NULL, *second = NULL;
	char moved[256];
	int fd;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/stale", s->folder);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	close(fd); /* as after a kill: the file stays */

	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(admin_new(&first, loop), 0);
	assert_int_equal(admin_listen_unix(first, sa.sun_path, routes, s), 0);

	/* A successor has put its own there: that one is not ours to remove. */
	snprintf(moved, sizeof(moved), "%s/moved", s->folder);
	assert_int_equal(rename(sa.sun_path, moved), 0);
	assert_int_equal(admin_new(&second, loop), 0);
	assert_int_equal(admin_listen_unix(second, sa.sun_path, routes, s), 0);
	admin_free(first);
	assert_int_equal(access(sa.sun_path, F_OK), 0);
	admin_free(second);
	assert_int_equal(access(sa.sun_path, F_OK), -1);
	assert_int_equal(unlink(moved), 0);
}

static void test_tcp_port_in_use(void **state)
{
	struct server *s = *state;
	OWNED(free_loop) struct loop *loop = NULL;
	OWNED(free_admin) struct admin *admin = NULL;
	struct addr any = {.port = s->port}, v4;

	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(admin_new(&admin, loop), 0);
	assert_int_equal(admin_listen_tcp(admin, &any, routes, s), -EADDRINUSE);
	assert_int_equal(addr_parse_ip("127.0.0.1", &v4), 0);
	v4.port = s->port; /* the wildcard took IPv4 too */
	assert_int_equal(admin_listen_tcp(admin, &v4, routes, s), -EADDRINUSE);
}

/* Out of descriptors the server waits, and serves again when there are some. */
static void test_survives_lack_of_descriptors(void **state)
{
	struct server *s = *state;
	struct rlimit before, none;
	char answer[4096];
	static const char request[] = "GET /now HTTP/1.1\r\nHost: x\r\n\r\n";
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(s->port)};

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = (rlim_t)fd + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	send_all(fd, request, sizeof(request) - 1);
	poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 50); /* it fails at least once */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	receive_all(fd, answer, sizeof(answer));
	close(fd);
	assert_memory_equal(answer, "HTTP/1.1 200 ", 13);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SERVER(test_curl_gets_json),
		WITH_SERVER(test_head_has_no_body),
		WITH_SERVER(test_answer_may_come_later),
		WITH_SERVER(test_parameters),
		WITH_SERVER(test_errors),
		WITH_SERVER(test_raw_requests),
		WITH_SERVER(test_request_too_long),
		WITH_SERVER(test_byte_by_byte),
		WITH_SERVER(test_big_answer),
		WITH_SERVER(test_client_gone_before_the_answer),
		WITH_SERVER(test_scanner_locks_nobody_out),
		WITH_SERVER(test_unix_socket_file),
		WITH_SERVER(test_stale_socket_is_replaced),
		WITH_SERVER(test_tcp_port_in_use),
		WITH_SERVER(test_survives_lack_of_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
