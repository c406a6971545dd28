/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The ways of making a plan true. All act on the network namespace that the calling thread is in
 * and do not log above debug level. Any thread. redirect_nft starts no process. redirect_ipt does,
 * and waits for it: to change rules, and to look at rules that it has not seen before.
 */
#include <stdio.h>

struct plan;

struct redirector {
	const char *name; /* as in `redirect.backend` */
	/* 0: this kernel can; -EOPNOTSUPP: it cannot. Tried in a namespace made for it, so that
	 * nothing of anybody's is touched.
	 */
	int (*probe)(void);
	/* All or nothing, and applying twice is applying once: what was there before is replaced
	 * in one transaction. -errno.
	 */
	int (*apply)(const struct plan *plan);
	/* 0: the kernel holds exactly this plan. -ESTALE: it does not. -errno: cannot tell. */
	int (*verify)(const struct plan *plan);
	int (*remove)(void); /* 0 also when there was nothing */
};

extern const struct redirector redirect_nft; /* redirect_nft.c */
extern const struct redirector redirect_ipt; /* redirect_ipt.c */

/* For probe(): applies and verifies a plan of nothing in a namespace made for it. */
int redirector_try(int (*apply)(const struct plan *plan), int (*verify)(const struct plan *plan));

/* What redirect_nft.apply() would tell the kernel, message by message. -ENOMEM. For tests. */
int redirect_nft_print(const struct plan *plan, FILE *out);
