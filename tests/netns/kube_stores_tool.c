/* SPDX-License-Identifier: Apache-2.0 */

/* What an agent learns from the Kubernetes API and tells it, for tests: everything that the hooks
 *of kube.h say is a line of JSON on standard output, and so is the answer to each line of input:
 *
 *	status | entries | enforced NS | account NS POD [UID]
 *	events NS POD N DISTINCT    N Events at once, from another thread, of DISTINCT messages
 *
 * The end of input is the end of it all.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/owned.h"
#include "kube/kube.h"

#define MANY 16

struct tool {
	struct loop *loop;
	struct kube *kube;
	struct watch input;
	char line[1024];
	size_t used;
};

static void say(json_t *json)
{
	char *text = json_dumps(json, JSON_COMPACT);

	if (!text)
		abort();
	puts(text);
	fflush(stdout);
	free(text);
	json_decref(json);
}

static json_t *addrs_json(const struct addr *addrs, size_t n)
{
	json_t *array = json_array();
	char text[ADDR_TEXT];

	for (size_t i = 0; i < n; i++)
		json_array_append_new(array, json_string(addr_print(&addrs[i], text)));
	return array;
}

/* "namespace/name": [hosts] */
static json_t *entries_json(struct kube *kube)
{
	const struct service_entry *entries;
	json_t *object = json_object();
	size_t n;

	if (!kube_entries(kube, &entries, &n)) {
		json_decref(object);
		return json_null();
	}
	for (size_t i = 0; i < n; i++) {
		json_t *hosts = json_array();
		char key[400];

		snprintf(key, sizeof(key), "%s/%s", entries[i].ns, entries[i].name);
		for (size_t k = 0; k < entries[i].n_hosts; k++)
			json_array_append_new(hosts, json_string(entries[i].hosts[k]));
		json_object_set_new(object, key, hosts);
	}
	return object;
}

/* ---- hooks ---- */

static void on_entries(void *ctx)
{
	struct tool *tool = ctx;

	say(json_pack("{s:s, s:o}", "on", "entries", "entries", entries_json(tool->kube)));
}

static void on_pod(void *ctx, const struct kube_pod *pod)
{
	(void)ctx;
	say(json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:b, s:b}", "on", "pod", "ns",
		      pod->ns, "name", pod->name, "uid", pod->uid, "account", pod->service_account,
		      "host_network", pod->host_network, "enforced", pod->enforced, "ended",
		      pod->ended, "ready", pod->ready_to_find, "unconfined", pod->unconfined));
}

static void on_pods_synced(void *ctx)
{
	(void)ctx;
	say(json_pack("{s:s}", "on", "pods_synced"));
}

static void on_gateway(void *ctx, const struct kube_gateway *gateway)
{
	(void)ctx;
	say(json_pack("{s:s, s:s, s:o}", "on", "gateway", "name", gateway->name, "endpoints",
		      addrs_json(gateway->endpoints, gateway->n_endpoints)));
}

static void on_nodes(void *ctx, const struct addr *addrs, size_t n)
{
	(void)ctx;
	say(json_pack("{s:s, s:o}", "on", "nodes", "addrs", addrs_json(addrs, n)));
}

/* ---- questions ---- */

static void say_status(struct kube *kube)
{
	struct kube_status s;

	kube_status(kube, &s);
	say(json_pack("{s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s}", "connected",
		      s.connected, "from_cache", s.from_cache, "entries", (json_int_t)s.entries,
		      "rejected", (json_int_t)s.entries_rejected, "objects", (json_int_t)s.objects,
		      "relists", (json_int_t)s.relists, "errors", (json_int_t)s.errors, "sent",
		      (json_int_t)s.events_sent, "dropped", (json_int_t)s.events_dropped,
		      "last_error", s.last_error, "last_rejected", s.last_rejected));
}

struct burst {
	struct kube *kube;
	const char *ns, *pod;
	unsigned n, distinct;
};

/* A worker that refuses connections. */
static void *send_events(void *arg)
{
	const struct burst *b = arg;

	for (unsigned i = 0; i < b->n; i++) {
		char message[64];
		struct kube_event event = {
			.kind = "Pod",
			.api_version = "v1",
			.ns = b->ns,
			.name = b->pod,
			.uid = "",
			.type = "Warning",
			.reason = "EgressDenied",
			.message = message,
			.action = "Connecting",
		};

		/* What a pod chose is not always text. */
		snprintf(message, sizeof(message), "host-%u.example\xff: host_not_registered",
			 i % b->distinct);
		kube_event(b->kube, &event);
	}
	return NULL;
}

static void do_events(struct tool *tool, const char *args)
{
	char ns[64], pod[256];
	struct burst burst = {.kube = tool->kube, .ns = ns, .pod = pod};
	pthread_t thread;

	if (sscanf(args, "%63s %255s %u %u", ns, pod, &burst.n, &burst.distinct) != 4 ||
	    burst.distinct == 0 || pthread_create(&thread, NULL, send_events, &burst) != 0)
		abort();
	pthread_join(thread, NULL);
	say(json_pack("{s:i}", "posted", (int)burst.n));
}

static void say_account(struct tool *tool, const char *args)
{
	char ns[64], pod[256], uid[64] = "", account[254];

	if (sscanf(args, "%63s %255s %63s", ns, pod, uid) < 2)
		abort();
	if (kube_service_account(tool->kube, ns, pod, uid, account))
		say(json_pack("{s:s}", "account", account));
	else
		say(json_pack("{s:n}", "account"));
}

static void do_line(struct tool *tool, const char *line)
{
	if (strcmp(line, "status") == 0)
		say_status(tool->kube);
	else if (strcmp(line, "entries") == 0)
		say(json_pack("{s:o}", "entries", entries_json(tool->kube)));
	else if (strncmp(line, "enforced ", 9) == 0)
		say(json_pack("{s:i}", "enforced", kube_is_enforced(tool->kube, line + 9)));
	else if (strncmp(line, "account ", 8) == 0)
		say_account(tool, line + 8);
	else if (strncmp(line, "events ", 7) == 0)
		do_events(tool, line + 7);
	else
		say(json_pack("{s:s}", "unknown", line));
}

static void on_input(struct watch *w, uint32_t events)
{
	struct tool *tool = CONTAINER_OF(w, struct tool, input);
	ssize_t n = read(w->fd, tool->line + tool->used, sizeof(tool->line) - 1 - tool->used);
	char *end;

	(void)events;
	if (n <= 0) {
		loop_stop(tool->loop);
		return;
	}
	tool->used += (size_t)n;
	tool->line[tool->used] = '\0';
	while ((end = strchr(tool->line, '\n'))) {
		*end = '\0';
		do_line(tool, tool->line);
		tool->used -= (size_t)(end + 1 - tool->line);
		memmove(tool->line, end + 1, tool->used + 1);
	}
}

/* ---- options ---- */

struct lists {
	const char *excluded[MANY], *gateways[MANY];
};

static int read_options(int argc, char **argv, struct kube_options *ret, struct lists *lists)
{
	static const struct option names[] = {
		{"kubeconfig", required_argument, NULL, 'k'},
		{"node", required_argument, NULL, 'n'},
		{"cache", required_argument, NULL, 'c'},
		{"exclude", required_argument, NULL, 'x'},
		{"gateway", required_argument, NULL, 'g'},
		{"all", no_argument, NULL, 'a'},
		{"nodes", no_argument, NULL, 'N'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) >= 0) {
		if (c == 'k')
			ret->access.kubeconfig = optarg;
		else if (c == 'n')
			ret->node_name = optarg;
		else if (c == 'c')
			ret->cache_dir = optarg;
		else if (c == 'x' && ret->n_excluded < MANY)
			lists->excluded[ret->n_excluded++] = optarg;
		else if (c == 'g' && ret->n_gateways < MANY)
			lists->gateways[ret->n_gateways++] = optarg;
		else if (c == 'a')
			ret->mode = ENROL_ALL;
		else if (c == 'N')
			ret->nodes = true;
		else
			return -EINVAL;
	}
	ret->excluded = lists->excluded;
	ret->gateways = lists->gateways;
	return 0;
}

int main(int argc, char **argv)
{
	struct tool tool = {.input = {.fd = STDIN_FILENO, .on_event = on_input}};
	struct kube_options options = {.mode = ENROL_LABELLED, .instance = "node-1"};
	struct lists lists = {0};
	const struct kube_hooks hooks = {
		.ctx = &tool,
		.on_entries = on_entries,
		.on_pod = on_pod,
		.on_pods_synced = on_pods_synced,
		.on_gateway = on_gateway,
		.on_nodes = on_nodes,
	};
	int r = read_options(argc, argv, &options, &lists);

	if (r == 0)
		r = loop_new(&tool.loop);
	if (r == 0)
		r = kube_open(&tool.kube, tool.loop, &options, &hooks);
	if (r == 0)
		r = watch_add(tool.loop, &tool.input, EPOLLIN);
	if (r == 0)
		r = loop_run(tool.loop);
	kube_close(tool.kube);
	loop_free(tool.loop);
	return r < 0 ? 1 : 0;
}
