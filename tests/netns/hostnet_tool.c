/* SPDX-License-Identifier: Apache-2.0 */

/* The capture of cgroups by hand, without the rest of the agent, for tests.
 *
 *	hostnet_tool PIN_DIR PORT CIDR,...
 *
 * Commands come on standard input, one a line:
 *
 *	open, close, uninstall
 *	add PATH	verify PATH	remove ID	keep ID...	cluster CIDR,...
 *	listen, unlisten	on 127.0.0.1 and ::1, and accept
 *	pause, resume	accepting
 *	state ID	what the programs have of a cgroup
 *	counts ID	refusals, as WHY/PROTO=N
 *	origins		how many connections wait to be asked for
 *
 * Everything is answered in lines of JSON: {"answer": ERRNO, "text": ...} for a command, and in
 * between {"event": ...} and {"accepted": ...}; what an accepted connection sends is answered with
 * where it meant to go, and shown as {"received": ...} when it ends. The log is on standard error.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi/hostnet.h"
#include "base/addr.h"
#include "base/log.h"
#include "base/owned.h"
#include "guard/hostnet.h"
#include "net/loop.h"
#include "redirect/plan.h"

#define CIDRS_MAX 64
#define IDS_MAX   64
#define TEXT_MAX  1024
#define CPUS_MAX  1024

struct conn {
	struct watch watch;
	struct later later;
	struct addr peer, dst;
	size_t n;
	char data[256]; /* the beginning */
};

static struct {
	struct loop *loop;
	struct watch input, listeners[2];
	struct hostnet_config config;
	struct plan plan;
	struct hostnet *hostnet;
	char line[4096];
	size_t n;
	char text[TEXT_MAX]; /* of the answer */
	char error[HOSTNET_ERROR_MAX];
} tool;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	size_t n = strlen(tool.text);
	va_list args;

	va_start(args, format);
	vsnprintf(tool.text + n, TEXT_MAX - n, format, args);
	va_end(args);
}

static int make_plan(char *nets, struct plan *ret)
{
	struct cidr cidrs[CIDRS_MAX];
	struct plan_input input = {.cluster_cidrs = cidrs,
				   .capture_port = tool.config.capture_port};
	char *save = NULL;

	for (char *t = strtok_r(nets, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
		if (input.n_cluster_cidrs == CIDRS_MAX)
			return -E2BIG;
		if (cidr_parse(t, &cidrs[input.n_cluster_cidrs++]) < 0)
			return -EINVAL;
	}
	return plan_make(&input, ret);
}

/* ---- what is captured ---- */

static void on_event(void *ctx, const struct hostnet_event *e)
{
	char dst[ADDR_TEXT];

	(void)ctx;
	printf("{\"event\": {\"cgroup\": %" PRIu64 ", \"proto\": %u, \"table_full\": %s, "
	       "\"dst\": \"%s\", \"suppressed\": %u}}\n",
	       e->cgroup, e->proto, e->table_full ? "true" : "false", addr_print(&e->dst, dst),
	       e->suppressed);
}

static void free_conn(struct later *l)
{
	free(CONTAINER_OF(l, struct conn, later));
}

static void on_data(struct watch *w, uint32_t events)
{
	struct conn *c = CONTAINER_OF(w, struct conn, watch);
	char buf[4096], peer[ADDR_TEXT];
	ssize_t n = read(w->fd, buf, sizeof(buf));

	(void)events;
	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0) {
		size_t more = sizeof(c->data) - 1 - c->n;

		more = (size_t)n < more ? (size_t)n : more;
		memcpy(c->data + c->n, buf, more);
		c->n += more;
		return;
	}
	printf("{\"received\": {\"peer\": \"%s\", \"data\": \"%.*s\"}}\n",
	       addr_print(&c->peer, peer), (int)strcspn(c->data, "\"\\\r\n"), c->data);
	watch_close(w);
	c->later.run = free_conn;
	loop_later(tool.loop, &c->later);
}

static void greet(int fd, const struct addr *dst)
{
	char text[ADDR_TEXT + 2];

	addr_print(dst, text);
	strcat(text, "\n");
	if (write(fd, text, strlen(text)) < 0)
		log_debug("nobody to greet");
	shutdown(fd, SHUT_WR);
}

static void take(int fd, const struct addr *peer)
{
	struct conn *c = calloc(1, sizeof(*c));
	char a[ADDR_TEXT], b[ADDR_TEXT];
	uint64_t id = 0;
	int r = tool.hostnet && c ? 0 : -ENXIO;

	if (r == 0)
		r = hostnet_origin(tool.hostnet, fd, peer, &id, &c->dst);
	printf("{\"accepted\": {\"error\": \"%s\", \"peer\": \"%s\", \"cgroup\": %" PRIu64
	       ", \"dst\": \"%s\"}}\n",
	       r < 0 ? strerrorname_np(-r) : "", addr_print(peer, a), id,
	       r < 0 ? "" : addr_print(&c->dst, b));
	if (r < 0) {
		free(c);
		close(fd);
		return;
	}
	greet(fd, &c->dst);
	c->peer = *peer;
	c->watch = (struct watch){.fd = fd, .on_event = on_data};
	watch_add(tool.loop, &c->watch, EPOLLIN);
}

static void on_accept(struct watch *w, uint32_t events)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct addr peer;
	int fd = accept4(w->fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd >= 0 && addr_from_sockaddr(&sa, &peer) == 0)
		take(fd, &peer);
	else if (fd >= 0)
		close(fd);
}

/* ---- commands ---- */

static int do_open(char **save)
{
	struct hostnet_hooks hooks = {.on_event = on_event};

	(void)save;
	if (tool.hostnet)
		return -EBUSY;
	return hostnet_open(&tool.hostnet, tool.loop, &tool.config, &tool.plan, &hooks);
}

static int do_close(char **save)
{
	(void)save;
	hostnet_close(TAKE_PTR(tool.hostnet));
	return 0;
}

static int do_uninstall(char **save)
{
	(void)save;
	return hostnet_uninstall(&tool.config);
}

static int do_add(char **save)
{
	char *path = strtok_r(NULL, " ", save);
	uint64_t id = 0;
	int r = path && tool.hostnet ? hostnet_add(tool.hostnet, path, &id, tool.error) : -EINVAL;

	if (r == 0)
		say("%" PRIu64, id);
	return r;
}

static int do_verify(char **save)
{
	char *path = strtok_r(NULL, " ", save);

	return path && tool.hostnet ? hostnet_verify(tool.hostnet, path) : -EINVAL;
}

static uint64_t next_id(char **save)
{
	char *text = strtok_r(NULL, " ", save);

	return text ? strtoull(text, NULL, 10) : 0;
}

static int do_remove(char **save)
{
	return tool.hostnet ? hostnet_remove(tool.hostnet, next_id(save)) : -EINVAL;
}

static int do_keep(char **save)
{
	uint64_t ids[IDS_MAX];
	size_t n = 0;

	while (n < IDS_MAX && (ids[n] = next_id(save)) > 0)
		n++;
	return tool.hostnet ? hostnet_keep_only(tool.hostnet, ids, n) : -EINVAL;
}

static int do_cluster(char **save)
{
	OWNED(plan_done) struct plan plan = {0};
	char *nets = strtok_r(NULL, " ", save);
	int r = tool.hostnet ? make_plan(nets ? nets : "", &plan) : -EINVAL;

	return r < 0 ? r : hostnet_set_cluster(tool.hostnet, &plan);
}

static int listen_on(const char *ip, struct watch *w)
{
	struct sockaddr_storage sa;
	struct addr a;
	OWNED_FD int fd = -1;

	addr_parse_ip(ip, &a);
	a.port = tool.config.capture_port;
	fd = socket(addr_is_v4(&a) ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
		    0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0 ||
	    bind(fd, (struct sockaddr *)&sa, addr_to_sockaddr(&a, &sa)) < 0 || listen(fd, 4096) < 0)
		return -errno;
	*w = (struct watch){.fd = TAKE_FD(fd), .on_event = on_accept};
	return watch_add(tool.loop, w, EPOLLIN);
}

static int do_listen(char **save)
{
	int r = listen_on("127.0.0.1", &tool.listeners[0]);

	(void)save;
	return r < 0 ? r : listen_on("::1", &tool.listeners[1]);
}

static int do_unlisten(char **save)
{
	(void)save;
	for (int i = 0; i < 2; i++)
		watch_close(&tool.listeners[i]);
	return 0;
}

static int do_pause(char **save)
{
	(void)save;
	for (int i = 0; i < 2; i++)
		watch_change(tool.loop, &tool.listeners[i], 0);
	return 0;
}

static int do_resume(char **save)
{
	(void)save;
	for (int i = 0; i < 2; i++)
		watch_change(tool.loop, &tool.listeners[i], EPOLLIN);
	return 0;
}

/* ---- a look into the maps, as they are pinned ---- */

static int open_map(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/hostnet/v%d/%s", tool.config.pin_dir, HOSTNET_ABI, name);
	return bpf_obj_get(path);
}

static int do_state(char **save)
{
	OWNED_FD int fd = open_map("sluice_cgroups");
	uint64_t id = next_id(save);
	struct hostnet_cgroup cg;
	int r = fd < 0 ? fd : bpf_map_lookup_elem(fd, &id, &cg);

	if (r == 0)
		say("%" PRIu64 " %u", (uint64_t)cg.id, cg.live);
	return r;
}

static int do_counts(char **save)
{
	OWNED_FD int fd = open_map("sluice_refused");
	struct hostnet_count_key key, *last = NULL;
	int n = libbpf_num_possible_cpus();
	uint64_t id = next_id(save), parts[CPUS_MAX];

	if (fd < 0 || n < 0 || n > CPUS_MAX)
		return fd < 0 ? fd : -E2BIG;
	for (; bpf_map_get_next_key(fd, last, &key) == 0; last = &key) {
		uint64_t sum = 0;

		if (key.cgroup != id || bpf_map_lookup_elem(fd, &key, parts) < 0)
			continue;
		for (int i = 0; i < n; i++)
			sum += parts[i];
		say("%s%u/%u=%" PRIu64, tool.text[0] ? " " : "", key.why, key.proto, sum);
	}
	return 0;
}

static int do_origins(char **save)
{
	OWNED_FD int fd = open_map("sluice_origins");
	struct hostnet_key key, *last = NULL;
	unsigned n = 0;

	(void)save;
	for (; fd >= 0 && bpf_map_get_next_key(fd, last, &key) == 0; last = &key)
		n++;
	say("%u", n);
	return fd < 0 ? fd : 0;
}

static const struct {
	const char *verb;
	int (*act)(char **save);
} verbs[] = {
	{"open", do_open},         {"close", do_close},   {"uninstall", do_uninstall},
	{"add", do_add},           {"verify", do_verify}, {"remove", do_remove},
	{"keep", do_keep},         {"listen", do_listen}, {"cluster", do_cluster},
	{"pause", do_pause},       {"resume", do_resume}, {"state", do_state},
	{"unlisten", do_unlisten}, {"counts", do_counts}, {"origins", do_origins},
};

/* ---- the tool ---- */

static void answer(char *line)
{
	char *save = NULL, *verb = strtok_r(line, " ", &save);
	int r = -ENOSYS;

	tool.text[0] = tool.error[0] = '\0';
	for (size_t i = 0; verb && i < ARRAY_SIZE(verbs); i++) {
		if (strcmp(verb, verbs[i].verb) == 0)
			r = verbs[i].act(&save);
	}
	printf("{\"answer\": \"%s\", \"text\": \"%s\"}\n", r < 0 ? strerrorname_np(-r) : "0",
	       r < 0 ? tool.error : tool.text);
}

static void on_input(struct watch *w, uint32_t events)
{
	ssize_t n = read(w->fd, tool.line + tool.n, sizeof(tool.line) - tool.n - 1);
	char *end;

	(void)events;
	if (n <= 0) {
		loop_stop(tool.loop);
		return;
	}
	tool.n += (size_t)n;
	tool.line[tool.n] = '\0';
	while ((end = strchr(tool.line, '\n'))) {
		*end = '\0';
		answer(tool.line);
		tool.n -= (size_t)(end + 1 - tool.line);
		memmove(tool.line, end + 1, tool.n + 1);
	}
}

static int set_up(char **argv)
{
	int r;

	tool.config = (struct hostnet_config){.pin_dir = argv[1],
					      .capture_port = (uint16_t)atoi(argv[2])};
	tool.listeners[0].fd = tool.listeners[1].fd = -1;
	r = make_plan(argv[3], &tool.plan);
	if (r == 0)
		r = loop_new(&tool.loop);
	if (r < 0)
		return r;
	tool.input = (struct watch){.fd = STDIN_FILENO, .on_event = on_input};
	return watch_add(tool.loop, &tool.input, EPOLLIN);
}

int main(int argc, char **argv)
{
	int r;

	if (argc != 4) {
		fprintf(stderr, "usage: see the source\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	log_set_level(LOG_LEVEL_DEBUG);
	r = set_up(argv);
	if (r == 0)
		r = loop_run(tool.loop);
	hostnet_close(tool.hostnet);
	loop_free(tool.loop);
	plan_done(&tool.plan);
	return r < 0 ? log_err(r, "hostnet_tool"), 1 : 0;
}
