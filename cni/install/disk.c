/* SPDX-License-Identifier: Apache-2.0 */
#include "install/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/owned.h"

void disk_file_done(struct disk_file *file)
{
	free(file->text);
	*file = (struct disk_file){0};
}

/* openat2(2) is there since Linux 5.6; before, no link is followed. */
static int open_beneath(int dirfd, const char *name)
{
	struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	int fd = (int)syscall(SYS_openat2, dirfd, name, &how, sizeof(how));

	if (fd < 0 && errno == ENOSYS)
		fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

static int path_of(int fd, char ret[static PATH_MAX])
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, ret, PATH_MAX - 1);
	if (n < 0)
		return -errno;
	ret[n] = '\0';
	return 0;
}

static int read_all(int fd, size_t max, struct disk_file *f)
{
	f->text = malloc(max + 2);
	if (!f->text)
		return -ENOMEM;
	while (f->len <= max) {
		ssize_t n = read(fd, f->text + f->len, max + 1 - f->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		f->len += (size_t)n;
	}
	f->text[f->len] = '\0';
	return f->len > max ? -EFBIG : 0;
}

int disk_read(int dirfd, const char *name, size_t max, struct disk_file *ret)
{
	OWNED(disk_file_done) struct disk_file f = {0};
	OWNED_FD int fd = open_beneath(dirfd, name);
	int r;

	if (fd < 0)
		return fd;
	if (fstat(fd, &f.st) < 0)
		return -errno;
	if (!S_ISREG(f.st.st_mode))
		return S_ISDIR(f.st.st_mode) ? -EISDIR : -EINVAL;
	r = path_of(fd, f.path);
	if (r == 0)
		r = read_all(fd, max, &f);
	if (r < 0)
		return r;
	*ret = f;
	f = (struct disk_file){0};
	return 0;
}

static int write_all(int fd, const char *text, size_t n)
{
	while (n > 0) {
		ssize_t w = write(fd, text, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return -errno;
		text += w;
		n -= (size_t)w;
	}
	return 0;
}

/* The mode is set last: it may hold what a change of owner takes away. */
static int write_tmp(int dirfd, const char *tmp, const void *text, size_t len, mode_t mode,
		     uid_t uid, gid_t gid)
{
	OWNED_FD int fd = -1;
	int r;

	unlinkat(dirfd, tmp, 0); /* of one that was killed */
	fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	r = write_all(fd, text, len);
	if (r < 0)
		return r;
	if (fchown(fd, uid, gid) < 0 || fchmod(fd, mode & 07777) < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

int disk_sync(int dirfd)
{
	return fsync(dirfd) < 0 ? -errno : 0;
}

int disk_write(const char *path, const void *text, size_t len, mode_t mode, uid_t uid, gid_t gid)
{
	char folder[PATH_MAX], file[PATH_MAX], tmp[NAME_MAX + 1];
	OWNED_FD int dirfd = -1;
	const char *name;
	int r;

	snprintf(folder, sizeof(folder), "%s", path);
	snprintf(file, sizeof(file), "%s", path);
	name = basename(file);
	if (snprintf(tmp, sizeof(tmp), ".%s" DISK_SUFFIX_TMP, name) >= (int)sizeof(tmp))
		return -ENAMETOOLONG;
	dirfd = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0)
		return -errno;
	r = write_tmp(dirfd, tmp, text, len, mode, uid, gid);
	if (r == 0 && renameat(dirfd, tmp, dirfd, name) < 0)
		r = -errno;
	if (r < 0) {
		unlinkat(dirfd, tmp, 0);
		return r;
	}
	return disk_sync(dirfd);
}

/* ---- names ---- */

static void close_dir(DIR **d)
{
	if (*d)
		closedir(*d);
}

void disk_names_free(struct disk_names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->v[i]);
	free(names->v);
	*names = (struct disk_names){0};
}

static int add_name(struct disk_names *names, const char *name)
{
	char **v = reallocarray(names->v, names->n + 1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	names->v = v;
	v[names->n] = strdup(name);
	if (!v[names->n])
		return -ENOMEM;
	names->n++;
	return 0;
}

static int by_bytes(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int open_listing(int dirfd, DIR **ret)
{
	OWNED_FD int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	*ret = fdopendir(fd);
	if (!*ret)
		return -errno;
	TAKE_FD(fd);
	return 0;
}

int disk_names(int dirfd, int (*wanted)(const char *name), struct disk_names *ret)
{
	OWNED(disk_names_free) struct disk_names names = {0};
	OWNED(close_dir) DIR *d = NULL;
	const struct dirent *e;
	int r;

	r = open_listing(dirfd, &d);
	while (r == 0 && (errno = 0, e = readdir(d))) {
		if (e->d_type != DT_DIR && wanted(e->d_name))
			r = add_name(&names, e->d_name);
	}
	if (r == 0)
		r = -errno;
	if (r < 0)
		return r;
	if (names.n > 0)
		qsort(names.v, names.n, sizeof(*names.v), by_bytes);
	*ret = names;
	names = (struct disk_names){0};
	return 0;
}
