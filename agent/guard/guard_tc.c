/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <stdio.h>
#include <string.h>

#include "base/owned.h"
#include "guard/guard_ebpf.h"
#include "guard/bpf_log.h"
#include "guard/route_nl.h"

static const struct {
	enum bpf_tc_attach_point point;
	uint32_t parent;
} hooks[] = {
	[GUARD_FROM_POD] = {BPF_TC_INGRESS, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)},
	[GUARD_TO_POD] = {BPF_TC_EGRESS, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)},
};
_Static_assert(ARRAY_SIZE(hooks) == GUARD_DIR_N_, "every direction has a hook");

/* ---- what is there ---- */

struct filters {
	unsigned seen; /* filters so far, whoever's */
	bool chained;  /* and there are some in other chains */
	struct {
		uint32_t handle, prog_id;
		unsigned place; /* 1: the first of all */
	} ours[2];
	unsigned n_ours;
	bool taken; /* somebody else's has our priority and handle */
};

/* libbpf calls a filter after its program, ":[", its number, "]". */
static bool is_our_name(struct nlattr *name)
{
	return name && strncmp(nla_data(name), "sluice_", 7) == 0;
}

static int on_filter(void *ctx, struct nlmsghdr *h)
{
	struct nlattr *tb[TCA_MAX + 1], *opts[TCA_BPF_MAX + 1] = {0};
	struct tcmsg *t = nlmsg_data(h);
	struct filters *f = ctx;
	bool mine;

	/* Each priority is listed by itself too, with no handle. */
	if (h->nlmsg_type != RTM_NEWTFILTER || t->tcm_handle == 0)
		return 0;
	if (nlmsg_parse(h, sizeof(*t), tb, TCA_MAX, NULL) < 0)
		return -EBADMSG;
	if (tb[TCA_CHAIN] && nla_get_u32(tb[TCA_CHAIN]) != 0) { /* where only a filter leads */
		f->chained = true;
		return 0;
	}
	f->seen++;
	if (TC_H_MAJ(t->tcm_info) >> 16 != GUARD_TC_PRIORITY ||
	    (t->tcm_handle != GUARD_TC_HANDLE && t->tcm_handle != GUARD_TC_HANDLE2))
		return 0;
	mine = tb[TCA_KIND] && nla_strcmp(tb[TCA_KIND], "bpf") == 0 && tb[TCA_OPTIONS] &&
	       nla_parse_nested(opts, TCA_BPF_MAX, tb[TCA_OPTIONS], NULL) == 0 &&
	       is_our_name(opts[TCA_BPF_NAME]) && opts[TCA_BPF_ID];
	if (!mine || f->n_ours == ARRAY_SIZE(f->ours)) {
		f->taken = true;
		return 0;
	}
	f->ours[f->n_ours].handle = t->tcm_handle;
	f->ours[f->n_ours].prog_id = nla_get_u32(opts[TCA_BPF_ID]);
	f->ours[f->n_ours++].place = f->seen;
	return 0;
}

/* In the order in which the kernel asks them. Of an interface that is gone, or has no clsact, there
 * are none.
 */
static int list_filters(uint32_t ifindex, enum guard_dir dir, struct filters *ret)
{
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETTFILTER, NLM_F_DUMP);
	struct tcmsg t = {.tcm_family = AF_UNSPEC,
			  .tcm_ifindex = (int)ifindex,
			  .tcm_parent = hooks[dir].parent};
	OWNED(route_nl_close) struct nl_sock *sk = NULL;
	int r = route_nl_open(&sk);

	*ret = (struct filters){0};
	if (!msg || r < 0 || nlmsg_append(msg, &t, sizeof(t), NLMSG_ALIGNTO) < 0) {
		nlmsg_free(msg);
		return r < 0 ? r : -ENOMEM;
	}
	r = route_nl_read(sk, msg, on_filter, ret);
	/* EINVAL: no such parent. */
	return r == -ENODEV || r == -EINVAL || r == -ENOENT ? 0 : r;
}

int guard_tc_look(uint32_t ifindex, enum guard_dir dir, uint32_t *ret_id, bool *ret_first)
{
	struct filters f;
	int r = list_filters(ifindex, dir, &f);

	if (r < 0)
		return r;
	if (f.n_ours == 0)
		return -ENOENT;
	*ret_id = f.ours[0].prog_id;
	*ret_first = f.ours[0].place == 1;
	return 0;
}

/* ---- changes ---- */

static struct bpf_tc_hook hook_of(uint32_t ifindex, enum bpf_tc_attach_point point)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = point);

	return hook;
}

static int put(uint32_t ifindex, enum guard_dir dir, int prog_fd, uint32_t handle, bool replace)
{
	struct bpf_tc_hook hook = hook_of(ifindex, hooks[dir].point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = prog_fd, .handle = handle,
		    .priority = GUARD_TC_PRIORITY, .flags = replace ? BPF_TC_F_REPLACE : 0);

	return bpf_tc_attach(&hook, &opts);
}

static int take(uint32_t ifindex, enum guard_dir dir, uint32_t handle)
{
	struct bpf_tc_hook hook = hook_of(ifindex, hooks[dir].point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle, .priority = GUARD_TC_PRIORITY);
	int r = bpf_tc_detach(&hook, &opts);

	return r == -ENOENT || r == -ENODEV || r == -EINVAL ? 0 : r;
}

static int make_clsact(uint32_t ifindex)
{
	struct bpf_tc_hook hook = hook_of(ifindex, BPF_TC_INGRESS | BPF_TC_EGRESS);
	int r = bpf_tc_hook_create(&hook);

	bpf_log_clear(); /* that it was there is nothing to complain of */
	return r == -EEXIST ? 0 : r;
}

static int fail(int r, enum guard_dir dir, char error[static GUARD_ERROR_MAX])
{
	const char *where = dir == GUARD_FROM_POD ? "ingress" : "egress";

	return guard_fail(r, error, "cannot attach a tc filter (%s, priority %d): %s%s%s", where,
			  GUARD_TC_PRIORITY, strerrordesc_np(-r), bpf_log_last()[0] ? "; " : "",
			  bpf_log_last());
}

/* A filter keeps its place when its program is replaced (cls_bpf: list_replace_rcu()), and a new
 * one of the same priority comes before the others (list_add_rcu()). So the place is got back by
 * the other handle, and there is no moment without a program.
 */
static int put_first(const struct guard_progs *progs, uint32_t ifindex, enum guard_dir dir,
		     const struct filters *f)
{
	bool in_place = f->n_ours > 0 && f->ours[0].place == 1;
	uint32_t old = f->ours[0].handle;
	int r = 0;

	if (f->n_ours > 1) /* both, as an agent left them that was killed just here */
		r = take(ifindex, dir, f->ours[1].handle);
	if (r < 0 || in_place)
		return r < 0 ? r : put(ifindex, dir, progs->fd[dir], old, true);
	r = put(ifindex, dir, progs->fd[dir],
		old == GUARD_TC_HANDLE ? GUARD_TC_HANDLE2 : GUARD_TC_HANDLE, false);
	return r < 0 || f->n_ours == 0 ? r : take(ifindex, dir, old);
}

int guard_tc_attach(const struct guard_progs *progs, uint32_t ifindex, enum guard_dir dir,
		    char error[static GUARD_ERROR_MAX])
{
	struct filters f;
	int r;

	bpf_log_clear();
	r = list_filters(ifindex, dir, &f);
	if (r == 0 && f.taken)
		r = -EEXIST;
	if (r == 0 && f.seen == 0)
		r = make_clsact(ifindex);
	if (r == 0)
		r = put_first(progs, ifindex, dir, &f);
	return r < 0 ? fail(r, dir, error) : 0;
}

int guard_tc_detach(uint32_t ifindex, enum guard_dir dir)
{
	struct filters f;
	int r = list_filters(ifindex, dir, &f);

	for (unsigned i = 0; r == 0 && i < f.n_ours; i++)
		r = take(ifindex, dir, f.ours[i].handle);
	return r;
}

static bool has_filters(uint32_t ifindex, enum guard_dir dir)
{
	struct filters f;

	return list_filters(ifindex, dir, &f) < 0 || f.seen > 0 || f.chained;
}

void guard_tc_tidy(uint32_t ifindex)
{
	struct bpf_tc_hook hook = hook_of(ifindex, BPF_TC_INGRESS | BPF_TC_EGRESS);

	if (!has_filters(ifindex, GUARD_FROM_POD) && !has_filters(ifindex, GUARD_TO_POD))
		bpf_tc_hook_destroy(&hook);
	bpf_log_clear(); /* it is gone already, or its interface is */
}
