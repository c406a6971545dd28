/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/owned.h"
#include "guard/bpf_log.h"
#include "guard/hostnet_own.h"

static const struct {
	const char *name; /* of the pin */
	enum bpf_attach_type type;
} hooks[] = {
	[HOSTNET_EGRESS] = {"egress", BPF_CGROUP_INET_EGRESS},
	[HOSTNET_SENDMSG4] = {"sendmsg4", BPF_CGROUP_UDP4_SENDMSG},
	[HOSTNET_SENDMSG6] = {"sendmsg6", BPF_CGROUP_UDP6_SENDMSG},
	[HOSTNET_SETSOCKOPT] = {"setsockopt", BPF_CGROUP_SETSOCKOPT},
	[HOSTNET_SOCKOPS] = {"sockops", BPF_CGROUP_SOCK_OPS},
	[HOSTNET_PEERNAME4] = {"peername4", BPF_CGROUP_INET4_GETPEERNAME},
	[HOSTNET_PEERNAME6] = {"peername6", BPF_CGROUP_INET6_GETPEERNAME},
	[HOSTNET_CONNECT4] = {"connect4", BPF_CGROUP_INET4_CONNECT},
	[HOSTNET_CONNECT6] = {"connect6", BPF_CGROUP_INET6_CONNECT},
};
_Static_assert(ARRAY_SIZE(hooks) == HOSTNET_HOOK_N_, "every hook has its type");

static const char *link_path(const struct hostnet_pins *pins, uint64_t id, enum hostnet_hook hook,
			     const char *more, char buf[static GUARD_PATH_MAX])
{
	snprintf(buf, GUARD_PATH_MAX, "%s/%" PRIu64 "/%s%s", pins->dir, id, hooks[hook].name, more);
	return buf;
}

/* The pinned link, for the caller to close. -ENOENT when there is none; when its cgroup is gone,
 * the kernel has detached it and says 0 for the cgroup.
 */
static int open_link(const struct hostnet_pins *pins, uint64_t id, enum hostnet_hook hook,
		     uint32_t *ret_prog)
{
	char path[GUARD_PATH_MAX];
	OWNED_FD int fd = bpf_obj_get(link_path(pins, id, hook, "", path));
	struct bpf_link_info info = {0};
	__u32 len = sizeof(info);
	int r = fd < 0 ? fd : bpf_obj_get_info_by_fd(fd, &info, &len);

	if (r < 0)
		return r;
	if (info.type != BPF_LINK_TYPE_CGROUP || info.cgroup.cgroup_id != id ||
	    info.cgroup.attach_type != hooks[hook].type)
		return -ENOENT;
	*ret_prog = info.prog_id;
	return TAKE_FD(fd);
}

static bool is_right(const struct hostnet_pins *pins, const struct hostnet_progs *progs,
		     uint64_t id, enum hostnet_hook hook)
{
	uint32_t prog = 0;
	OWNED_FD int fd = open_link(pins, id, hook, &prog);

	return fd >= 0 && prog == progs->id[hook];
}

/* In place of what may be pinned there, which goes. No name in a BPF file system has a dot. */
static int pin(const struct hostnet_pins *pins, uint64_t id, enum hostnet_hook hook, int link_fd)
{
	char making[GUARD_PATH_MAX], path[GUARD_PATH_MAX];
	int r;

	link_path(pins, id, hook, "-new", making);
	if (unlink(making) < 0 && errno != ENOENT)
		return -errno;
	r = bpf_obj_pin(link_fd, making);
	if (r < 0)
		return r;
	return rename(making, link_path(pins, id, hook, "", path)) < 0 ? -errno : 0;
}

static int attach(const struct hostnet_pins *pins, const struct hostnet_progs *progs, int cgroup_fd,
		  uint64_t id, enum hostnet_hook hook)
{
	OWNED_FD int fd = bpf_link_create(progs->fd[hook], cgroup_fd, hooks[hook].type, NULL);

	return fd < 0 ? fd : pin(pins, id, hook, fd);
}

int hostnet_links_attach(const struct hostnet_pins *pins, const struct hostnet_progs *progs,
			 int cgroup_fd, uint64_t id, bool *ret_fresh,
			 char error[static HOSTNET_ERROR_MAX])
{
	char dir[GUARD_PATH_MAX], cause[160];
	bool fresh = true;
	int r;

	if (mkdir(hostnet_pins_cgroup(pins, id, dir), 0700) < 0 && errno != EEXIST)
		return guard_fail(-errno, error, "cannot make the folder '%.150s': %s", dir,
				  strerrordesc_np(errno));
	for (enum hostnet_hook hook = 0; hook < HOSTNET_HOOK_N_; hook++) {
		if (is_right(pins, progs, id, hook)) {
			fresh = false;
			continue;
		}
		r = attach(pins, progs, cgroup_fd, id, hook);
		if (r < 0)
			return guard_fail(r, error, "cannot attach '%s' to the cgroup: %s",
					  hooks[hook].name, bpf_log_cause(r, cause, sizeof(cause)));
	}
	*ret_fresh = fresh;
	return 0;
}

int hostnet_links_check(const struct hostnet_pins *pins, const struct hostnet_progs *progs,
			uint64_t id)
{
	for (enum hostnet_hook hook = 0; hook < HOSTNET_HOOK_N_; hook++) {
		if (!is_right(pins, progs, id, hook))
			return -ESTALE;
	}
	return 0;
}

int hostnet_links_renew(const struct hostnet_pins *pins, const struct hostnet_progs *progs,
			uint64_t id)
{
	int r, alive = 0;

	for (enum hostnet_hook hook = 0; hook < HOSTNET_HOOK_N_; hook++) {
		uint32_t prog = 0;
		OWNED_FD int fd = open_link(pins, id, hook, &prog);

		if (fd < 0)
			continue;
		alive++;
		r = bpf_link_update(fd, progs->fd[hook], NULL);
		if (r < 0)
			return r;
	}
	return alive ? 0 : -ENOENT;
}

int hostnet_links_detach(const struct hostnet_pins *pins, uint64_t id)
{
	char path[GUARD_PATH_MAX];

	for (enum hostnet_hook hook = 0; hook < HOSTNET_HOOK_N_; hook++) {
		OWNED_FD int fd = bpf_obj_get(link_path(pins, id, hook, "", path));

		if (fd >= 0)
			bpf_link_detach(fd); /* of one whose cgroup is gone: nothing to do */
		unlink(path);
		unlink(link_path(pins, id, hook, "-new", path));
	}
	return rmdir(hostnet_pins_cgroup(pins, id, path)) < 0 && errno != ENOENT ? -errno : 0;
}
