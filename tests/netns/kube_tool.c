/* SPDX-License-Identifier: Apache-2.0 */

/* A reflector by hand, for tests: prints a line of JSON for each call of a hook, and does what
 *lines on standard input say until that ends: status			prints the reflector's
 *status call METHOD PATH [BODY]	prints the answer to a request of its own forget
 *ends the reflector
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/owned.h"
#include "kube/client.h"
#include "kube/kube_json.h"
#include "kube/reflector.h"

#define VERSIONS_MAX 8

struct tool {
	struct loop *loop;
	struct kube_client *client;
	struct reflector *reflector;
	struct watch input;
	char line[65536];
	size_t len;
};

static void say(json_t *json)
{
	json_dumpf(json, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(json);
}

/* ---- hooks ---- */

static void on_object(void *ctx, json_t *object)
{
	(void)ctx;
	say(json_pack("{ssssssss}", "hook", "object", "ns", kube_json_ns(object), "name",
		      kube_json_name(object), "rv",
		      kube_json_text(kube_json_meta(object), "resourceVersion")));
}

static void on_deleted(void *ctx, const char *ns, const char *name)
{
	(void)ctx;
	say(json_pack("{ssssss}", "hook", "deleted", "ns", ns, "name", name));
}

static void on_synced(void *ctx)
{
	(void)ctx;
	say(json_pack("{ss}", "hook", "synced"));
}

/* ---- commands ---- */

static void print_status(const struct tool *tool)
{
	struct reflector_status s;

	reflector_status(tool->reflector, &s);
	say(json_pack("{sssbsbsbsIsIsIss}", "hook", "status", "served", s.served, "synced",
		      s.synced, "watching", s.watching, "objects", (json_int_t)s.objects, "relists",
		      (json_int_t)s.relists, "errors", (json_int_t)s.errors, "last_error",
		      s.last_error));
}

static void on_answer(void *ctx, const struct kube_answer *answer)
{
	(void)ctx;
	say(json_pack("{sssisIsssIsO?}", "hook", "answer", "r", answer->r, "status",
		      (json_int_t)answer->status, "text", answer->text, "retry_after",
		      (json_int_t)answer->retry_after, "json", answer->json));
}

static void call(struct tool *tool, char *args)
{
	struct kube_call what = {.method = strsep(&args, " "), .path = strsep(&args, " ")};
	int r;

	what.body = args;
	r = what.path ? kube_call(tool->client, &what, on_answer, tool, NULL) : -EINVAL;
	if (r < 0)
		say(json_pack("{sssi}", "hook", "answer", "r", r));
}

static void command(struct tool *tool, char *line)
{
	if (strcmp(line, "status") == 0 && tool->reflector)
		print_status(tool);
	else if (strcmp(line, "forget") == 0)
		reflector_free(TAKE_PTR(tool->reflector));
	else if (strncmp(line, "call ", 5) == 0)
		call(tool, line + 5);
	else
		log_err(0, "no such command: '%s'", line);
}

static void on_input(struct watch *w, uint32_t events)
{
	struct tool *tool = CONTAINER_OF(w, struct tool, input);
	ssize_t n = read(w->fd, tool->line + tool->len, sizeof(tool->line) - tool->len);
	char *end;

	(void)events;
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		loop_stop(tool->loop);
		return;
	}
	tool->len += (size_t)n;
	while ((end = memchr(tool->line, '\n', tool->len))) {
		size_t used = (size_t)(end - tool->line) + 1;

		*end = '\0';
		command(tool, tool->line);
		memmove(tool->line, end + 1, tool->len - used);
		tool->len -= used;
	}
}

/* ---- options ---- */

struct options {
	struct kube_config access;
	struct reflector_config what;
	const char *versions[VERSIONS_MAX + 1];
};

static int read_times(const char *text, struct reflector_times *t)
{
	return sscanf(text, "%u,%u,%u,%u,%u,%u", &t->backoff_min_ms, &t->backoff_max_ms,
		      &t->missing_ms, &t->quiet_ms, &t->restart_ms, &t->watch_s) == 6
		       ? 0
		       : -EINVAL;
}

static void read_versions(char *text, const char *ret[static VERSIONS_MAX + 1])
{
	char *one;

	for (size_t n = 0; n < VERSIONS_MAX && (one = strsep(&text, ",")); n++)
		ret[n] = one;
}

static int read_options(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{"kubeconfig", required_argument, NULL, 'k'},
		{"token-file", required_argument, NULL, 't'},
		{"ca-file", required_argument, NULL, 'c'},
		{"group", required_argument, NULL, 'g'},
		{"versions", required_argument, NULL, 'v'},
		{"resource", required_argument, NULL, 'r'},
		{"ns", required_argument, NULL, 'n'},
		{"field-selector", required_argument, NULL, 'f'},
		{"label-selector", required_argument, NULL, 'l'},
		{"times", required_argument, NULL, 'T'},
		{0},
	};
	int c;

	o->what.group = "";
	o->what.versions = o->versions;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'k')
			o->access.kubeconfig = optarg;
		else if (c == 't')
			o->access.token_file = optarg;
		else if (c == 'c')
			o->access.ca_file = optarg;
		else if (c == 'g')
			o->what.group = optarg;
		else if (c == 'v')
			read_versions(optarg, o->versions);
		else if (c == 'r')
			o->what.resource = optarg;
		else if (c == 'n')
			o->what.ns = optarg;
		else if (c == 'f')
			o->what.field_selector = optarg;
		else if (c == 'l')
			o->what.label_selector = optarg;
		else if (c != 'T' || read_times(optarg, &o->what.times) < 0)
			return -EINVAL;
	}
	return o->what.resource ? 0 : -EINVAL;
}

/* ---- all of it ---- */

static int run(struct tool *tool, const struct options *o)
{
	static const struct reflector_hooks hooks = {
		.on_object = on_object, .on_deleted = on_deleted, .on_synced = on_synced};
	int r = kube_client_new(&tool->client, tool->loop, &o->access);

	if (r < 0)
		return r;
	tool->input = (struct watch){.fd = STDIN_FILENO, .on_event = on_input};
	fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
	r = watch_add(tool->loop, &tool->input, EPOLLIN);
	r = r ?: reflector_new(&tool->reflector, tool->client, tool->loop, &o->what, &hooks);
	return r ?: loop_run(tool->loop);
}

int main(int argc, char **argv)
{
	static struct tool tool;
	struct options options = {0};
	int r;

	if (read_options(argc, argv, &options) < 0) {
		fprintf(stderr, "usage: see the beginning of kube_tool.c\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	r = loop_new(&tool.loop);
	r = r ?: run(&tool, &options);
	reflector_free(tool.reflector);
	kube_client_free(tool.client);
	loop_free(tool.loop);
	return r < 0 ? 1 : 0;
}
