/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/owned.h"

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n > m && strcmp(text + n - m, end) == 0;
}

bool file_is_resource(const char *name)
{
	return name[0] != '.' &&
	       (ends_with(name, ".yaml") || ends_with(name, ".yml") || ends_with(name, ".json"));
}

static int is_resource(const struct dirent *entry)
{
	return file_is_resource(entry->d_name);
}

static void cannot_read(struct report *report, const char *path, int r)
{
	if (!report)
		return;
	report_error(report, "%.400s: cannot be read: %s", path, strerrordesc_np(-r));
	report_fail(report, r);
}

static int add_file(struct file_list *list, const char *path)
{
	char **more;

	if (list->n >= FILES_MAX)
		return -E2BIG;
	more = reallocarray(list->paths, list->n + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	list->paths = more;
	more[list->n] = strdup(path);
	if (!more[list->n])
		return -ENOMEM;
	list->n++;
	return 0;
}

static int add_in_folder(struct file_list *list, const char *folder, const char *name)
{
	struct stat st;
	char *path;
	int r = 0;

	if (asprintf(&path, "%s/%s", folder, name) < 0)
		return -ENOMEM;
	/* A folder called x.yaml is none of ours; a dangling link is an error when it is read. */
	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		r = add_file(list, path);
	free(path);
	return r;
}

static int add_folder(struct file_list *list, const char *folder)
{
	struct dirent **names;
	int n = scandir(folder, &names, is_resource, alphasort), r = 0;

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++) {
		if (r == 0)
			r = add_in_folder(list, folder, names[i]->d_name);
		free(names[i]);
	}
	free(names);
	return r;
}

void file_list_collect(struct file_list *ret, const char *const *paths, size_t n,
		       struct report *report)
{
	for (size_t i = 0; i < n; i++) {
		struct stat st;
		int r;

		if (stat(paths[i], &st) < 0)
			r = -errno;
		else
			r = S_ISDIR(st.st_mode) ? add_folder(ret, paths[i])
						: add_file(ret, paths[i]);
		if (r < 0)
			cannot_read(report, paths[i], r);
	}
}

void file_list_done(struct file_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->paths[i]);
	free(list->paths);
	*list = (struct file_list){0};
}

/* FNV-1a: it only has to notice changes, nobody gains by a collision of their own files. */
static void mix(uint64_t *hash, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i++)
		*hash = (*hash ^ p[i]) * 0x100000001b3ULL;
}

static void mix_file(uint64_t *hash, const char *path)
{
	struct stat st;
	int64_t what[6] = {0};

	mix(hash, path, strlen(path) + 1);
	if (stat(path, &st) == 0) {
		what[0] = (int64_t)st.st_ino;
		what[1] = (int64_t)st.st_dev;
		what[2] = st.st_size;
		what[3] = st.st_mtim.tv_sec;
		what[4] = st.st_mtim.tv_nsec;
		what[5] = st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
	}
	mix(hash, what, sizeof(what));
}

uint64_t file_fingerprint(const char *const *paths, size_t n)
{
	struct file_list list = {0};
	uint64_t hash = 0xcbf29ce484222325ULL;

	file_list_collect(&list, paths, n, NULL);
	for (size_t i = 0; i < list.n; i++)
		mix_file(&hash, list.paths[i]);
	for (size_t i = 0; i < n; i++) {
		struct stat st;

		mix(&hash, &(int){stat(paths[i], &st)}, sizeof(int)); /* is it there? */
	}
	file_list_done(&list);
	return hash;
}

static int read_all(int fd, size_t max, char **ret, size_t *ret_len)
{
	OWNED_MEM char *bytes = NULL;
	size_t len = 0, room;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADF;
	if (st.st_size > (off_t)max)
		return -EFBIG;
	room = (size_t)st.st_size + 1; /* one more, to see that it has not grown */
	bytes = malloc(room);
	if (!bytes)
		return -ENOMEM;
	while (len < room) {
		ssize_t n = read(fd, bytes + len, room - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0) {
			*ret = TAKE_PTR(bytes);
			*ret_len = len;
			return 0;
		}
		len += (size_t)n;
	}
	return -EAGAIN;
}

int file_read(const char *path, size_t max, char **ret, size_t *ret_len)
{
	OWNED_FD int fd = -1;

	/* Not blocking: it may be a pipe. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return fd < 0 ? -errno : read_all(fd, max, ret, ret_len);
}

const char *file_read_str(int r)
{
	if (r == -EFBIG)
		return "is too large: split it";
	if (r == -EBADF)
		return "is no regular file";
	return r == -EAGAIN ? "grew while it was read" : strerrordesc_np(-r);
}
