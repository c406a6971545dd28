/* SPDX-License-Identifier: Apache-2.0 */

/* A sentinel without the rest of the agent, for tests.
 *
 *   sentinel_tool hear NETNS [rules] [links] [refused]   until its standard input closes
 *   sentinel_tool once NETNS [rules] [links] [refused]   frees it within the first hook, and ends
 *   sentinel_tool cost NETNS COUNT                       makes and frees as many, and says the
 * price
 *
 * Says "ready 1" (0: somebody else has the group), then a line for each call of a hook: "rules",
 * "links", "refused PREFIX REASON PROTOCOL SOURCE DESTINATION". A line on its standard input is
 * answered by "stats RULES LINKS REFUSED CPU_US HEARS".
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "net/loop.h"
#include "pod/nflog.h"
#include "pod/sentinel.h"
#include "redirect/plan.h"

struct tool {
	struct loop *loop;
	struct sentinel *sentinel;
	struct watch input;
	bool once;
	unsigned long rules, links, refused;
};

/* ---- hooks ---- */

static void heard(struct tool *t)
{
	if (!t->once)
		return;
	sentinel_free(t->sentinel);
	t->sentinel = NULL;
	loop_stop(t->loop);
}

static void on_rules(void *ctx)
{
	struct tool *t = ctx;

	t->rules++;
	puts("rules");
	heard(t);
}

static void on_links(void *ctx)
{
	struct tool *t = ctx;

	t->links++;
	puts("links");
	heard(t);
}

static void on_refused(void *ctx, const struct refused_packet *p)
{
	char src[ADDR_TEXT], dst[ADDR_TEXT], word[NFLOG_PROTOCOL_MAX];
	struct tool *t = ctx;

	t->refused++;
	printf("refused %s %s %s %s %s\n", p->prefix, reason_str(nflog_reason(p)),
	       nflog_protocol_str(p->proto, p->dst.port, word), addr_print(&p->src, src),
	       addr_print(&p->dst, dst));
	heard(t);
}

/* ---- verbs ---- */

static long cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000L + u.ru_utime.tv_usec +
	       u.ru_stime.tv_usec;
}

static void on_input(struct watch *w, uint32_t events)
{
	struct tool *t = CONTAINER_OF(w, struct tool, input);
	char line[64];

	(void)events;
	if (read(w->fd, line, sizeof(line)) <= 0)
		return loop_stop(t->loop);
	printf("stats %lu %lu %lu %ld %d\n", t->rules, t->links, t->refused, cpu_us(),
	       sentinel_hears_refusals(t->sentinel));
}

static void choose(struct sentinel_hooks *hooks, char **words, int n)
{
	for (int i = 0; i < n; i++) {
		if (strcmp(words[i], "rules") == 0)
			hooks->on_rules_changed = on_rules;
		else if (strcmp(words[i], "links") == 0)
			hooks->on_links_changed = on_links;
		else if (strcmp(words[i], "refused") == 0)
			hooks->on_refused = on_refused;
	}
}

static int hear(int netns_fd, bool once, char **words, int n)
{
	struct tool t = {.input = {.fd = STDIN_FILENO, .on_event = on_input}, .once = once};
	struct sentinel_hooks hooks = {.ctx = &t};
	int r;

	choose(&hooks, words, n);
	r = loop_new(&t.loop);
	if (r < 0)
		return r;
	r = sentinel_new(&t.sentinel, t.loop, netns_fd, PLAN_NFLOG_GROUP, &hooks);
	if (r == 0)
		r = watch_add(t.loop, &t.input, EPOLLIN);
	if (r == 0) {
		printf("ready %d\n", sentinel_hears_refusals(t.sentinel));
		r = loop_run(t.loop);
	}
	sentinel_free(t.sentinel);
	loop_free(t.loop);
	return r;
}

static long now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

/* Only one of them can have the group. */
static int cost(int netns_fd, unsigned count)
{
	struct sentinel_hooks hooks = {.on_rules_changed = on_rules,
				       .on_links_changed = on_links,
				       .on_refused = on_refused};
	OWNED_MEM struct sentinel **all = calloc(count + 1, sizeof(struct sentinel *));
	struct loop *loop;
	int r, fds;
	long start, made;

	if (!all)
		return -ENOMEM;
	r = loop_new(&loop);
	if (r < 0)
		return r;
	fds = count_fds();
	start = now_us();
	for (unsigned i = 0; i < count && r == 0; i++)
		r = sentinel_new(&all[i], loop, netns_fd, PLAN_NFLOG_GROUP, &hooks);
	made = now_us();
	fds = count_fds() - fds;
	for (unsigned i = 0; i < count; i++)
		sentinel_free(all[i]);
	loop_free(loop);
	printf("cost %d fds %ld us to make %ld us to free\n", fds, made - start, now_us() - made);
	return r;
}

int main(int argc, char **argv)
{
	OWNED_FD int fd = -1;
	int r;

	if (argc < 3) {
		fprintf(stderr, "usage: see the source\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	log_set_level(LOG_LEVEL_DEBUG);
	fd = netns_open(argv[2]);
	if (fd < 0)
		r = fd;
	else if (strcmp(argv[1], "cost") == 0)
		r = cost(fd, argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 1);
	else
		r = hear(fd, strcmp(argv[1], "once") == 0, argv + 3, argc - 3);
	if (r < 0)
		printf("error %s\n", strerrorname_np(-r));
	return r < 0;
}
