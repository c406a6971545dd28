/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of pods.h share among themselves:
 *   pods.c      the list, start, end, what is done from time to time
 *   requests.c  what the enrolment socket asks for
 *   hold.c      how one pod is captured, verified, put right, let go
 *   links.c     what interfaces a pod has
 *   around.c    what stands around pods: guards, the node's own part
 *   ways.c      which ways there are to capture pods here; what listens to changes
 *   refusals.c  what never became a connection: its line and its count
 */
#include "guard/hostnet.h"
#include "pod/enrol_server.h"
#include "pod/pods.h"
#include "pod/recent.h"
#include "pod/sentinel.h"
#include "pod/state.h"
#include "redirect/plan.h"
#include "redirect/redirector.h"

struct pod {
	struct pod *next;
	struct pods *pods;
	struct pod_state state;
	char uid[ENROL_ID_MAX + 1]; /* of the API; "" when not told, or by an agent before */
	struct identity *id;
	void *listener; /* of the proxy; meaningful while `listening` */
	bool listening;
	bool held;    /* captured, whatever the back end */
	bool ghost;   /* another sandbox has its name; guarded until it is gone */
	bool failed;  /* the last attempt to put things right */
	bool dirty;   /* the kernel told of a change: look after it soon */
	unsigned age; /* ticks since it was looked at */
	uint64_t repairs;
	uint64_t not_before_ms; /* of the next repair: who undoes it again and again has to wait */
	unsigned wait_ms;
	uint64_t links_at_ms;      /* of the next look at an interface that is open */
	uint64_t serial;           /* never used again, unlike the pod's address in memory */
	unsigned lines;            /* of the access log that its refusals may still have */
	uint64_t lines_full_ms;    /* when they were filled up last */
	struct sentinel *sentinel; /* NULL where nothing can be heard of */
	bool hears_rules;          /* it, and what they refuse */
};

struct pods {
	struct loop *loop;
	struct pods_hooks hooks;
	struct plan plan;
	char *state_dir; /* <stateDir>/pods */
	char *trust_domain;
	char boot_id[STATE_BOOT_ID_MAX];
	dev_t own_dev; /* the agent's namespace */
	ino_t own_ino;
	uint64_t own_cookie; /* 0: the kernel has none (before 5.14) */
	struct enrol_server *server;
	struct timer tick, soon;
	struct later later;
	struct pod *list;
	size_t n;
	uint64_t serials;
	bool strangers; /* there is state that could not be read: its pods may run */

	/* what was found to work here, in the order in which it is tried */
	enum redirect_backend ways[REDIRECT_BACKEND_N_];
	size_t n_ways;
	bool proves;
	struct pods_proof proof;
	uint8_t token[16];
	uint64_t no_ebpf_until_ms; /* steered packets were swallowed: not tried again before */

	struct guard *guard; /* NULL: none */
	bool guard_required, dhcp;
	bool forward; /* the second guard is in force */
	bool steers;
	struct steer_config steer;
	struct origins *origins;
	void *shared; /* listener; NULL: none */
	struct hostnet *hostnet;
	struct sentinel *node; /* of the node's own namespace */
	bool node_dirty, stopping;
	uint64_t node_not_before_ms;
	unsigned ticks;
	struct wanted *wanted; /* pods that the API wants enrolled (wanted.c) */
	size_t n_wanted;
	bool wanted_news;
	struct recent *said;
	uint64_t repairs;
};

/* ---- pods.c ---- */

struct pod *pods_find(const struct pods *pods, const struct pod_name *name);
struct pod *pods_find_netns(const struct pods *pods, dev_t dev, ino_t ino);
struct pod *pods_find_ifindex(const struct pods *pods, uint32_t ifindex);
struct pod *pods_find_cgroup(const struct pods *pods, uint64_t id);
struct pod *pods_find_addr(const struct pods *pods, const struct addr *addr);

/* Takes `state`. -ENOMEM. */
int pod_new(struct pods *pods, struct pod_state *state, struct pod **ret);
void pods_push(struct pods *pods, struct pod *pod);

/* Takes it out of the list, if it is there, and frees it. State on disk, rules and guards are the
 * caller's.
 */
void pods_release(struct pods *pods, struct pod *pod);

/* Its state on disk is that in memory; a warning when that fails. */
void pods_save(struct pods *pods, const struct pod *pod);

/* The pod is gone: what stood around it is taken away. Logs. */
void pods_forget(struct pods *pods, struct pod *pod, const char *why);

/* For the caller to close; -ESTALE when the path leads elsewhere by now. */
int pod_open_netns(const struct pod_state *state);
void pod_become_ghost(struct pods *pods, struct pod *pod);
bool pod_path_leads_to(const char *path, dev_t dev, ino_t ino);
void pods_soon(struct pods *pods); /* look after what is dirty, or has an interface that is open */

/* ---- requests.c ---- */

int pods_on_request(void *ctx, const struct enrol_request *q, char error[static ENROL_ERROR_MAX]);

/* The text for whoever asked, and the same in the log, once. Returns r. */
int pods_refuse(const struct pod_name *pod, int r, char error[static ENROL_ERROR_MAX],
		const char *format, ...) __attribute__((format(printf, 4, 5)));

/* ---- hold.c ---- */

/* Captures the pod by the first way that proves itself, guards first. Logs, and says in `error`
 * what failed; then whatever is in place stays: the pod is closed, not open.
 */
int hold(struct pods *pods, struct pod *pod, int netns_fd, char error[static ENROL_ERROR_MAX]);

/* 1: something was not as it should be and has been put right. Logs. -errno. */
int hold_repair(struct pods *pods, struct pod *pod, int netns_fd,
		char error[static ENROL_ERROR_MAX]);

/* Another interface, or more of one that is still open, gets its guard. Logs what came. 1:
 * something did. -errno.
 */
int hold_links(struct pods *pods, struct pod *pod, int netns_fd,
	       char error[static ENROL_ERROR_MAX]);

/* The pod is enrolled once more: another interface may have come, and rules of sluice-init. */
int hold_again(struct pods *pods, struct pod *pod, int netns_fd,
	       char error[static ENROL_ERROR_MAX]);

/* 0: all is as it should be. Does not log. */
int hold_verify(struct pods *pods, struct pod *pod, int netns_fd,
		char error[static ENROL_ERROR_MAX]);

/* Puts the rules of a new plan in place of the old ones. Does not log. */
int hold_apply(struct pods *pods, struct pod *pod, int netns_fd,
	       char error[static ENROL_ERROR_MAX]);

/* Takes rules away (with `netns_fd`; negative: the namespace is gone), then the guards. */
int hold_end(struct pods *pods, struct pod *pod, int netns_fd, char error[static ENROL_ERROR_MAX]);

/* ---- links.c ---- */

/* What the pod looks like from outside, into its state; addresses once, so that none is legitimate
 * that a process in the pod adds later. A link without an end out here that comes later is no
 * reason to refuse: most are a process's own (tun). It gets no address, and rules inside. 1: there
 * is another link or address than before. -errno, where a guard is required, with what to do in
 * `error`.
 */
int links_look(struct pods *pods, struct pod *pod, int netns_fd,
	       char error[static ENROL_ERROR_MAX]);

/* ---- around.c ---- */

/* All pods of a former agent are in the list: takes away what is left of others. Logs. */
void around_settle(struct pods *pods);

/* The node's second guard gets all pods' addresses and the plan. -errno. */
int around_apply_forward(struct pods *pods);

/* The guards get the pods' new plan. Logs. -errno. */
int around_set_cluster(struct pods *pods);

/* Puts the node's own part right. Logs. */
void around_repair(struct pods *pods);

int around_add(struct pods *pods, struct pod *pod, bool steer, char error[static ENROL_ERROR_MAX]);
int around_verify(struct pods *pods, const struct pod *pod);
void around_remove(struct pods *pods, struct pod *pod);

/* What stands around this pod: "tcx", "tc", "nftables", "cgroup", "none". */
const char *around_name(const struct pods *pods, const struct pod *pod);

/* ---- ways.c ---- */

/* Opens what stands around pods and finds the ways, by the configuration. Logs. */
int around_open(struct pods *pods, const struct pods_config *config);
void around_close(struct pods *pods);

/* Starts to listen to changes of its links, and of rules inside and to what those refuse. Logs.
 * -errno.
 */
int around_listen(struct pods *pods, struct pod *pod, int netns_fd);

/* ---- refusals.c: hooks of those who refuse ---- */

int refusals_open(struct pods *pods);
void refusals_on_guard(void *ctx, const struct guard_event *event);     /* ctx: pods */
void refusals_on_hostnet(void *ctx, const struct hostnet_event *event); /* ctx: pods */
void refusals_on_pod(void *ctx, const struct refused_packet *packet);   /* ctx: pod */
void refusals_on_node(void *ctx, const struct refused_packet *packet);  /* ctx: pods */
