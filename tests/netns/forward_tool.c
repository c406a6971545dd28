/* SPDX-License-Identifier: Apache-2.0 */

/* The node's second guard by hand, for tests:
 *	forward_tool apply|verify|add|remove|counts|uninstall NETNS CIDR,CIDR... [ADDRESS...]
 * prints "0" ("0 PACKETS BYTES" for counts) or the name of the errno, and how long it took in
 * microseconds on standard error. `churn` adds and removes the addresses 100 times; and
 *	forward_tool listen NETNS GROUP
 * prints a line for each message of an NFLOG group: prefix, protocol, source, destination; "ready"
 * first.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/addr.h"
#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "guard/forward.h"
#include "redirect/plan.h"

#define CIDRS_MAX 64
#define CHURN     100

static long now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

/* ---- the guard ---- */

static int counts(void)
{
	uint64_t packets, bytes;
	int r = forward_counts(&packets, &bytes);

	if (r == 0)
		printf("0 %llu %llu\n", (unsigned long long)packets, (unsigned long long)bytes);
	return r ?: 1;
}

static int by_value(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

static long median(long times[static CHURN])
{
	qsort(times, CHURN, sizeof(*times), by_value);
	return times[CHURN / 2];
}

static int churn(const struct addr *pods, size_t n)
{
	long adding[CHURN], removing[CHURN], start;
	int r = 0;

	for (int i = 0; i < CHURN && r == 0; i++) {
		start = now_us();
		r = forward_add(pods, n);
		adding[i] = now_us() - start;
		start = now_us();
		r = r ?: forward_remove(pods, n);
		removing[i] = now_us() - start;
	}
	if (r == 0)
		fprintf(stderr, "add %ld us, remove %ld us\n", median(adding), median(removing));
	return r;
}

static int act(const char *verb, const struct plan *plan, const struct addr *pods, size_t n)
{
	if (strcmp(verb, "apply") == 0)
		return forward_apply(plan, pods, n);
	if (strcmp(verb, "verify") == 0)
		return forward_verify(plan, pods, n);
	if (strcmp(verb, "add") == 0)
		return forward_add(pods, n);
	if (strcmp(verb, "remove") == 0)
		return forward_remove(pods, n);
	if (strcmp(verb, "counts") == 0)
		return counts();
	if (strcmp(verb, "churn") == 0)
		return churn(pods, n);
	if (strcmp(verb, "uninstall") == 0)
		return forward_uninstall();
	return -EINVAL;
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

static int guard(const char *verb, char *nets, char **texts, size_t n)
{
	OWNED_MEM struct addr *pods = calloc(n + 1, sizeof(*pods));
	OWNED(plan_done) struct plan plan = {0};
	long start;
	int r;

	if (!pods)
		return -ENOMEM;
	r = make_plan(nets, &plan);
	for (size_t i = 0; i < n && r == 0; i++)
		r = addr_parse_ip(texts[i], &pods[i]);
	if (r < 0)
		return r;
	start = now_us();
	r = act(verb, &plan, pods, n);
	fprintf(stderr, "%ld us\n", now_us() - start);
	return r;
}

/* ---- what it reports ---- */

static void print_packet(const uint8_t *p, size_t len)
{
	char src[INET6_ADDRSTRLEN], dst[INET6_ADDRSTRLEN];

	if (len >= 20 && p[0] >> 4 == 4)
		printf("%u %s %s\n", p[9], inet_ntop(AF_INET, p + 12, src, sizeof(src)),
		       inet_ntop(AF_INET, p + 16, dst, sizeof(dst)));
	else if (len >= 40 && p[0] >> 4 == 6)
		printf("%u %s %s\n", p[6], inet_ntop(AF_INET6, p + 8, src, sizeof(src)),
		       inet_ntop(AF_INET6, p + 24, dst, sizeof(dst)));
	else
		puts("?");
}

static int on_message(const struct nlmsghdr *h, void *data)
{
	const struct nlattr *a, *payload = NULL;

	(void)data;
	mnl_attr_for_each(a, h, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(a) == NFULA_PREFIX)
			printf("%s ", mnl_attr_get_str(a));
		else if (mnl_attr_get_type(a) == NFULA_PAYLOAD)
			payload = a;
	}
	if (payload)
		print_packet(mnl_attr_get_payload(payload), mnl_attr_get_payload_len(payload));
	fflush(stdout);
	return MNL_CB_OK;
}

static int subscribe(struct mnl_socket *nl, uint16_t group)
{
	char buf[256] __attribute__((aligned(8)));
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct nfulnl_msg_config_cmd cmd = {.command = NFULNL_CFG_CMD_BIND};
	struct nfulnl_msg_config_mode mode = {.copy_mode = NFULNL_COPY_PACKET,
					      .copy_range = htonl(128)};
	struct nfgenmsg *g;

	h->nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
	g->nfgen_family = AF_UNSPEC;
	g->version = NFNETLINK_V0;
	g->res_id = htons(group);
	mnl_attr_put(h, NFULA_CFG_CMD, sizeof(cmd), &cmd);
	mnl_attr_put(h, NFULA_CFG_MODE, sizeof(mode), &mode);
	mnl_attr_put_u32(h, NFULA_CFG_QTHRESH, htonl(1)); /* each at once */
	return mnl_socket_sendto(nl, h, h->nlmsg_len) < 0 ? -errno : 0;
}

static int listen_to(uint16_t group)
{
	char buf[65536] __attribute__((aligned(8)));
	struct mnl_socket *nl = mnl_socket_open(NETLINK_NETFILTER);
	int r;

	if (!nl || mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	r = subscribe(nl, group);
	if (r < 0)
		return r;
	for (bool ready = false;; ready = true) {
		ssize_t n = mnl_socket_recvfrom(nl, buf, sizeof(buf));

		if (n < 0 || mnl_cb_run(buf, (size_t)n, 0, 0, on_message, NULL) < 0)
			return -errno;
		if (!ready) {
			puts("ready");
			fflush(stdout);
		}
	}
}

static int enter(const char *netns)
{
	int home, fd = netns_open(netns);

	return fd < 0 ? fd : netns_enter(fd, &home);
}

int main(int argc, char **argv)
{
	int r;

	if (argc < 4) {
		fprintf(stderr,
			"usage: %s apply|verify|add|remove|churn|counts|uninstall NETNS CIDRS "
			"[ADDRESS...]\n       %s listen NETNS GROUP\n",
			argv[0], argv[0]);
		return 2;
	}
	log_set_level(LOG_LEVEL_DEBUG);
	r = enter(argv[2]);
	if (r == 0 && strcmp(argv[1], "listen") == 0)
		r = listen_to((uint16_t)atoi(argv[3]));
	else if (r == 0)
		r = guard(argv[1], argv[3], argv + 4, (size_t)argc - 4);
	if (r <= 0)
		puts(r == 0 ? "0" : strerrorname_np(-r));
	return r < 0 ? 1 : 0;
}
