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

#define TURNS_MAX 1000 /* who writes more often than that within one has not finished anyway */

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

struct place {
	int dirfd; /* owned */
	char name[NAME_MAX + 1], tmp[NAME_MAX + 1];
};

static void close_place(struct place *p)
{
	owned_close(&p->dirfd);
}

static int open_place(const char *path, struct place *ret)
{
	char folder[PATH_MAX], file[PATH_MAX];

	snprintf(folder, sizeof(folder), "%s", path);
	snprintf(file, sizeof(file), "%s", path);
	snprintf(ret->name, sizeof(ret->name), "%s", basename(file));
	if (snprintf(ret->tmp, sizeof(ret->tmp), ".%s" DISK_SUFFIX_TMP, ret->name) >=
	    (int)sizeof(ret->tmp))
		return -ENAMETOOLONG;
	ret->dirfd = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return ret->dirfd < 0 ? -errno : 0;
}

int disk_write(const char *path, const void *text, size_t len, mode_t mode, uid_t uid, gid_t gid)
{
	OWNED(close_place) struct place p = {.dirfd = -1};
	int r = open_place(path, &p);

	if (r < 0)
		return r;
	r = write_tmp(p.dirfd, p.tmp, text, len, mode, uid, gid);
	if (r == 0 && renameat(p.dirfd, p.tmp, p.dirfd, p.name) < 0)
		r = -errno;
	if (r < 0) {
		unlinkat(p.dirfd, p.tmp, 0);
		return r;
	}
	return disk_sync(p.dirfd);
}

/* ---- what was read ---- */

static int write_tmp_like(const struct place *p, const struct disk_file *was, const void *text,
			  size_t len)
{
	return write_tmp(p->dirfd, p->tmp, text, len, was->st.st_mode, was->st.st_uid,
			 was->st.st_gid);
}

int disk_move(int dirfd, const char *name, const char *to)
{
	if (renameat2(dirfd, name, dirfd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS) /* not every file system can */
		return -errno;
	return linkat(dirfd, name, dirfd, to, 0) < 0 || unlinkat(dirfd, name, 0) < 0 ? -errno : 0;
}

int disk_copy(const char *path, const struct disk_file *was)
{
	OWNED(close_place) struct place p = {.dirfd = -1};
	int r = open_place(path, &p);

	if (r < 0)
		return r;
	r = write_tmp_like(&p, was, was->text, was->len);
	if (r == 0 && linkat(p.dirfd, p.tmp, p.dirfd, p.name, 0) < 0)
		r = -errno;
	unlinkat(p.dirfd, p.tmp, 0);
	return r < 0 ? r : disk_sync(p.dirfd);
}

bool disk_is_same(int dirfd, const char *name, const struct disk_file *was)
{
	OWNED(disk_file_done) struct disk_file f = {0};

	return disk_read(dirfd, name, was->len, &f) == 0 && f.len == was->len &&
	       memcmp(f.text, was->text, f.len) == 0;
}

static int exchange(const struct place *p)
{
	return renameat2(p->dirfd, p->tmp, p->dirfd, p->name, RENAME_EXCHANGE) < 0 ? -errno : 0;
}

/* What was taken out goes back. For it comes out what was put in before; anything else is newer
 * still, and goes back in its turn.
 */
static int give_back(const struct place *p, struct disk_file *inside)
{
	for (int i = 0; i < TURNS_MAX; i++) {
		struct disk_file next = {0};
		int r = disk_read(p->dirfd, p->tmp, DISK_REWRITE_MAX, &next), given = exchange(p);

		if (given == 0 && r == 0 && !disk_is_same(p->dirfd, p->tmp, inside)) {
			disk_file_done(inside);
			*inside = next;
			continue;
		}
		disk_file_done(&next);
		return given < 0 && given != -ENOENT ? given : -ESTALE;
	}
	return -ESTALE;
}

/* What is there is taken out before it is looked at: nobody can change it in between. */
static int put(const struct place *p, const struct disk_file *was)
{
	OWNED(disk_file_done) struct disk_file ours = {0};
	int r = disk_read(p->dirfd, p->tmp, DISK_REWRITE_MAX, &ours);

	if (r < 0)
		return r;
	r = exchange(p);
	if (r == -ENOENT)
		return -ESTALE;
	if (r == -EINVAL || r == -ENOSYS) { /* not every file system can */
		if (!disk_is_same(p->dirfd, p->name, was))
			return -ESTALE;
		return renameat(p->dirfd, p->tmp, p->dirfd, p->name) < 0 ? -errno : 0;
	}
	return r < 0 || disk_is_same(p->dirfd, p->tmp, was) ? r : give_back(p, &ours);
}

int disk_rewrite(const struct disk_file *was, const void *text, size_t len)
{
	OWNED(close_place) struct place p = {.dirfd = -1};
	int r = open_place(was->path, &p);

	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	r = write_tmp_like(&p, was, text, len);
	if (r == 0)
		r = put(&p, was);
	unlinkat(p.dirfd, p.tmp, 0);
	return r < 0 ? r : disk_sync(p.dirfd);
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
