/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/bpf_pin.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/owned.h"
#include "guard/guard_fail.h"

#define BPF_MOUNT "/sys/fs/bpf"

/* ---- the file system ---- */

/* Of the path, or of what is there of it. */
static bool is_bpffs(const char *path)
{
	char at[GUARD_PATH_MAX];
	struct statfs fs;

	snprintf(at, sizeof(at), "%s", path);
	while (statfs(at, &fs) < 0) {
		char *slash = strrchr(at, '/');

		if (errno != ENOENT || !slash)
			return false;
		slash[slash == at] = '\0';
	}
	return fs.f_type == BPF_FS_MAGIC;
}

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

int bpf_pin_open_fs(const char *pin_dir, char error[static GUARD_ERROR_MAX])
{
	if (pin_dir[0] != '/' || strlen(pin_dir) > BPF_PIN_DIR_MAX)
		return guard_fail(-EINVAL, error, "'%.100s' is no absolute path of sensible length",
				  pin_dir);
	if (is_bpffs(pin_dir))
		return 0;
	if (!is_below(pin_dir, BPF_MOUNT))
		return guard_fail(-EOPNOTSUPP, error,
				  "'%.100s' is in no BPF file system: mount one there (mount -t "
				  "bpf bpf DIR), or choose a folder below " BPF_MOUNT,
				  pin_dir);
	if (mount("bpf", BPF_MOUNT, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") < 0)
		return guard_fail(-EOPNOTSUPP, error,
				  "no BPF file system is mounted at " BPF_MOUNT
				  ", and mounting one failed: %s",
				  strerrordesc_np(errno));
	return 0;
}

static int make_dirs(const char *path)
{
	char part[GUARD_PATH_MAX];
	size_t n = strlen(path);

	for (size_t i = 1; i <= n; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		snprintf(part, sizeof(part), "%.*s", (int)i, path);
		if (mkdir(part, 0700) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

int bpf_pin_make_dirs(const char *path, char error[static GUARD_ERROR_MAX])
{
	int r = make_dirs(path);

	/* The BPF file system keeps names with dots for itself, and says EPERM. */
	return r < 0 ? guard_fail(r, error, "cannot make the folder '%.150s': %s%s", path,
				  strerrordesc_np(-r),
				  r == -EPERM ? " (names in a BPF file system have no dots)" : "")
		     : 0;
}

/* ---- maps of a former agent ---- */

static bool fits(const struct bpf_map *map, int fd)
{
	struct bpf_map_info info = {0};
	__u32 len = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.type == bpf_map__type(map) &&
	       info.key_size == bpf_map__key_size(map) &&
	       info.value_size == bpf_map__value_size(map) &&
	       info.max_entries == bpf_map__max_entries(map) &&
	       info.map_flags == bpf_map__map_flags(map);
}

int bpf_pin_look(const struct bpf_map *map, const char *path)
{
	OWNED_FD int fd = bpf_obj_get(path);

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fd;
	return fits(map, fd) ? 1 : -ESTALE;
}

int bpf_pin_reuse(struct bpf_map *map, const char *path)
{
	OWNED_FD int fd = bpf_obj_get(path);

	return fd < 0 ? fd : bpf_map__reuse_fd(map, fd);
}
