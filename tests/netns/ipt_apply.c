/* SPDX-License-Identifier: Apache-2.0 */

/* The iptables back end by hand, for tests: ipt_apply VERB[,VERB...] NETNS [CIDR...] with the verbs
 * apply, verify, remove and probe, and alone: no program can be started from there on. Does them in
 * order, in one process, until one fails. Says how long each took in microseconds, and prints "0"
 * or the name of the errno.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/addr.h"
#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "redirect/plan.h"
#include "redirect/redirector.h"

/* What tries gets EACCES, which nothing else here says. */
static int be_alone(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_execve, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = ARRAY_SIZE(code), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		return -errno;
	return 0;
}

static int wait_for_a_line(void)
{
	char line[8];

	puts("waiting");
	fflush(stdout);
	return fgets(line, sizeof(line), stdin) ? 0 : -EPIPE;
}

static int act(const char *verb, const struct plan *plan)
{
	if (strcmp(verb, "apply") == 0)
		return redirect_ipt.apply(plan);
	if (strcmp(verb, "verify") == 0)
		return redirect_ipt.verify(plan);
	if (strcmp(verb, "remove") == 0)
		return redirect_ipt.remove();
	if (strcmp(verb, "probe") == 0)
		return redirect_ipt.probe();
	if (strcmp(verb, "alone") == 0)
		return be_alone();
	if (strcmp(verb, "wait") == 0)
		return wait_for_a_line();
	return -EINVAL;
}

static long now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static int act_in_order(char *verbs, const struct plan *plan)
{
	int r = 0;

	for (char *verb; r == 0 && (verb = strsep(&verbs, ","));) {
		long start = now_us();

		r = act(verb, plan);
		fprintf(stderr, "%s: %ld us\n", verb, now_us() - start);
	}
	return r;
}

static int run(char *verbs, const char *netns, char **nets, size_t n)
{
	OWNED_MEM struct cidr *cidrs = calloc(n + 1, sizeof(*cidrs));
	OWNED(plan_done) struct plan plan = {0};
	OWNED(netns_leave) int home = -1;
	OWNED_FD int fd = -1;
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
	return r < 0 ? r : act_in_order(verbs, &plan);
}

int main(int argc, char **argv)
{
	int r;

	if (argc < 3) {
		fprintf(stderr, "usage: %s VERB[,VERB...] NETNS [CIDR...]\n", argv[0]);
		return 2;
	}
	log_set_level(LOG_LEVEL_DEBUG);
	r = run(argv[1], argv[2], argv + 3, (size_t)argc - 3);
	puts(r == 0 ? "0" : strerrorname_np(-r));
	return r == 0 ? 0 : 1;
}
