/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/sentinel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/netns.h"
#include "base/owned.h"
#include "pod/nflog.h"
#include "redirect/plan.h"

/* Changes: those of a moment are one call, and after the second within a window it is a burst. */
#define WINDOW_MS 100
#define CALLS_MAX 2
#define DRAIN_MAX 128 /* messages read at once */

/* Refusals. Our own rules report bursts of PLAN_REPORT_BURST, then PLAN_REPORT_RATE a second. */
#define REPORTS_WINDOW_MS 1000
#define REPORTS_MAX       128

/* How the kernel bundles them: a full bundle is sent at once, another after FLUSH_CS. */
#define BUNDLE   16 /* packets */
#define FLUSH_CS 4  /* hundredths of a second */

#define GROUP_RETRY_MS 2000

/* Kept small: whoever floods a pod's sockets fills memory of the kernel's. */
#define CHANGES_BUFFER (32 << 10)
#define REPORTS_BUFFER (128 << 10)

enum ear_kind {
	EAR_RULES,
	EAR_LINKS,
	EAR_REFUSED,
	EAR_N_,
};

struct ear {
	struct sentinel *owner;
	struct watch watch;
	struct timer muted; /* armed while it is not listened to */
	uint64_t window_ms; /* when the present window began */
	unsigned spent;     /* within it */
};

struct sentinel {
	struct loop *loop;
	struct sentinel_hooks hooks;
	struct ear ears[EAR_N_];
	uint16_t group;
	bool has_group;
	struct timer retry;
	struct later later; /* frees */
};

/* ---- listening less ---- */

static void unmute(struct timer *t)
{
	struct ear *ear = CONTAINER_OF(t, struct ear, muted);

	ear->spent = 0;
	ear->window_ms = loop_now_ms(ear->owner->loop);
	if (watch_add(ear->owner->loop, &ear->watch, EPOLLIN) < 0)
		timer_start(ear->owner->loop, t, WINDOW_MS);
}

/* What comes meanwhile waits in the socket, or is lost there: for changes that is a change too. */
static void mute(struct ear *ear, uint64_t for_ms)
{
	watch_remove(ear->owner->loop, &ear->watch);
	timer_start(ear->owner->loop, &ear->muted, for_ms);
}

/* Counts what was done against what may be done within a window, from its first event. */
static void spend(struct ear *ear, unsigned n, unsigned max, uint64_t window_ms)
{
	uint64_t now = loop_now_ms(ear->owner->loop), age = now - ear->window_ms;

	if (age >= window_ms) {
		ear->window_ms = now;
		ear->spent = 0;
		age = 0;
	}
	ear->spent += n;
	if (ear->spent >= max)
		mute(ear, window_ms - age);
}

/* ---- changes ---- */

/* They are not read: who is told looks for himself. False: there are more. */
static bool drain(int fd)
{
	for (int i = 0; i < DRAIN_MAX; i++) {
		char byte;

		if (recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno != ENOBUFS && errno != EINTR)
			return true;
	}
	return false;
}

static void on_change(struct ear *ear, void (*hook)(void *ctx))
{
	bool all = drain(ear->watch.fd);
	void *ctx = ear->owner->hooks.ctx;

	spend(ear, all ? 1 : CALLS_MAX, CALLS_MAX, WINDOW_MS);
	hook(ctx); /* last: it may free all this */
}

static void on_rules(struct watch *w, uint32_t events)
{
	struct ear *ear = CONTAINER_OF(w, struct ear, watch);

	(void)events;
	on_change(ear, ear->owner->hooks.on_rules_changed);
}

static void on_links(struct watch *w, uint32_t events)
{
	struct ear *ear = CONTAINER_OF(w, struct ear, watch);

	(void)events;
	on_change(ear, ear->owner->hooks.on_links_changed);
}

/* ---- refusals ---- */

/* 0: nothing there. Root in the pod can send to our socket as well: that does not count as said by
 * the kernel, but as work.
 */
static ssize_t receive(int fd, void *buf, size_t size, bool *ret_kernel)
{
	struct sockaddr_nl from = {0};
	socklen_t len = sizeof(from);
	ssize_t n;

	do {
		n = recvfrom(fd, buf, size, MSG_DONTWAIT, (struct sockaddr *)&from, &len);
	} while (n < 0 && (errno == EINTR || errno == ENOBUFS));
	*ret_kernel = from.nl_pid == 0;
	return n < 0 ? 0 : n;
}

/* How many packets; the sentinel may be gone then. */
static unsigned tell(struct sentinel *s, struct span bundle)
{
	const struct watch *w = &s->ears[EAR_REFUSED].watch;
	struct refused_packet packet;
	enum nflog kind;
	unsigned n = 0;

	while (w->fd >= 0 && (kind = nflog_read(&bundle, &packet)) != NFLOG_END) {
		if (kind == NFLOG_PACKET)
			s->hooks.on_refused(s->hooks.ctx, &packet);
		n++;
	}
	return n;
}

static void on_reports(struct watch *w, uint32_t events)
{
	struct ear *ear = CONTAINER_OF(w, struct ear, watch);
	uint8_t buf[8192]; /* twice the kernel's bundle: a page, with PLAN_REPORT_SNAPLEN of each */
	bool kernel;
	unsigned n = 0;

	(void)events;
	while (w->fd >= 0 && n < REPORTS_MAX) {
		ssize_t len = receive(w->fd, buf, sizeof(buf), &kernel);

		if (len == 0)
			break;
		n += (kernel ? tell(ear->owner, (struct span){buf, (size_t)len}) : 0) ?: 1;
	}
	if (w->fd >= 0)
		spend(ear, n ?: 1, REPORTS_MAX, REPORTS_WINDOW_MS);
}

/* ---- the group ---- */

static size_t build_bind(uint16_t group, void *buf)
{
	struct nfulnl_msg_config_cmd bind = {.command = NFULNL_CFG_CMD_BIND};
	struct nfulnl_msg_config_mode mode = {.copy_range = htonl(PLAN_REPORT_SNAPLEN),
					      .copy_mode = NFULNL_COPY_PACKET};
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *g;

	h->nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
	g->nfgen_family = AF_UNSPEC;
	g->version = NFNETLINK_V0;
	g->res_id = htons(group);
	mnl_attr_put(h, NFULA_CFG_CMD, sizeof(bind), &bind);
	mnl_attr_put(h, NFULA_CFG_MODE, sizeof(mode), &mode);
	mnl_attr_put_u32(h, NFULA_CFG_TIMEOUT, htonl(FLUSH_CS));
	mnl_attr_put_u32(h, NFULA_CFG_QTHRESH, htonl(BUNDLE));
	return h->nlmsg_len;
}

/* The kernel has answered when sendto() returns; packets may have been quicker. */
static int read_answer(int fd)
{
	char buf[8192] __attribute__((aligned(8)));
	bool kernel;
	ssize_t n;

	while ((n = receive(fd, buf, sizeof(buf), &kernel)) > 0) {
		const struct nlmsghdr *h = (const struct nlmsghdr *)buf;
		const struct nlmsgerr *e = mnl_nlmsg_get_payload(h);

		if (kernel && mnl_nlmsg_ok(h, (int)n) && h->nlmsg_type == NLMSG_ERROR &&
		    mnl_nlmsg_get_payload_len(h) >= sizeof(*e))
			return e->error;
	}
	return -EPROTO;
}

static int bind_group(struct sentinel *s)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	int fd = s->ears[EAR_REFUSED].watch.fd, r;
	char buf[512] __attribute__((aligned(8)));

	if (sendto(fd, buf, build_bind(s->group, buf), 0, (struct sockaddr *)&kernel,
		   sizeof(kernel)) < 0)
		return -errno;
	r = read_answer(fd);
	if (r == -EBUSY) /* by ourselves: an answer was lost before */
		r = 0;
	if (r == 0)
		s->has_group = true;
	return r;
}

static void on_retry(struct timer *t)
{
	struct sentinel *s = CONTAINER_OF(t, struct sentinel, retry);

	if (bind_group(s) < 0)
		timer_start(s->loop, t, GROUP_RETRY_MS);
}

/* nfnetlink_log says -EPERM when another socket has the group. */
static int take_group(struct sentinel *s)
{
	int r = bind_group(s);

	if (r != -EPERM && r != -EPROTO)
		return r;
	log_debug("NFLOG group %u: %s", s->group, strerrordesc_np(-r));
	timer_start(s->loop, &s->retry, GROUP_RETRY_MS);
	return 0;
}

/* ---- sockets ---- */

static int join(int fd, const int *groups, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof(int)) <
		    0)
			return -errno;
	}
	return 0;
}

static int open_socket(int protocol, int buffer, const int *groups, size_t n)
{
	OWNED_FD int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
	struct sockaddr_nl self = {.nl_family = AF_NETLINK};
	int r;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer)) < 0 ||
	    bind(fd, (struct sockaddr *)&self, sizeof(self)) < 0)
		return -errno;
	r = join(fd, groups, n);
	return r < 0 ? r : TAKE_FD(fd);
}

static int open_ear(struct sentinel *s, enum ear_kind kind)
{
	static const int rules[] = {NFNLGRP_NFTABLES};
	static const int links[] = {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR};
	struct watch *w = &s->ears[kind].watch;
	int fd = -1;

	switch (kind) {
	case EAR_RULES:
		w->on_event = on_rules;
		fd = open_socket(NETLINK_NETFILTER, CHANGES_BUFFER, rules, ARRAY_SIZE(rules));
		break;
	case EAR_LINKS:
		w->on_event = on_links;
		fd = open_socket(NETLINK_ROUTE, CHANGES_BUFFER, links, ARRAY_SIZE(links));
		break;
	case EAR_REFUSED:
		w->on_event = on_reports;
		fd = open_socket(NETLINK_NETFILTER, REPORTS_BUFFER, NULL, 0);
		break;
	case EAR_N_:
		break;
	}
	if (fd < 0)
		return fd;
	w->fd = fd;
	return watch_add(s->loop, w, EPOLLIN);
}

static int open_ears(struct sentinel *s)
{
	int r = 0;

	if (s->hooks.on_rules_changed)
		r = open_ear(s, EAR_RULES);
	if (s->hooks.on_links_changed && r == 0)
		r = open_ear(s, EAR_LINKS);
	if (s->hooks.on_refused && r == 0)
		r = open_ear(s, EAR_REFUSED);
	if (s->hooks.on_refused && r == 0)
		r = take_group(s);
	return r;
}

static void run_free(struct later *later)
{
	free(CONTAINER_OF(later, struct sentinel, later));
}

int sentinel_new(struct sentinel **ret, struct loop *loop, int netns_fd, uint16_t nflog_group,
		 const struct sentinel_hooks *hooks)
{
	OWNED(netns_leave) int home = -1;
	struct sentinel *s;
	int r;

	r = netns_enter(netns_fd, &home);
	if (r < 0)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->loop = loop;
	s->hooks = *hooks;
	s->group = nflog_group;
	s->retry.on_expire = on_retry;
	s->later.run = run_free;
	for (enum ear_kind k = 0; k < EAR_N_; k++) {
		s->ears[k].owner = s;
		s->ears[k].watch.fd = -1;
		s->ears[k].muted.on_expire = unmute;
	}
	r = open_ears(s);
	if (r < 0) {
		sentinel_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void sentinel_free(struct sentinel *sentinel)
{
	if (!sentinel)
		return;
	for (enum ear_kind k = 0; k < EAR_N_; k++) {
		watch_close(&sentinel->ears[k].watch);
		timer_stop(sentinel->loop, &sentinel->ears[k].muted);
	}
	timer_stop(sentinel->loop, &sentinel->retry);
	/* Events in hand still look at the watches. */
	loop_later(sentinel->loop, &sentinel->later);
}

bool sentinel_hears_refusals(const struct sentinel *sentinel)
{
	return sentinel->has_group;
}
