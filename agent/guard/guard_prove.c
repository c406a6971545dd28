/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "base/owned.h"
#include "guard/guard_ebpf.h"

#define LO 1 /* its number in every namespace */

struct trial {
	const struct guard_progs *progs;
	bool tcx;
	int r, link;
	char *error; /* GUARD_ERROR_MAX */
};

static int try_tcx(struct trial *t)
{
	uint32_t id, n;
	int r;

	t->link = guard_tcx_attach(t->progs, LO, GUARD_FROM_POD);
	if (t->link < 0) {
		r = t->link;
		t->link = -1;
		return guard_fail(r == -EINVAL ? -EOPNOTSUPP : r, t->error,
				  "cannot attach by tcx: %s%s", strerrordesc_np(-r),
				  r == -EINVAL ? " (Linux before 6.6?)" : "");
	}
	r = guard_tcx_head(LO, GUARD_FROM_POD, &id, &n);
	if (r < 0 || id != t->progs->id[GUARD_FROM_POD])
		return guard_fail(-EOPNOTSUPP, t->error, "a program attached by tcx is not there");
	return 0;
}

static int try_tc(struct trial *t)
{
	bool first = false;
	uint32_t id = 0;
	int r = 0;

	for (int dir = 0; dir < GUARD_DIR_N_ && r == 0; dir++) {
		r = guard_tc_attach(t->progs, LO, dir, t->error);
		if (r == 0)
			r = guard_tc_look(LO, dir, &id, &first);
		if (r == 0 && (!first || id != t->progs->id[dir]))
			r = guard_fail(-EOPNOTSUPP, t->error, "a tc filter is not there");
	}
	return r;
}

/* The namespace goes with the thread. */
static void *run(void *arg)
{
	struct trial *t = arg;

	if (unshare(CLONE_NEWNET) < 0)
		t->r = guard_fail(-errno, t->error, "cannot make a network namespace to try in: %s",
				  strerrordesc_np(errno));
	else
		t->r = t->tcx ? try_tcx(t) : try_tc(t);
	return NULL;
}

int guard_prove(const struct guard_progs *progs, bool tcx, int *ret_link,
		char error[static GUARD_ERROR_MAX])
{
	struct trial t = {.progs = progs, .tcx = tcx, .link = -1, .error = error};
	pthread_t thread;
	int r;

	r = pthread_create(&thread, NULL, run, &t);
	if (r != 0)
		return guard_fail(-r, error, "cannot start a thread: %s", strerrordesc_np(r));
	pthread_join(thread, NULL);
	if (t.r < 0) {
		owned_close(&t.link);
		return t.r;
	}
	*ret_link = t.link;
	return 0;
}
