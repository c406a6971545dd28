/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/owned.h"
#include "guard/guard_ebpf.h"

/* Of Linux 6.6; Debian 12's headers are older. */
#define TCX_INGRESS ((enum bpf_attach_type)46)
#define TCX_EGRESS  ((enum bpf_attach_type)47)
#define LINK_TCX    11
#define F_BEFORE    (1U << 3) /* and no program named: before all others */

static const enum bpf_attach_type attach_types[] = {
	[GUARD_FROM_POD] = TCX_INGRESS,
	[GUARD_TO_POD] = TCX_EGRESS,
};
_Static_assert(ARRAY_SIZE(attach_types) == GUARD_DIR_N_, "every direction has a hook");

/* struct bpf_link_info, as far as links of this kind fill it. */
struct tcx_info {
	__u32 type, id, prog_id, pad;
	__u32 ifindex; /* 0 once the interface is gone */
	__u32 attach_type;
	__u32 rest[16];
};

/* The kernel fills in what there is room for, and says ENOSPC of the rest (bpf_mprog_query()). */
int guard_tcx_head(uint32_t ifindex, enum guard_dir dir, uint32_t *ret_id, uint32_t *ret_n)
{
	__u32 flags = 0, n = 1, id = 0;
	int r = bpf_prog_query((int)ifindex, attach_types[dir], 0, &flags, &id, &n);

	if (r < 0 && r != -ENOSPC)
		return r;
	*ret_id = id;
	*ret_n = n;
	return 0;
}

/* libbpf 1.1 has no function for tcx; its bpf_link_create() passes hook and flags on as they are.
 * The kernel waits with synchronize_rcu() for users of the old chain (tcx_entry_sync()).
 */
int guard_tcx_attach(const struct guard_progs *progs, uint32_t ifindex, enum guard_dir dir)
{
	LIBBPF_OPTS(bpf_link_create_opts, first, .flags = F_BEFORE);

	return bpf_link_create(progs->fd[dir], (int)ifindex, attach_types[dir], &first);
}

int guard_tcx_pin(const struct guard_pins *pins, uint32_t ifindex, enum guard_dir dir, int link_fd)
{
	char path[GUARD_PATH_MAX], fresh[GUARD_PATH_MAX + 4];
	int r;

	guard_pins_link(pins, ifindex, dir, path);
	snprintf(fresh, sizeof(fresh), "%s-new", path);
	unlink(fresh); /* left by an agent that was killed just here */
	r = bpf_obj_pin(link_fd, fresh);
	if (r < 0)
		return r;
	if (rename(fresh, path) < 0) {
		r = -errno;
		unlink(fresh);
	}
	return r;
}

static int read_info(int fd, struct tcx_info *ret)
{
	union {
		struct tcx_info tcx;
		struct bpf_link_info any;
	} info = {0};
	__u32 len = sizeof(info);
	int r = bpf_obj_get_info_by_fd(fd, &info.any, &len);

	*ret = info.tcx;
	return r;
}

int guard_tcx_open(const struct guard_pins *pins, uint32_t ifindex, enum guard_dir dir,
		   uint32_t *ret_prog)
{
	char path[GUARD_PATH_MAX];
	OWNED_FD int fd = bpf_obj_get(guard_pins_link(pins, ifindex, dir, path));
	struct tcx_info info;
	int r;

	if (fd < 0)
		return fd;
	r = read_info(fd, &info);
	if (r < 0)
		return r;
	if (info.type != LINK_TCX || info.ifindex != ifindex ||
	    info.attach_type != (__u32)attach_types[dir])
		return -ENOENT;
	*ret_prog = info.prog_id;
	return TAKE_FD(fd);
}

bool guard_tcx_is_right(const struct guard_pins *pins, const struct guard_progs *progs,
			uint32_t ifindex, enum guard_dir dir)
{
	uint32_t prog = 0, head = 0, n;
	OWNED_FD int fd = guard_tcx_open(pins, ifindex, dir, &prog);

	return fd >= 0 && prog == progs->id[dir] && guard_tcx_head(ifindex, dir, &head, &n) == 0 &&
	       head == progs->id[dir];
}

void guard_tcx_renew(const struct guard_pins *pins, const struct guard_progs *progs,
		     uint32_t ifindex, enum guard_dir dir)
{
	uint32_t prog = 0;
	OWNED_FD int fd = guard_tcx_open(pins, ifindex, dir, &prog);

	/* In place: the kernel exchanges the pointer that the hook follows. What fails shows in
	 * guard_tcx_is_right(), and the old program goes on meanwhile. */
	if (fd >= 0 && prog != progs->id[dir])
		bpf_link_update(fd, progs->fd[dir], NULL);
}

void guard_tcx_detach(const char *path)
{
	OWNED_FD int fd = bpf_obj_get(path);

	if (fd >= 0)
		bpf_link_detach(fd); /* now, and not when the last user has let go */
	unlink(path);
}
