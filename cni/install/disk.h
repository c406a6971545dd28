/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Files of a folder that others write to and read from at any time: each is replaced whole or not
 * at all, and keeps its mode and owner. Does not log.
 */
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#define DISK_SUFFIX_TMP  ".sluice-tmp" /* no runtime reads such a file */
#define DISK_WHY_MAX     512
#define DISK_REWRITE_MAX (1024 * 1024) /* bytes */

struct disk_file {
	char *text; /* owned; NUL-terminated, may hold others */
	size_t len;
	struct stat st;
	char path[PATH_MAX]; /* where it really is: a link within the folder is followed */
};

void disk_file_done(struct disk_file *file); /* all zero is fine */

/* Reads `name` in the folder behind `dirfd`. -ELOOP, -EXDEV for a link that leads out of the
 * folder: seen from within a container it leads elsewhere than on the host. -EFBIG beyond `max`;
 * -errno.
 */
int disk_read(int dirfd, const char *name, size_t max, struct disk_file *ret);

/* Replaces what is at `path`, or makes it, by a temporary file beside it. -errno. */
int disk_write(const char *path, const void *text, size_t len, mode_t mode, uid_t uid, gid_t gid);

/* Renames the file itself, not over another one: -EEXIST; -errno. */
int disk_move(int dirfd, const char *name, const char *to);

/* A copy of what was read, at `path`. -EEXIST when something is there; -errno. */
int disk_copy(const char *path, const struct disk_file *was);

/* Over a file that has been read, with its mode and owner. -ESTALE: by now it says
 * something else, or is gone, and stays so, however often it is replaced meanwhile. (Who opens it
 * and writes in place at that very moment writes to the old one, where the file system cannot
 * exchange files: in the moment before, too.) -errno; -EFBIG beyond DISK_REWRITE_MAX.
 */
int disk_rewrite(const struct disk_file *was, const void *text, size_t len);

/* Does the file of that name say what this one did? */
bool disk_is_same(int dirfd, const char *name, const struct disk_file *was);

/* On disk is what was done in the folder. -errno. */
int disk_sync(int dirfd);

/* Names in the folder that `wanted` takes, sorted by their bytes; malloc'ed strings in a malloc'ed
 * array, for disk_names_free(). -errno.
 */
struct disk_names {
	char **v;
	size_t n;
};

int disk_names(int dirfd, int (*wanted)(const char *name), struct disk_names *ret);
void disk_names_free(struct disk_names *names); /* all zero is fine */
