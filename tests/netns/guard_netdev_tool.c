/* SPDX-License-Identifier: Apache-2.0 */

/* The guard by nf_tables by hand, for tests: guard_netdev_tool NETNS CIDR,CIDR... [FLOWS], where a
 * NETNS of "-" is that which it is in. Reads commands from standard input, one a line:
 *
 *	open, close, uninstall, list, counts
 *	add, verify: INTERFACE [dhcp|steer] ADDRESS...
 *	remove: IFINDEX
 *	cluster: CIDR,CIDR...
 *
 * and answers each with a line, "0" or the name of an errno first. A list is of indices, counts are
 * IFINDEX/REASON/PROTOCOL=PACKETS. How long each took is on standard error, in microseconds.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/addr.h"
#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "guard/guard_ops.h"
#include "redirect/plan.h"

#define CIDRS_MAX 64
#define ADDRS_MAX 32

static struct {
	const struct guard_ops *ops;
	struct guard_config config;
	struct plan plan;
	void *self;
	char error[GUARD_ERROR_MAX];
	char answer[4096];
} tool = {.ops = &guard_netdev};

static long now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static int make_plan(char *nets, struct plan *ret)
{
	struct cidr cidrs[CIDRS_MAX];
	struct plan_input input = {.cluster_cidrs = cidrs, .capture_port = PLAN_CAPTURE_PORT};
	char *save = NULL;

	for (char *t = strtok_r(nets, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
		int r = input.n_cluster_cidrs == CIDRS_MAX
				? -E2BIG
				: cidr_parse(t, &cidrs[input.n_cluster_cidrs++]);

		if (r < 0)
			return r;
	}
	return plan_make(&input, ret);
}

static void say(const char *text)
{
	strncat(tool.answer, text, sizeof(tool.answer) - strlen(tool.answer) - 1);
}

static void on_ifindex(void *ctx, uint32_t ifindex)
{
	char text[32];

	(void)ctx;
	snprintf(text, sizeof(text), " %u", ifindex);
	say(text);
}

static void on_count(void *ctx, const struct guard_count_key *key, const struct guard_count *count)
{
	char text[96];

	(void)ctx;
	snprintf(text, sizeof(text), " %u/%s/%u=%llu", key->ifindex, guard_why_str(key->why),
		 key->proto, (unsigned long long)count->packets);
	say(text);
}

static int pod(const char *verb, const char *device, char **save)
{
	struct addr addrs[ADDRS_MAX];
	struct guard_pod_at at = {.ifindex = if_nametoindex(device), .addrs = addrs};

	for (char *t = strtok_r(NULL, " ", save); t; t = strtok_r(NULL, " ", save)) {
		if (strcmp(t, "dhcp") == 0)
			at.dhcp = true;
		else if (strcmp(t, "steer") == 0)
			at.steer = true;
		else if (sscanf(t, "mac=%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &at.mac[0], &at.mac[1],
				&at.mac[2], &at.mac[3], &at.mac[4], &at.mac[5]) == 6)
			continue;
		else if (at.n_addrs == ADDRS_MAX || addr_parse_ip(t, &addrs[at.n_addrs++]) < 0)
			return -EINVAL;
	}
	if (strcmp(verb, "add") == 0)
		return tool.ops->add(tool.self, &at, tool.error);
	return tool.ops->verify(tool.self, &at);
}

static int set_cluster(char *nets)
{
	OWNED(plan_done) struct plan plan = {0};
	int r = make_plan(nets, &plan);

	return r < 0 ? r : tool.ops->set_cluster(tool.self, &plan);
}

static int act(char *line)
{
	struct guard_hooks hooks = {0};
	char *save = NULL, *verb = strtok_r(line, " ", &save), *arg = strtok_r(NULL, " ", &save);

	if (!verb)
		return -EINVAL;
	if (strcmp(verb, "open") == 0)
		return tool.ops->open(&tool.self, NULL, &tool.config, &tool.plan, &hooks,
				      tool.error);
	if (strcmp(verb, "uninstall") == 0)
		return tool.ops->uninstall(&tool.config);
	if (!tool.self)
		return -EBADF;
	if (strcmp(verb, "close") == 0) {
		tool.ops->close(TAKE_PTR(tool.self));
		return 0;
	}
	if (strcmp(verb, "list") == 0)
		return tool.ops->list(tool.self, on_ifindex, NULL);
	if (strcmp(verb, "counts") == 0)
		return tool.ops->counts(tool.self, on_count, NULL);
	if (!arg)
		return -EINVAL;
	if (strcmp(verb, "remove") == 0)
		return tool.ops->remove(tool.self, (uint32_t)atol(arg));
	if (strcmp(verb, "cluster") == 0)
		return set_cluster(arg);
	return pod(verb, arg, &save);
}

static void serve(void)
{
	char line[4096];

	while (fgets(line, sizeof(line), stdin)) {
		long start = now_us();
		int r;

		line[strcspn(line, "\n")] = '\0';
		tool.answer[0] = tool.error[0] = '\0';
		r = act(line);
		fprintf(stderr, "%ld us\n", now_us() - start);
		printf("%s%s%s%s\n", r == 0 ? "0" : strerrorname_np(-r), tool.answer,
		       *tool.error ? " " : "", tool.error);
		fflush(stdout);
	}
}

static int enter(const char *netns, int *ret_home)
{
	OWNED_FD int fd = -1;

	if (strcmp(netns, "-") == 0)
		return 0;
	fd = netns_open(netns);
	return fd < 0 ? fd : netns_enter(fd, ret_home);
}

int main(int argc, char **argv)
{
	OWNED(netns_leave) int home = -1;
	int r;

	if (argc < 3) {
		fprintf(stderr, "usage: %s NETNS CIDRS [FLOWS]\n", argv[0]);
		return 2;
	}
	log_set_level(LOG_LEVEL_DEBUG);
	tool.config.flows_per_pod = argc > 3 ? (unsigned)atoi(argv[3]) : 2048;
	r = enter(argv[1], &home);
	if (r == 0)
		r = make_plan(argv[2], &tool.plan);
	if (r < 0) {
		log_err(r, "cannot start");
		return 1;
	}
	serve();
	if (tool.self)
		tool.ops->close(tool.self);
	plan_done(&tool.plan);
	return 0;
}
