/* SPDX-License-Identifier: Apache-2.0 */

/* sluicectl as a function, against a real admin server on a unix socket. */
int sluicectl_main(int argc, char **argv);
#define main sluicectl_main
#include "admin/ctl/main.c"
#undef main
#include "admin/ctl/check.c"
#include "admin/ctl/client.c"
#include "admin/ctl/config.c"
#include "admin/ctl/connections.c"
#include "admin/ctl/pods.c"
#include "admin/ctl/registry.c"
#include "admin/ctl/table.c"

#include <pthread.h>
#include <setjmp.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "admin/admin.h"

/* ---- the agent's end ---- */

static struct server {
	struct loop *loop;
	struct admin *admin;
	pthread_t thread;
	struct message stop;
	char folder[32], path[64];
} server = {.folder = "/tmp/test_sluicectl.XXXXXX"};

static const char pods_json[] =
	"[{\"namespace\":\"shop\",\"pod\":\"cart-7d9\",\"service_account\":\"cart\",\"netns\":"
	"\"4026\","
	"\"backend\":\"nftables\",\"guard\":\"tcx\",\"state\":\"enrolled\",\"enrolled_at\":\"2026-"
	"01-01T00:00:00Z\","
	"\"connections\":2},"
	"{\"namespace\":\"a\",\"pod\":\"\",\"service_account\":null,\"connections\":10}]";

static const char registry_json[] =
	"[{\"host\":\"api.example.com\",\"port\":443,\"protocol\":\"TLS\",\"resolution\":\"DNS\","
	"\"target_port\":443,\"endpoints\":[\"192.0.2.1:443\",\"192.0.2.2:443\"],\"addresses\":[],"
	"\"export_to\":[],\"service_entry\":\"shop/api\"}]";

/* ESC, CSI as C1, DEL, and a character of three bytes */
static const char connections_json[] =
	"[{\"source\":\"shop/cart\",\"authority\":\"a\\u001b[2Jb\\u009bc\\u007f\xe2\x82\xac\"}]";

static void reply(void *ctx, struct admin_request *request, const char *text)
{
	json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);

	(void)ctx;
	assert_non_null(json);
	admin_reply_json(request, 200, json);
}

static void handle_pods(void *ctx, struct admin_request *request)
{
	reply(ctx, request, pods_json);
}

static void handle_registry(void *ctx, struct admin_request *request)
{
	reply(ctx, request, registry_json);
}

static void handle_connections(void *ctx, struct admin_request *request)
{
	reply(ctx, request, connections_json);
}

static void handle_config(void *ctx, struct admin_request *request)
{
	reply(ctx, request, "{\"role\":\"Node\",\"workers\":2}");
}

/* Says what it was asked. */
static void handle_check(void *ctx, struct admin_request *request)
{
	const char *target = admin_param(request, "target");
	const char *protocol = admin_param(request, "protocol");
	bool allow = strcmp(target, "good.io:443") == 0;

	(void)ctx;
	if (strcmp(target, "bad") == 0)
		admin_reply_text(request, 400, "target must be HOST:PORT\n");
	else if (strcmp(target, "odd:1") == 0)
		admin_reply_text(request, 200, "no JSON");
	else
		admin_reply_json(request, 200,
				 json_pack("{s:s, s:s, s:s, s:s?, s:s, s:n}", "decision",
					   allow ? "ALLOW" : "DENY", "reason",
					   allow ? "" : "host_not_registered", "host", target,
					   "protocol", protocol, "detail",
					   admin_param(request, "pod"), "gateway"));
}

static const struct admin_route routes[] = {
	{"/pods", handle_pods},     {"/registry", handle_registry},
	{"/config", handle_config}, {"/connections", handle_connections},
	{"/check", handle_check},   {NULL, NULL},
};

/* The agent of the other role, or of another version. */
static const struct admin_route strange_routes[] = {{"/pods", handle_config}, {NULL, NULL}};

static void on_stop(struct message *m)
{
	(void)m;
	loop_stop(server.loop);
}

static void *serve(void *arg)
{
	(void)arg;
	loop_run(server.loop);
	return NULL;
}

static int start(void **state)
{
	char strange[80];

	(void)state;
	assert_non_null(mkdtemp(server.folder));
	snprintf(server.path, sizeof(server.path), "%s/sock", server.folder);
	snprintf(strange, sizeof(strange), "%s.strange", server.path);
	server.stop.run = on_stop;
	assert_int_equal(loop_new(&server.loop), 0);
	assert_int_equal(admin_new(&server.admin, server.loop), 0);
	assert_int_equal(admin_listen_unix(server.admin, server.path, routes, NULL), 0);
	assert_int_equal(admin_listen_unix(server.admin, strange, strange_routes, NULL), 0);
	return pthread_create(&server.thread, NULL, serve, NULL);
}

static int stop(void **state)
{
	(void)state;
	loop_post(server.loop, &server.stop);
	pthread_join(server.thread, NULL);
	admin_free(server.admin);
	loop_free(server.loop);
	return rmdir(server.folder);
}

/* ---- the person's end ---- */

struct outcome {
	int status;
	char out[4096], err[1024];
};

static void read_back(FILE *f, char *buf, size_t size)
{
	rewind(f);
	buf[fread(buf, 1, size - 1, f)] = '\0';
	fclose(f);
}

/* Runs `line`, cut at blanks; "@" stands for the agent's socket. */
static struct outcome ctl(const char *line)
{
	OWNED_MEM char *copy = strdup(line);
	OWNED_FD int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
	FILE *new_out = tmpfile(), *new_err = tmpfile();
	char *argv[32] = {"sluicectl"}, *rest = copy, *word;
	struct outcome o;
	int argc = 1;

	while ((word = strsep(&rest, " ")) && argc < 31)
		argv[argc++] = strcmp(word, "@") == 0 ? server.path : word;
	fflush(stdout);
	dup2(fileno(new_out), STDOUT_FILENO);
	dup2(fileno(new_err), STDERR_FILENO);
	optind = 0; /* getopt starts anew */
	o.status = sluicectl_main(argc, argv);
	fflush(stdout);
	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	read_back(new_out, o.out, sizeof(o.out));
	read_back(new_err, o.err, sizeof(o.err));
	return o;
}

static void test_tables(void **state)
{
	static const struct {
		const char *line, *want;
	} cases[] = {
		{"--admin @ pods",
		 "NAMESPACE  POD       SERVICE-ACCOUNT  STATE     BACKEND   GUARD  CONNECTIONS  "
		 "ENROLLED-AT           NETNS\n"
		 "shop       cart-7d9  cart             enrolled  nftables  tcx    2            "
		 "2026-01-01T00:00:00Z  4026\n"
		 "a          -         -                -         -         -      10           "
		 "-                     -\n"},
		{"registry --admin @",
		 "HOST             PORT  PROTOCOL  RESOLUTION  TARGET-PORT  "
		 "ENDPOINTS                    ADDRESSES  EXPORT-TO  SERVICE-ENTRY\n"
		 "api.example.com  443   TLS       DNS         443          "
		 "192.0.2.1:443,192.0.2.2:443  -          -          shop/api\n"},
		{"--admin @ config", "{\n  \"role\": \"Node\",\n  \"workers\": 2\n}\n"},
		{"check good.io:443 --pod shop/cart --admin @", "FIELD     VALUE\n"
								"decision  ALLOW\n"
								"detail    shop/cart\n"
								"host      good.io:443\n"},
		{"--admin @ check --pod shop/cart --protocol tls x.io:1",
		 "FIELD     VALUE\n"
		 "decision  DENY\n"
		 "reason    host_not_registered\n"
		 "detail    shop/cart\n"
		 "host      x.io:1\n"
		 "protocol  tls\n"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct outcome o = ctl(cases[i].line);

		assert_string_equal(o.err, "");
		assert_string_equal(o.out, cases[i].want);
	}
}

static void test_peers_cannot_steer_the_terminal(void **state)
{
	struct outcome o = ctl("--admin @ connections");

	(void)state;
	assert_int_equal(o.status, EXIT_DONE);
	assert_non_null(strstr(o.out, "  a?[2Jb??c?\xe2\x82\xac  "));
	assert_null(strchr(o.out, 0x1b));
}

static void test_json_is_raw(void **state)
{
	static const struct {
		const char *line, *want;
	} cases[] = {
		{"--admin @ --json pods", pods_json},
		{"registry --json --admin @", registry_json},
		{"--admin @ config --json", "{\"role\":\"Node\",\"workers\":2}"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct outcome o = ctl(cases[i].line);
		size_t n = strlen(cases[i].want);

		assert_int_equal(o.status, EXIT_DONE);
		assert_memory_equal(o.out, cases[i].want, n);
		assert_string_equal(o.out + n, "\n");
	}
}

static void test_exit_status(void **state)
{
	static const struct {
		const char *line;
		int status;
		const char *err; /* what the one line says; NULL: nothing */
	} cases[] = {
		{"version", EXIT_DONE, NULL},
		{"help", EXIT_DONE, NULL},
		{"--help", EXIT_DONE, NULL},
		{"check good.io:443 --pod a/b --admin @", EXIT_DONE, NULL},
		{"check good.io:443 --pod a/b --admin @ --json", EXIT_DONE, NULL},
		{"check x.io:443 --pod a/b --admin @", EXIT_DENIED, NULL},
		{"check x.io:443 --pod a/b --admin @ --json", EXIT_DENIED, NULL},
		{"check bad --pod a/b --admin @", EXIT_FAILED, "target must be HOST:PORT"},
		{"check odd:1 --pod a/b --admin @", EXIT_FAILED, "not JSON"},
		{"check --pod a/b --admin @", EXIT_USAGE, "HOST:PORT"},
		{"check x:1 --admin @", EXIT_USAGE, "--pod NS/NAME"},
		{"check x:1 --pod shop --admin @", EXIT_USAGE, "NAMESPACE/NAME"},
		{"check x:1 y:1 --pod a/b", EXIT_USAGE, "one word too many: 'y:1'"},
		{"pods extra --admin @", EXIT_USAGE, "one word too many: 'extra'"},
		{"pods --admin /nowhere/sock", EXIT_FAILED,
		 "cannot reach the agent at '/nowhere/sock': is sluice-agent running? (--admin "
		 "names another socket)"},
		{"enroll --pod a/b --service-account c", EXIT_USAGE, "--netns PATH"},
		{"enroll --pod a/b --netns /x", EXIT_USAGE, "--service-account SA"},
		{"enroll --netns /x --service-account c", EXIT_USAGE, "--pod NS/NAME"},
		{"enroll --pod A/b --netns /x --service-account c", EXIT_USAGE, "NAMESPACE/NAME"},
		{"enroll --pod a/b --netns /proc/self/ns/net --service-account c --socket "
		 "/nowhere/agent.sock",
		 EXIT_FAILED, "cannot enroll pod 'a/b': "},
		{"unenroll --pod a/b --socket /nowhere/agent.sock", EXIT_FAILED,
		 "cannot unenroll pod 'a/b': "},
		{"", EXIT_USAGE, "unknown command"},
		{"fly", EXIT_USAGE, "unknown command 'fly'"},
		{"--fly pods", EXIT_USAGE, "unknown option '--fly'"},
		{"pods --admin", EXIT_USAGE, "takes a value: '--admin'"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct outcome o = ctl(cases[i].line);

		if (o.status != cases[i].status)
			fail_msg("'%s' exits %d: %s", cases[i].line, o.status, o.err);
		if (!cases[i].err) {
			assert_string_equal(o.err, "");
			continue;
		}
		if (!strstr(o.err, cases[i].err))
			fail_msg("'%s' says: %s", cases[i].line, o.err);
		assert_memory_equal(o.err, "sluicectl: ", 11);
		assert_int_equal(strcspn(o.err, "\n"), strlen(o.err) - 1); /* one line */
		assert_string_equal(o.out, "");
	}
}

static void test_other_agents(void **state)
{
	char line[128];
	struct outcome o;

	(void)state;
	snprintf(line, sizeof(line), "--admin %s.strange pods", server.path);
	o = ctl(line);
	assert_int_equal(o.status, EXIT_FAILED);
	assert_non_null(strstr(o.err, "did not answer with a list"));
	snprintf(line, sizeof(line), "--admin %s.strange registry", server.path);
	o = ctl(line);
	assert_int_equal(o.status, EXIT_FAILED);
	assert_non_null(strstr(o.err, "has no '/registry'"));
}

/* A full disk behind standard output is a failure. */
static void test_output_that_cannot_be_written(void **state)
{
	OWNED_FD int out = dup(STDOUT_FILENO);
	FILE *full = fopen("/dev/full", "w");
	char *argv[] = {"sluicectl", "--admin", server.path, "pods", NULL};
	int status;

	(void)state;
	assert_non_null(full);
	fflush(stdout);
	dup2(fileno(full), STDOUT_FILENO);
	optind = 0;
	status = sluicectl_main(4, argv);
	clearerr(stdout);
	dup2(out, STDOUT_FILENO);
	fclose(full);
	assert_int_equal(status, EXIT_FAILED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_peers_cannot_steer_the_terminal),
		cmocka_unit_test(test_json_is_raw),
		cmocka_unit_test(test_exit_status),
		cmocka_unit_test(test_other_agents),
		cmocka_unit_test(test_output_that_cannot_be_written),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
