/* SPDX-License-Identifier: Apache-2.0 */

/* The kernel half of the guard by itself, for tests: what agent/guard does with it, in the hands of
 *a test. Speaks on the SOCK_SEQPACKET of the file descriptor that is its argument: one message is
 *one command, one message its answer, "ok", "error NAME", or as many lines as it has to tell.
 *
 *	load MARK PORT                        before all others
 *	net CIDR 0|1                          outside or inside
 *	pod IFINDEX FLAGS BUCKETS MAC UPPER UPPER_MAC POD_MAC [ADDRESS...]
 *	forget IFINDEX                        the pod's entry alone
 *	attach IFINDEX tcx|tc
 *	listener                              with its file descriptor by SCM_RIGHTS
 *	counts                                lines: ifindex proto why packets bytes
 *	events                                lines: ifindex proto why suppressed src sport dst
 *dport flows IFINDEX                         one line: how many in each state, GUARD_FLOW_FREE
 *first fill counts|flows                     until the map is full, with what belongs to no pod run
 *from|to IFINDEX REPEAT HEX        one line: verdict, nanoseconds each
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "abi/guard.h"
#include "base/addr.h"
#include "base/owned.h"
#include "bpf/guard.skel.h"

#define TCX_INGRESS 46 /* enum bpf_attach_type since Linux 6.6 */
#define TCX_EGRESS  47
#define MESSAGE_MAX 65536
#define WORDS_MAX   24

static struct guard_bpf *skel;
static struct ring_buffer *ring;
static char answer[MESSAGE_MAX];
static size_t answer_len;

static void say(const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(answer + answer_len, sizeof(answer) - answer_len, format, args);
	va_end(args);
	if (n > 0)
		answer_len += (size_t)n < sizeof(answer) - answer_len ? (size_t)n : 0;
}

/* ---- set-up ---- */

static int on_event(void *ctx, void *data, size_t size)
{
	const struct guard_event *e = data;
	char src[INET6_ADDRSTRLEN], dst[INET6_ADDRSTRLEN];

	(void)ctx;
	if (size < sizeof(*e))
		return -EINVAL;
	inet_ntop(AF_INET6, e->src, src, sizeof(src));
	inet_ntop(AF_INET6, e->dst, dst, sizeof(dst));
	say("%u %u %u %u %s %u %s %u\n", e->ifindex, e->proto, e->why, e->suppressed, src,
	    ntohs(e->sport), dst, ntohs(e->dport));
	return 0;
}

static int load(char *const words[])
{
	int r;

	skel = guard_bpf__open();
	if (!skel)
		return -errno;
	skel->rodata->steer_mark = strtoul(words[1], NULL, 0);
	skel->rodata->capture_port = strtoul(words[2], NULL, 0);
	r = guard_bpf__load(skel);
	if (r < 0)
		return r;
	ring = ring_buffer__new(bpf_map__fd(skel->maps.sluice_events), on_event, NULL, NULL);
	return ring ? 0 : -errno;
}

static int set_net(char *const words[])
{
	__u32 value = strtoul(words[2], NULL, 0);
	struct guard_net4 net4;
	struct guard_net6 net6;
	struct cidr net;
	int r = cidr_parse(words[1], &net);

	if (r < 0)
		return r;
	if (cidr_is_v4(&net)) {
		net4.prefixlen = net.bits - 96;
		memcpy(net4.addr, net.ip + 12, 4);
		r = bpf_map_update_elem(bpf_map__fd(skel->maps.sluice_net4), &net4, &value, 0);
	} else {
		net6.prefixlen = net.bits;
		memcpy(net6.addr, net.ip, 16);
		r = bpf_map_update_elem(bpf_map__fd(skel->maps.sluice_net6), &net6, &value, 0);
	}
	return r;
}

static int parse_mac(const char *text, __u8 mac[6])
{
	return sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3],
		      &mac[4], &mac[5]) == 6
		       ? 0
		       : -EINVAL;
}

static int set_pod(char *const words[], int n)
{
	__u32 ifindex = strtoul(words[1], NULL, 0);
	struct guard_own own = {.ifindex = ifindex};
	struct guard_pod pod = {
		.flags = strtoul(words[2], NULL, 0),
		.buckets = strtoul(words[3], NULL, 0),
		.upper = strtoul(words[5], NULL, 0),
	};
	__u8 one = 1;
	int r;

	if (parse_mac(words[4], pod.mac) < 0 || parse_mac(words[6], pod.upper_mac) < 0 ||
	    parse_mac(words[7], pod.pod_mac) < 0)
		return -EINVAL;
	for (int i = 8; i < n; i++) {
		struct addr addr;

		r = addr_parse_ip(words[i], &addr);
		if (r < 0)
			return r;
		memcpy(own.addr, addr.ip, sizeof(own.addr));
		r = bpf_map_update_elem(bpf_map__fd(skel->maps.sluice_own), &own, &one, 0);
		if (r < 0)
			return r;
	}
	return bpf_map_update_elem(bpf_map__fd(skel->maps.sluice_pods), &ifindex, &pod, 0);
}

static int forget(char *const words[])
{
	__u32 ifindex = strtoul(words[1], NULL, 0);

	return bpf_map_delete_elem(bpf_map__fd(skel->maps.sluice_pods), &ifindex);
}

/* The links live as long as this process. */
static int attach_tcx(int ifindex)
{
	int from = bpf_program__fd(skel->progs.sluice_from_pod);
	int to = bpf_program__fd(skel->progs.sluice_to_pod);

	if (bpf_link_create(from, ifindex, TCX_INGRESS, NULL) < 0 ||
	    bpf_link_create(to, ifindex, TCX_EGRESS, NULL) < 0)
		return -errno;
	return 0;
}

static int attach_tc(int ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, from, .prog_fd = bpf_program__fd(skel->progs.sluice_from_pod));
	LIBBPF_OPTS(bpf_tc_opts, to, .prog_fd = bpf_program__fd(skel->progs.sluice_to_pod));
	int r = bpf_tc_hook_create(&hook);

	if (r < 0)
		return r;
	hook.attach_point = BPF_TC_INGRESS;
	r = bpf_tc_attach(&hook, &from);
	if (r < 0)
		return r;
	hook.attach_point = BPF_TC_EGRESS;
	return bpf_tc_attach(&hook, &to);
}

static int attach(char *const words[])
{
	int ifindex = (int)strtol(words[1], NULL, 0);

	return strcmp(words[2], "tcx") == 0 ? attach_tcx(ifindex) : attach_tc(ifindex);
}

static int listener(int fd)
{
	__u32 value = GUARD_SOCKET_AGENT;

	return bpf_map_update_elem(bpf_map__fd(skel->maps.sluice_sockets), &fd, &value, 0);
}

/* ---- what it has done ---- */

static int counts(void)
{
	int fd = bpf_map__fd(skel->maps.sluice_counts), cpus = libbpf_num_possible_cpus();
	OWNED_MEM struct guard_count *per_cpu = calloc((size_t)cpus, sizeof(*per_cpu));
	struct guard_count_key key, *last = NULL;

	if (!per_cpu)
		return -ENOMEM;
	while (bpf_map_get_next_key(fd, last, &key) == 0) {
		struct guard_count sum = {0};

		last = &key;
		if (key.ifindex == 0 || bpf_map_lookup_elem(fd, &key, per_cpu) < 0)
			continue;
		for (int i = 0; i < cpus; i++) {
			sum.packets += per_cpu[i].packets;
			sum.bytes += per_cpu[i].bytes;
		}
		say("%u %u %u %llu %llu\n", key.ifindex, key.proto, key.why, sum.packets,
		    sum.bytes);
	}
	return 1;
}

struct bucket {
	__u64 lock;
	struct guard_flow ways[GUARD_FLOW_WAYS];
};

/* Calls `each` with every bucket of an interface, and writes back what it returns true for. */
static int each_bucket(__u32 ifindex, bool (*each)(void *ctx, struct bucket *bucket), void *ctx)
{
	int fd = bpf_map__fd(skel->maps.sluice_flows);
	struct guard_flow_key key, *last = NULL;
	struct bucket bucket;

	while (bpf_map_get_next_key(fd, last, &key) == 0) {
		last = &key;
		if (key.ifindex != ifindex || bpf_map_lookup_elem(fd, &key, &bucket) < 0)
			continue;
		if (each(ctx, &bucket) && bpf_map_update_elem(fd, &key, &bucket, BPF_EXIST) < 0)
			return -errno;
	}
	return 0;
}

static bool count_states(void *ctx, struct bucket *bucket)
{
	__u32 *in = ctx;

	for (int i = 0; i < GUARD_FLOW_WAYS; i++)
		in[bucket->ways[i].state % GUARD_FLOW_N_]++;
	return false;
}

static int flows(char *const words[])
{
	__u32 in[GUARD_FLOW_N_] = {0};
	int r = each_bucket(strtoul(words[1], NULL, 0), count_states, in);

	for (int i = 0; i < GUARD_FLOW_N_; i++)
		say("%u ", in[i]);
	return r < 0 ? r : 1;
}

struct times {
	__u32 v[4096];
	size_t n;
};

static bool collect_times(void *ctx, struct bucket *bucket)
{
	struct times *t = ctx;

	for (int i = 0; i < GUARD_FLOW_WAYS && t->n < ARRAY_SIZE(t->v); i++) {
		if (bucket->ways[i].state != GUARD_FLOW_FREE)
			t->v[t->n++] = bucket->ways[i].seen;
	}
	return false;
}

static int compare(const void *a, const void *b)
{
	const __u32 *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int ages(char *const words[])
{
	static struct times t;
	int r;

	t.n = 0;
	r = each_bucket(strtoul(words[1], NULL, 0), collect_times, &t);
	qsort(t.v, t.n, sizeof(t.v[0]), compare);
	for (size_t i = 0; i < t.n; i++)
		say("%u ", t.v[i]);
	return r < 0 ? r : 1;
}

static bool make_older(void *ctx, struct bucket *bucket)
{
	const __u32 *by = ctx;

	for (int i = 0; i < GUARD_FLOW_WAYS; i++)
		bucket->ways[i].seen -= *by;
	return true;
}

static int age(char *const words[])
{
	__u32 by = (__u32)(strtoll(words[2], NULL, 0) * 1000000000LL / (1 << 20));

	return each_bucket(strtoul(words[1], NULL, 0), make_older, &by);
}

/* The kernel fills up its store of memory for maps a little later than it is taken from. */
static int put_zero(int fd, const void *key, const void *zero)
{
	for (int i = 0; bpf_map_update_elem(fd, key, zero, BPF_NOEXIST) < 0; i++) {
		if (errno != ENOMEM || i == 10000)
			return -errno;
		usleep(1000);
	}
	return 0;
}

static int fill_counts(void)
{
	int fd = bpf_map__fd(skel->maps.sluice_counts);
	OWNED_MEM struct guard_count *zero =
		calloc((size_t)libbpf_num_possible_cpus(), sizeof(*zero));
	struct guard_count_key key = {0};
	int r = zero ? 0 : -ENOMEM;

	for (__u32 i = 0; r == 0; i++) {
		memcpy(&key.proto, &i, sizeof(i)); /* of interface 0, which there never is */
		r = put_zero(fd, &key, zero);
	}
	return r == -E2BIG ? 0 : r;
}

static int fill_flows(void)
{
	OWNED_MEM void *zero = calloc(1, bpf_map__value_size(skel->maps.sluice_flows));
	int fd = bpf_map__fd(skel->maps.sluice_flows);
	struct guard_flow_key key = {0};
	int r = zero ? 0 : -ENOMEM;

	for (; r == 0; key.bucket++)
		r = put_zero(fd, &key, zero);
	return r == -E2BIG ? 0 : r;
}

static int run(char *const words[])
{
	int from = strcmp(words[1], "from") == 0;
	struct __sk_buff ctx = {.ifindex = strtoul(words[2], NULL, 0)};
	__u8 frame[2048], out[4096];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_out = out, .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx), .data_size_out = sizeof(out),
		    .repeat = (int)strtol(words[3], NULL, 0));
	size_t len = strlen(words[4]) / 2;
	int r;

	for (size_t i = 0; i < len && i < sizeof(frame); i++) {
		if (sscanf(words[4] + 2 * i, "%2hhx", &frame[i]) != 1)
			return -EINVAL;
	}
	opts.data_size_in = (__u32)len;
	r = bpf_prog_test_run_opts(
		bpf_program__fd(from ? skel->progs.sluice_from_pod : skel->progs.sluice_to_pod),
		&opts);
	if (r < 0)
		return r;
	say("%d %u", (int)opts.retval, opts.duration);
	return 1;
}

/* ---- conversation ---- */

/* 0: done; 1: the answer is said already; -errno. */
static int obey(char *const words[], int n, int fd)
{
	static const struct {
		const char *name;
		int words;
	} needs[] = {{"load", 3}, {"net", 3},   {"pod", 8},  {"forget", 2}, {"attach", 3},
		     {"fill", 2}, {"flows", 2}, {"ages", 2}, {"age", 3},    {"run", 5}};

	for (size_t i = 0; i < ARRAY_SIZE(needs); i++) {
		if (strcmp(words[0], needs[i].name) == 0 && n < needs[i].words)
			return -EINVAL;
	}
	if (strcmp(words[0], "load") == 0)
		return load(words);
	if (!skel)
		return -ENOTCONN;
	if (strcmp(words[0], "net") == 0)
		return set_net(words);
	if (strcmp(words[0], "pod") == 0)
		return set_pod(words, n);
	if (strcmp(words[0], "forget") == 0)
		return forget(words);
	if (strcmp(words[0], "attach") == 0)
		return attach(words);
	if (strcmp(words[0], "listener") == 0)
		return listener(fd);
	if (strcmp(words[0], "counts") == 0)
		return counts();
	if (strcmp(words[0], "events") == 0)
		return ring_buffer__consume(ring) < 0 ? -EIO : 1;
	if (strcmp(words[0], "flows") == 0)
		return flows(words);
	if (strcmp(words[0], "ages") == 0)
		return ages(words);
	if (strcmp(words[0], "age") == 0)
		return age(words);
	if (strcmp(words[0], "fill") == 0)
		return strcmp(words[1], "counts") == 0 ? fill_counts() : fill_flows();
	if (strcmp(words[0], "run") == 0)
		return run(words);
	return -ENOSYS;
}

static int split(char *line, char *words[])
{
	int n = 0;

	for (char *save, *word = strtok_r(line, " ", &save); word && n < WORDS_MAX;
	     word = strtok_r(NULL, " ", &save))
		words[n++] = word;
	return n;
}

/* *ret_fd is what came with it, -1 when nothing did. */
static ssize_t receive(int sock, char *line, size_t size, int *ret_fd)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {line, size - 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c;

	if (n <= 0)
		return n;
	line[n] = '\0';
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	return n;
}

int main(int argc, char **argv)
{
	static char line[MESSAGE_MAX];
	char *words[WORDS_MAX];
	int sock, n, r;

	if (argc != 2)
		return 2;
	sock = (int)strtol(argv[1], NULL, 0);
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
	for (;;) {
		OWNED_FD int fd = -1;

		if (receive(sock, line, sizeof(line), &fd) <= 0)
			break;
		answer_len = 0;
		n = split(line, words);
		r = n == 0 ? -EINVAL : obey(words, n, fd);
		if (r < 0) {
			answer_len = 0;
			say("error %s", strerrorname_np(-r));
		} else if (r == 0) {
			say("ok");
		}
		if (answer_len == 0)
			say("\n"); /* a message of no bytes would be the end */
		if (send(sock, answer, answer_len, MSG_NOSIGNAL) < 0)
			break;
	}
	ring_buffer__free(ring);
	guard_bpf__destroy(skel);
	return 0;
}
