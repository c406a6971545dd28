/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include "base/owned.h"
#include "guard/guard_ebpf.h"

/* With tcx, an interface without anybody's programs gets clsact filters first, which takes a third
 * of a millisecond, and its links a little later from guard_late.c: the kernel waits for some 10 ms
 * for each of those. Where other programs are attached by tcx, a filter might never be asked, and
 * the links are waited for. Filters stay in force as links do when we end: both are in force at
 * any time in between.
 */

static int fail(int r, const char *what, char error[static GUARD_ERROR_MAX])
{
	return guard_fail(r, error, "cannot %s: %s", what,
			  r == -ENODEV ? "the interface is gone" : strerrordesc_np(-r));
}

static void unpin(const struct guard_attacher *a, uint32_t ifindex, enum guard_dir dir)
{
	char path[GUARD_PATH_MAX];
	int fd = bpf_obj_get(guard_pins_link(a->pins, ifindex, dir, path));

	unlink(path);
	guard_late_close(a->late, fd < 0 ? -1 : fd);
}

/* ---- tcx ---- */

static int attach_now(const struct guard_attacher *a, uint32_t ifindex, enum guard_dir dir,
		      char error[static GUARD_ERROR_MAX])
{
	OWNED_FD int fd = guard_tcx_attach(a->progs, ifindex, dir);
	int r;

	if (fd < 0)
		return fail(fd, "attach by tcx", error);
	r = guard_tcx_pin(a->pins, ifindex, dir, fd);
	return r < 0 ? fail(r, "pin a tcx link", error) : 0;
}

/* Somebody's program has come before ours. One program cannot be in a chain twice (EEXIST), so ours
 * leaves its place before it gets the first: meanwhile a filter judges what the others let through,
 * which is what ours did where it was.
 */
static int attach_first(const struct guard_attacher *a, uint32_t ifindex, enum guard_dir dir,
			char error[static GUARD_ERROR_MAX])
{
	char path[GUARD_PATH_MAX];
	uint32_t prog;
	OWNED_FD int fd = guard_tcx_open(a->pins, ifindex, dir, &prog);

	if (fd >= 0) {
		guard_tc_attach(a->progs, ifindex, dir, error);
		guard_tcx_detach(guard_pins_link(a->pins, ifindex, dir, path));
	}
	return attach_now(a, ifindex, dir, error);
}

/* 1: a link is there. 0: a filter is. */
static int attach_dir(const struct guard_attacher *a, uint32_t ifindex, enum guard_dir dir,
		      char error[static GUARD_ERROR_MAX])
{
	uint32_t id, n;
	int r;

	guard_tcx_renew(a->pins, a->progs, ifindex, dir);
	if (guard_tcx_is_right(a->pins, a->progs, ifindex, dir))
		return 1;
	r = guard_tcx_head(ifindex, dir, &id, &n);
	if (r < 0)
		return fail(r, "ask for programs attached by tcx", error);
	/* Ours, but not pinned: a link that is being made, or closed, on the other thread. */
	if ((n == 0 || id == a->progs->id[dir]) &&
	    guard_tc_attach(a->progs, ifindex, dir, error) == 0)
		return 0;
	r = attach_first(a, ifindex, dir, error);
	return r < 0 ? r : 1;
}

static void detach_filters(uint32_t ifindex)
{
	for (int dir = 0; dir < GUARD_DIR_N_; dir++)
		guard_tc_detach(ifindex, dir);
}

/* What comes towards the pod first, so that answers to it are known when the other begins to drop.
 */
static int attach_tcx(const struct guard_attacher *a, uint32_t ifindex,
		      char error[static GUARD_ERROR_MAX])
{
	int out, in;

	out = attach_dir(a, ifindex, GUARD_TO_POD, error);
	if (out < 0)
		return out;
	in = attach_dir(a, ifindex, GUARD_FROM_POD, error);
	if (in < 0)
		return in;
	if (in && out)
		detach_filters(ifindex);
	else
		guard_late_attach(a->late, ifindex,
				  (in ? 0 : 1U << GUARD_FROM_POD) | (out ? 0 : 1U << GUARD_TO_POD));
	return 0;
}

void guard_take_links(const struct guard_attacher *a, uint32_t ifindex,
		      const int links[GUARD_DIR_N_])
{
	bool right = true;

	for (int dir = 0; dir < GUARD_DIR_N_; dir++) {
		if (links[dir] >= 0)
			guard_tcx_pin(a->pins, ifindex, dir, links[dir]);
		right &= guard_tcx_is_right(a->pins, a->progs, ifindex, dir);
		guard_late_close(a->late, links[dir]);
	}
	if (right)
		detach_filters(ifindex);
}

/* ---- tc ---- */

/* tcx runs before clsact, and its verdict may be the last word (sch_handle_ingress()). */
static bool others_come_first(const struct guard_attacher *a, uint32_t ifindex, enum guard_dir dir)
{
	uint32_t id, n;

	if (guard_tcx_head(ifindex, dir, &id, &n) < 0 || n == 0) /* -EINVAL: no tcx here */
		return false;
	return n > 1 || id != a->progs->id[dir];
}

static int attach_tc(const struct guard_attacher *a, uint32_t ifindex,
		     char error[static GUARD_ERROR_MAX])
{
	for (int dir = GUARD_DIR_N_ - 1; dir >= 0; dir--) { /* towards the pod first, as above */
		int r;

		guard_tcx_renew(a->pins, a->progs, ifindex, dir);
		if (others_come_first(a, ifindex, dir))
			return guard_fail(
				-EBUSY, error,
				"other programs are attached by tcx, and would run before a "
				"tc filter: set guard.attach to 'tcx' or 'auto'");
		r = guard_tc_attach(a->progs, ifindex, dir, error);
		if (r < 0)
			return r;
	}
	/* Of an agent that used tcx. They run what the filters run until they are closed. */
	unpin(a, ifindex, GUARD_FROM_POD);
	unpin(a, ifindex, GUARD_TO_POD);
	return 0;
}

/* ---- either ---- */

int guard_attach(const struct guard_attacher *a, uint32_t ifindex,
		 char error[static GUARD_ERROR_MAX])
{
	return a->tcx ? attach_tcx(a, ifindex, error) : attach_tc(a, ifindex, error);
}

bool guard_is_attached(const struct guard_attacher *a, uint32_t ifindex)
{
	bool first;
	uint32_t id;

	for (int dir = 0; dir < GUARD_DIR_N_; dir++) {
		OWNED_FD int fd = guard_tcx_open(a->pins, ifindex, dir, &id);

		if (fd >= 0 || guard_tc_look(ifindex, dir, &id, &first) == 0)
			return true;
	}
	return false;
}

static bool filter_is_right(const struct guard_attacher *a, uint32_t ifindex, enum guard_dir dir)
{
	uint32_t id, n, prog = 0;
	bool first = false;

	if (guard_tcx_head(ifindex, dir, &id, &n) == 0 && n > 0 && id != a->progs->id[dir])
		return false;
	return guard_tc_look(ifindex, dir, &prog, &first) == 0 && first &&
	       prog == a->progs->id[dir];
}

int guard_check_attached(const struct guard_attacher *a, uint32_t ifindex)
{
	for (int dir = 0; dir < GUARD_DIR_N_; dir++) {
		if (a->tcx && guard_tcx_is_right(a->pins, a->progs, ifindex, dir))
			continue;
		if (!filter_is_right(a, ifindex, dir))
			return -ESTALE;
	}
	return 0;
}

void guard_detach(const struct guard_attacher *a, uint32_t ifindex)
{
	guard_late_cancel(a->late, ifindex);
	/* First: closing a link holds the lock that this takes, for long. */
	detach_filters(ifindex);
	guard_tc_tidy(ifindex);
	for (int dir = 0; dir < GUARD_DIR_N_; dir++)
		unpin(a, ifindex, dir);
}
