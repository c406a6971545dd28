/* SPDX-License-Identifier: Apache-2.0 */

/* Gives files, and all files below folders, to a fuzz target without a fuzzing engine. What is
 * being replayed when the target dies is the last line on standard error. Fails when there was
 * nothing.
 */
#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <fcntl.h>

#include "base/owned.h"
#include "fuzz.h"

static int read_all(int fd, uint8_t *to, size_t size)
{
	for (size_t have = 0; have < size;) {
		ssize_t n = read(fd, to + have, size - have);

		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		have += (size_t)n;
	}
	return 0;
}

static int replay_file(const char *path)
{
	OWNED_MEM uint8_t *data = NULL;
	OWNED_FD int fd = -1;
	struct stat st;
	size_t size;
	int r;

	fprintf(stderr, "%s\n", path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	size = (size_t)st.st_size;
	data = malloc(size +
		      !size); /* of that size exactly, so that ASan sees what is read behind */
	if (!data)
		return -ENOMEM;
	r = read_all(fd, data, size);
	if (r < 0)
		return r;
	LLVMFuzzerTestOneInput(data, size);
	return 0;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* How many files were replayed, or -errno. */
static int replay_all(char **paths)
{
	FTS *tree = fts_open(paths, FTS_LOGICAL | FTS_NOCHDIR, by_name);
	const FTSENT *entry;
	int n = 0, r = 0;

	if (!tree)
		return -errno;
	while (r == 0 && (entry = fts_read(tree))) {
		if (entry->fts_info == FTS_F) {
			r = replay_file(entry->fts_path);
			n++;
		} else if (entry->fts_info == FTS_NS || entry->fts_info == FTS_ERR ||
			   entry->fts_info == FTS_DNR) {
			r = -entry->fts_errno;
		}
	}
	fts_close(tree);
	return r < 0 ? r : n;
}

int main(int argc, char **argv)
{
	int n = argc > 1 ? replay_all(argv + 1) : 0;

	if (n < 0) {
		fprintf(stderr, "%s: cannot replay: %s\n", argv[0], strerror(-n));
		return 1;
	}
	if (n == 0) {
		fprintf(stderr, "%s: no inputs\n", argv[0]);
		return 1;
	}
	printf("%s: %d inputs\n", argv[0], n);
	return 0;
}
