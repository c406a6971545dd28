/* SPDX-License-Identifier: Apache-2.0 */
#include "install/binary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/owned.h"
#include "install/disk.h"

#define BINARY_MAX  (64 * 1024 * 1024)
#define BINARY_MODE 0755

static int open_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* By its own path: a source may be a link to anywhere in the image. */
static int read_source(const char *path, struct disk_file *ret)
{
	OWNED_MEM char *real = realpath(path, NULL);
	OWNED_FD int dirfd = -1;
	char *slash;

	if (!real)
		return -errno;
	slash = strrchr(real, '/');
	*slash = '\0';
	dirfd = open_dir(*real ? real : "/");
	return dirfd < 0 ? dirfd : disk_read(dirfd, slash + 1, BINARY_MAX, ret);
}

static bool is_same(int dirfd, const struct disk_file *source)
{
	OWNED(disk_file_done) struct disk_file f = {0};
	struct stat st;

	return fstatat(dirfd, BINARY_NAME, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
	       (st.st_mode & 07777) == BINARY_MODE && st.st_uid == geteuid() &&
	       (size_t)st.st_size == source->len &&
	       disk_read(dirfd, BINARY_NAME, source->len, &f) == 0 && f.len == source->len &&
	       memcmp(f.text, source->text, f.len) == 0;
}

static int failed(int r, char why[static DISK_WHY_MAX], const char *what, const char *path)
{
	snprintf(why, DISK_WHY_MAX, "cannot %s '%.300s': %s", what, path, strerrordesc_np(-r));
	return r;
}

int binary_install(const char *source, const char *bin_dir, char why[static DISK_WHY_MAX])
{
	OWNED(disk_file_done) struct disk_file f = {0};
	OWNED_FD int dirfd = open_dir(bin_dir);
	char path[PATH_MAX];
	int r;

	if (dirfd < 0)
		return failed(dirfd, why, "open the folder", bin_dir);
	r = read_source(source, &f);
	if (r < 0)
		return failed(r, why, "read", source);
	if (is_same(dirfd, &f))
		return 0;
	if (snprintf(path, sizeof(path), "%s/%s", bin_dir, BINARY_NAME) >= (int)sizeof(path))
		return failed(-ENAMETOOLONG, why, "write to", bin_dir);
	r = disk_write(path, f.text, f.len, BINARY_MODE, geteuid(), getegid());
	if (r < 0)
		return failed(r, why, "write", path);
	log_info("'%s' is in place", path);
	return 1;
}

static int unlink_in(int dirfd, const char *dir, const char *name)
{
	if (unlinkat(dirfd, name, 0) == 0) {
		log_info("'%s/%s' is removed", dir, name);
		return 0;
	}
	return errno == ENOENT ? 0 : log_err(-errno, "cannot remove '%s/%s'", dir, name);
}

int binary_remove(const char *bin_dir)
{
	OWNED_FD int dirfd = open_dir(bin_dir);
	int r, tmp;

	if (dirfd < 0)
		return dirfd == -ENOENT ? 0
					: log_err(dirfd, "cannot open the folder '%s'", bin_dir);
	r = unlink_in(dirfd, bin_dir, BINARY_NAME);
	tmp = unlink_in(dirfd, bin_dir, "." BINARY_NAME DISK_SUFFIX_TMP);
	return r < 0 ? r : tmp;
}
