/* SPDX-License-Identifier: Apache-2.0 */

/* The nftables back end by hand, for tests: nft_apply apply|verify|remove|probe NETNS [CIDR...].
 * Prints "0" or the name of the errno, and how long it took in microseconds.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/addr.h"
#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "redirect/plan.h"
#include "redirect/redirector.h"

static int act(const char *verb, const struct plan *plan)
{
	if (strcmp(verb, "apply") == 0)
		return redirect_nft.apply(plan);
	if (strcmp(verb, "verify") == 0)
		return redirect_nft.verify(plan);
	if (strcmp(verb, "remove") == 0)
		return redirect_nft.remove();
	if (strcmp(verb, "probe") == 0)
		return redirect_nft.probe();
	return -EINVAL;
}

static long now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static int run(const char *verb, const char *netns, char **nets, size_t n)
{
	OWNED_MEM struct cidr *cidrs = calloc(n + 1, sizeof(*cidrs));
	OWNED(plan_done) struct plan plan = {0};
	OWNED(netns_leave) int home = -1;
	OWNED_FD int fd = -1;
	long start;
	int r;

	if (!cidrs)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		r = cidr_parse(nets[i], &cidrs[i]);
		if (r < 0)
			return r;
	}
	r = plan_make(&(struct plan_input){cidrs, n, PLAN_CAPTURE_PORT}, &plan);
	if (r < 0)
		return r;
	fd = netns_open(netns);
	if (fd < 0)
		return fd;
	r = netns_enter(fd, &home);
	if (r < 0)
		return r;
	start = now_us();
	r = act(verb, &plan);
	fprintf(stderr, "%ld us\n", now_us() - start);
	return r;
}

int main(int argc, char **argv)
{
	int r;

	if (argc < 3) {
		fprintf(stderr, "usage: %s apply|verify|remove|probe NETNS [CIDR...]\n", argv[0]);
		return 2;
	}
	log_set_level(LOG_LEVEL_DEBUG);
	r = run(argv[1], argv[2], argv + 3, (size_t)argc - 3);
	puts(r == 0 ? "0" : strerrorname_np(-r));
	return r == 0 ? 0 : 1;
}
