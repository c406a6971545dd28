/* SPDX-License-Identifier: Apache-2.0 */

/* The guard by hand, without the rest of the agent, for tests; and the two modules that stand
 *beside it.
 *
 *	guard_tool PIN_DIR auto|tcx|tc|nftables CIDR,... [FLOWS] [no-bpf|no-caps]
 *
 * "no-bpf": a seccomp filter refuses bpf(); "no-caps": CAP_BPF and CAP_SYS_ADMIN are given up.
 * Commands come on standard input, one a line:
 *
 *	open, close, uninstall, name, counts
 *	add, verify: INTERFACE [dhcp] [steer] [mac=MAC] ADDRESS...	(INTERFACE: name or number)
 *	remove INTERFACE	keep INTERFACE...	cluster CIDR,...
 *	listen PORT	steer-apply, steer-verify, steer-remove: MARK TABLE PRIORITY
 *	links NETNS_PATH
 *	fill N	(entries of pods from number 100000 on, as many as fit)
 *	foreign INTERFACE	(somebody else's tcx program, first, that lets everything through)
 *	foreign-tc INTERFACE	(the same as a tc filter of our priority)
 *
 * Each is answered by "= ERRNO MICROSECONDS TEXT", ERRNO being 0 or a name. In between come lines
 * "event INTERFACE WHY PROTO SOURCE DESTINATION". The log is on standard error.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/addr.h"
#include "base/log.h"
#include "base/owned.h"
#include "guard/guard.h"
#include "guard/host_link.h"
#include "guard/steer.h"
#include "net/loop.h"
#include "redirect/plan.h"

#define CIDRS_MAX   512
#define ADDRS_MAX   64
#define TEXT_MAX    8192
#define FILL_FROM   100000
#define CAP_BPF_BIT 39

static struct {
	struct loop *loop;
	struct watch input;
	struct guard_config config;
	struct plan plan;
	struct guard *guard;
	char line[16384];
	size_t n;
	char text[TEXT_MAX]; /* of the answer */
	char error[GUARD_ERROR_MAX];
} tool;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	size_t n = strlen(tool.text);
	va_list args;

	va_start(args, format);
	vsnprintf(tool.text + n, TEXT_MAX - n, format, args);
	va_end(args);
}

static long now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static uint32_t ifindex_of(const char *text)
{
	uint32_t n = (uint32_t)strtoul(text, NULL, 10);

	return n ? n : if_nametoindex(text);
}

static int make_plan(char *nets, struct plan *ret)
{
	struct cidr cidrs[CIDRS_MAX];
	struct plan_input input = {.cluster_cidrs = cidrs, .capture_port = PLAN_CAPTURE_PORT};
	char *save = NULL;

	for (char *t = strtok_r(nets, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
		if (input.n_cluster_cidrs == CIDRS_MAX)
			return -E2BIG;
		if (cidr_parse(t, &cidrs[input.n_cluster_cidrs++]) < 0)
			return -EINVAL;
	}
	return plan_make(&input, ret);
}

/* ---- the guard ---- */

static void on_event(void *ctx, const struct guard_event *e)
{
	struct addr src = {0}, dst = {0};
	char a[ADDR_TEXT], b[ADDR_TEXT];

	(void)ctx;
	memcpy(src.ip, e->src, 16);
	memcpy(dst.ip, e->dst, 16);
	printf("event %u %s %u %s %s\n", e->ifindex, guard_why_str(e->why), e->proto,
	       addr_print_ip(&src, a), addr_print_ip(&dst, b));
}

static void on_count(void *ctx, const struct guard_count_key *key, const struct guard_count *count)
{
	(void)ctx;
	say(" %u/%s/%u=%llu", key->ifindex, guard_why_str(key->why), key->proto,
	    (unsigned long long)count->packets);
}

static int do_open(char **save)
{
	struct guard_hooks hooks = {.on_event = on_event};
	int r;

	(void)save;
	if (tool.guard)
		return -EBUSY;
	r = guard_open(&tool.guard, tool.loop, &tool.config, &tool.plan, &hooks);
	if (r == 0)
		say(" %s", guard_name(tool.guard));
	return r;
}

static int do_close(char **save)
{
	(void)save;
	guard_close(TAKE_PTR(tool.guard));
	return 0;
}

static int do_uninstall(char **save)
{
	(void)save;
	return guard_uninstall(&tool.config);
}

static int read_pod(char **save, struct addr addrs[ADDRS_MAX], struct guard_pod_at *ret)
{
	char *device = strtok_r(NULL, " ", save);

	if (!device || !tool.guard)
		return -EINVAL;
	*ret = (struct guard_pod_at){.ifindex = ifindex_of(device), .addrs = addrs};
	for (char *t = strtok_r(NULL, " ", save); t; t = strtok_r(NULL, " ", save)) {
		if (strcmp(t, "dhcp") == 0)
			ret->dhcp = true;
		else if (strcmp(t, "steer") == 0)
			ret->steer = true;
		else if (sscanf(t, "mac=%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &ret->mac[0], &ret->mac[1],
				&ret->mac[2], &ret->mac[3], &ret->mac[4], &ret->mac[5]) == 6)
			continue;
		else if (ret->n_addrs == ADDRS_MAX || addr_parse_ip(t, &addrs[ret->n_addrs++]) < 0)
			return -EINVAL;
	}
	return 0;
}

static int do_add(char **save)
{
	struct addr addrs[ADDRS_MAX];
	struct guard_pod_at pod;
	int r = read_pod(save, addrs, &pod);

	return r < 0 ? r : guard_add(tool.guard, &pod, tool.error);
}

static int do_verify(char **save)
{
	struct addr addrs[ADDRS_MAX];
	struct guard_pod_at pod;
	int r = read_pod(save, addrs, &pod);

	return r < 0 ? r : guard_verify(tool.guard, &pod);
}

static int do_remove(char **save)
{
	char *device = strtok_r(NULL, " ", save);

	return device && tool.guard ? guard_remove(tool.guard, ifindex_of(device)) : -EINVAL;
}

static int do_keep(char **save)
{
	uint32_t keep[ADDRS_MAX];
	size_t n = 0;

	for (char *t = strtok_r(NULL, " ", save); t && n < ADDRS_MAX; t = strtok_r(NULL, " ", save))
		keep[n++] = ifindex_of(t);
	return tool.guard ? guard_keep_only(tool.guard, keep, n) : -EINVAL;
}

static int do_cluster(char **save)
{
	OWNED(plan_done) struct plan plan = {0};
	char *nets = strtok_r(NULL, " ", save);
	int r = tool.guard ? make_plan(nets ? nets : "", &plan) : -EINVAL;

	return r < 0 ? r : guard_set_cluster(tool.guard, &plan);
}

static int do_counts(char **save)
{
	(void)save;
	return tool.guard ? guard_counts(tool.guard, on_count, NULL) : -EINVAL;
}

/* As many pods as there can be, without as many interfaces. */
static int do_fill(char **save)
{
	char *text = strtok_r(NULL, " ", save), path[256];
	struct guard_pod pod = {.buckets = 1};
	OWNED_FD int fd = -1;
	int r = 0;

	snprintf(path, sizeof(path), "%s/guard-v%d/sluice_pods", tool.config.pin_dir, GUARD_ABI);
	fd = bpf_obj_get(path);
	for (uint32_t i = 0; fd >= 0 && r == 0 && i < (uint32_t)atoi(text ? text : "0"); i++) {
		uint32_t ifindex = FILL_FROM + i;

		r = bpf_map_update_elem(fd, &ifindex, &pod, BPF_ANY);
	}
	return fd < 0 ? fd : r;
}

static int load_foreign(void)
{
	struct bpf_insn pass[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0},
		{.code = BPF_JMP | BPF_EXIT},
	};

	return bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "not_ours", "GPL", pass, ARRAY_SIZE(pass),
			     NULL);
}

/* Stays as long as we do. 46 is BPF_TCX_INGRESS, 8 BPF_F_BEFORE (Linux 6.6). */
static int do_foreign(char **save)
{
	char *device = strtok_r(NULL, " ", save);
	LIBBPF_OPTS(bpf_link_create_opts, first, .flags = 8);
	OWNED_FD int fd = load_foreign();
	int r = fd;

	if (fd >= 0)
		r = bpf_link_create(fd, (int)ifindex_of(device ? device : ""), 46, &first);
	return r < 0 ? r : 0;
}

static int do_foreign_tc(char **save)
{
	char *device = strtok_r(NULL, " ", save);
	OWNED_FD int fd = load_foreign();
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex_of(device ? device : ""),
		    .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = fd, .handle = 7, .priority = 1);

	return fd < 0 ? fd : bpf_tc_attach(&hook, &opts);
}

/* ---- beside it ---- */

static int do_links(char **save)
{
	char *path = strtok_r(NULL, " ", save), text[ADDR_TEXT];
	OWNED_FD int fd = open(path ? path : "", O_RDONLY | O_CLOEXEC);
	struct pod_links links;
	int r;

	if (fd < 0)
		return -errno;
	r = pod_links_read(fd, &(struct pod_links){0}, 0, &links, tool.error);
	for (size_t i = 0; r >= 0 && i < links.n_links; i++)
		say(" %s/%s/%u", links.links[i].name, links.links[i].kind, links.links[i].ifindex);
	for (size_t i = 0; r >= 0 && i < links.n_addrs; i++)
		say(" %s", addr_print_ip(&links.addrs[i], text));
	return r < 0 ? r : 0;
}

static int do_listen(char **save)
{
	char *port = strtok_r(NULL, " ", save);
	int fds[2], r;

	r = steer_listen((uint16_t)atoi(port ? port : "0"), fds);
	for (int i = 0; r == 0 && tool.guard && i < 2; i++)
		r = fds[i] < 0 ? 0 : guard_steer_to(tool.guard, fds[i]);
	if (r == 0)
		say(" %d %d", fds[0], fds[1]); /* open until we end */
	return r;
}

static int steer(char **save, int (*act)(const struct steer_config *config))
{
	uint32_t n[3] = {0};

	for (int i = 0; i < 3; i++) {
		char *t = strtok_r(NULL, " ", save);

		n[i] = t ? (uint32_t)strtoul(t, NULL, 0) : 0;
	}
	return act(&(struct steer_config){.mark = n[0], .table = n[1], .priority = n[2]});
}

static int do_steer_apply(char **save)
{
	int r = steer(save, steer_apply);

	if (r > 0)
		say(" changed");
	return r > 0 ? 0 : r;
}

static int do_steer_verify(char **save)
{
	return steer(save, steer_verify);
}

static int do_steer_remove(char **save)
{
	return steer(save, steer_remove);
}

/* ---- the tool ---- */

static const struct {
	const char *verb;
	int (*act)(char **save);
} verbs[] = {
	{"open", do_open},
	{"close", do_close},
	{"uninstall", do_uninstall},
	{"add", do_add},
	{"verify", do_verify},
	{"remove", do_remove},
	{"keep", do_keep},
	{"cluster", do_cluster},
	{"counts", do_counts},
	{"fill", do_fill},
	{"foreign", do_foreign},
	{"foreign-tc", do_foreign_tc},
	{"links", do_links},
	{"listen", do_listen},
	{"steer-apply", do_steer_apply},
	{"steer-verify", do_steer_verify},
	{"steer-remove", do_steer_remove},
};

static void answer(char *line)
{
	char *save = NULL, *verb = strtok_r(line, " ", &save);
	long started = now_us();
	int r = -ENOSYS;

	tool.text[0] = tool.error[0] = '\0';
	for (size_t i = 0; verb && i < ARRAY_SIZE(verbs); i++) {
		if (strcmp(verb, verbs[i].verb) == 0)
			r = verbs[i].act(&save);
	}
	printf("= %s %ld%s%s%s\n", r < 0 ? strerrorname_np(-r) : "0", now_us() - started, tool.text,
	       r < 0 && tool.error[0] ? " " : "", r < 0 ? tool.error : "");
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

static int refuse_bpf(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_bpf, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = ARRAY_SIZE(code), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		return -errno;
	return 0;
}

static int give_up_caps(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];

	if (syscall(SYS_capget, &h, d) < 0)
		return -errno;
	d[0].effective = d[0].permitted &= ~(1U << CAP_SYS_ADMIN);
	d[1].effective = d[1].permitted &= ~(1U << (CAP_BPF_BIT - 32));
	return syscall(SYS_capset, &h, d) < 0 ? -errno : 0;
}

static int confine(int argc, char **argv)
{
	for (int i = 4; i < argc; i++) {
		int r = strcmp(argv[i], "no-bpf") == 0    ? refuse_bpf()
			: strcmp(argv[i], "no-caps") == 0 ? give_up_caps()
							  : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

static int set_up(int argc, char **argv)
{
	static const char *const attaches[] = {"auto", "tcx", "tc", "nftables"};
	int r;

	tool.config = (struct guard_config){
		.pin_dir = argv[1],
		.mark = 16,
		.capture_port = PLAN_CAPTURE_PORT,
		.flows_per_pod = argc > 4 && atoi(argv[4]) > 0 ? (unsigned)atoi(argv[4]) : 1024,
	};
	for (size_t i = 0; i < ARRAY_SIZE(attaches); i++) {
		if (strcmp(argv[2], attaches[i]) == 0)
			tool.config.attach = i;
	}
	r = make_plan(argv[3], &tool.plan);
	if (r == 0)
		r = confine(argc, argv);
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

	if (argc < 4) {
		fprintf(stderr, "usage: see the source\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	log_set_level(LOG_LEVEL_DEBUG);
	r = set_up(argc, argv);
	if (r == 0)
		r = loop_run(tool.loop);
	guard_close(tool.guard);
	loop_free(tool.loop);
	plan_done(&tool.plan);
	return r < 0 ? log_err(r, "guard_tool"), 1 : 0;
}
