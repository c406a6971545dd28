/* SPDX-License-Identifier: Apache-2.0 */

/* Enrolment without the rest of the agent, for tests.
 *
 *   enrol_helper serve SOCKET STATE_DIR [CIDR...]    until its standard input closes
 *   enrol_helper OP SOCKET POD [SERVICE_ACCOUNT NETNS]
 *
 * The server tells every connection it accepts "POD ORIGINAL_DESTINATION" and closes it, and says
 * on its standard output "listen POD v4 [v6]", "unlisten POD", "ready". The line "pods" on its
 * standard input has the pods printed as JSON, "cidrs CIDR..." sets new cluster networks.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h> /* before the kernel's headers, which then step back */
#include <linux/netfilter_ipv4.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/addr.h"
#include "base/log.h"
#include "base/owned.h"
#include "net/loop.h"
#include "pod/enrol_client.h"
#include "pod/pods.h"

#define CIDRS_MAX       32
#define ORIGINAL_DST_V6 80 /* IP6T_SO_ORIGINAL_DST; its header does not go with libc's */

struct listener {
	struct watch watches[2];
	struct later later;
	struct identity *id;
};

struct server {
	struct loop *loop;
	struct pods *pods;
	struct watch input;
};

static int original_dst(int fd, bool v6, struct addr *ret)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);

	if (getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? ORIGINAL_DST_V6 : SO_ORIGINAL_DST,
		       &sa, &len) < 0)
		return -errno;
	return addr_from_sockaddr(&sa, ret);
}

static void greet(const struct listener *l, int listen_fd, bool v6)
{
	OWNED_FD int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	char text[ADDR_TEXT] = "?";
	struct addr dst;

	if (fd < 0)
		return;
	if (original_dst(fd, v6, &dst) == 0)
		addr_print(&dst, text);
	dprintf(fd, "%s/%s %s\n", l->id->ns, l->id->pod, text);
}

static void on_v4(struct watch *w, uint32_t events)
{
	(void)events;
	greet(CONTAINER_OF(w, struct listener, watches[0]), w->fd, false);
}

static void on_v6(struct watch *w, uint32_t events)
{
	(void)events;
	greet(CONTAINER_OF(w, struct listener, watches[1]), w->fd, true);
}

static void run_free(struct later *l)
{
	free(CONTAINER_OF(l, struct listener, later));
}

static int on_listen(void *ctx, struct identity *id, int fds[2], void **ret)
{
	struct listener *l = calloc(1, sizeof(*l));
	struct server *s = ctx;

	if (!l)
		return -ENOMEM;
	l->id = identity_ref(id);
	l->later.run = run_free;
	l->watches[0] = (struct watch){.fd = fds[0], .on_event = on_v4};
	l->watches[1] = (struct watch){.fd = fds[1], .on_event = on_v6};
	for (int i = 0; i < 2; i++) {
		if (l->watches[i].fd >= 0 && watch_add(s->loop, &l->watches[i], EPOLLIN) < 0)
			log_err(0, "cannot watch a listener");
	}
	printf("listen %s/%s%s%s\n", id->ns, id->pod, fds[0] >= 0 ? " v4" : "",
	       fds[1] >= 0 ? " v6" : "");
	*ret = l;
	return 0;
}

static void on_unlisten(void *ctx, void *listener)
{
	struct listener *l = listener;
	struct server *s = ctx;

	watch_close(&l->watches[0]);
	watch_close(&l->watches[1]);
	printf("unlisten %s/%s\n", l->id->ns, l->id->pod);
	identity_unref(l->id);
	loop_later(s->loop, &l->later);
}

static size_t parse_cidrs(char **texts, size_t n, struct cidr ret[static CIDRS_MAX])
{
	size_t used = 0;

	for (size_t i = 0; i < n && used < CIDRS_MAX; i++) {
		if (cidr_parse(texts[i], &ret[used]) == 0)
			used++;
	}
	return used;
}

static void set_cidrs(struct server *s, char *line)
{
	char *words[CIDRS_MAX], *save = NULL;
	struct cidr cidrs[CIDRS_MAX];
	size_t n = 0;

	strtok_r(line, " \n", &save);
	while (n < CIDRS_MAX && (words[n] = strtok_r(NULL, " \n", &save)))
		n++;
	printf("cidrs %d\n", pods_set_cluster_cidrs(s->pods, cidrs, parse_cidrs(words, n, cidrs)));
}

static void on_input(struct watch *w, uint32_t events)
{
	struct server *s = CONTAINER_OF(w, struct server, input);
	char line[1024];
	ssize_t n = read(w->fd, line, sizeof(line) - 1);
	json_t *pods;

	(void)events;
	if (n <= 0)
		return loop_stop(s->loop);
	line[n] = '\0';
	if (strncmp(line, "cidrs", 5) == 0)
		return set_cidrs(s, line);
	pods = pods_print(s->pods);
	json_dumpf(pods, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(pods);
}

static int serve(int argc, char **argv)
{
	struct server s = {.input = {.fd = STDIN_FILENO, .on_event = on_input}};
	struct pods_hooks hooks = {.ctx = &s, .listen = on_listen, .unlisten = on_unlisten};
	struct cidr cidrs[CIDRS_MAX];
	struct pods_config config = {.socket = argv[2],
				     .state_dir = argv[3],
				     .trust_domain = "cluster.local",
				     .cluster_cidrs = cidrs};
	int r;

	setvbuf(stdout, NULL, _IOLBF, 0);
	log_set_level(LOG_LEVEL_DEBUG);
	config.n_cluster_cidrs = parse_cidrs(argv + 4, (size_t)argc - 4, cidrs);
	r = loop_new(&s.loop);
	if (r < 0)
		return 1;
	r = pods_start(&s.pods, s.loop, &config, &hooks);
	if (r == 0)
		r = watch_add(s.loop, &s.input, EPOLLIN);
	if (r == 0) {
		puts("ready");
		r = loop_run(s.loop);
		pods_stop(s.pods);
	}
	loop_free(s.loop);
	return r < 0;
}

int main(int argc, char **argv)
{
	char error[ENROL_CLIENT_ERROR_MAX];
	int r;

	if (argc >= 4 && strcmp(argv[1], "serve") == 0)
		return serve(argc, argv);
	if (argc < 4) {
		fprintf(stderr, "usage: see the source\n");
		return 2;
	}
	r = enrol_request(argv[2], argv[1], argv[3], argc > 4 ? argv[4] : NULL,
			  argc > 5 ? argv[5] : NULL, error);
	if (r < 0)
		fprintf(stderr, "%s\n", error);
	return r < 0;
}
