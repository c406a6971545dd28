/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/netns_path.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/owned.h"

/* The agent's control thread waits meanwhile, and pods can have many processes. */
#define BINDS_MAX     8192  /* entries of one folder */
#define PROCESSES_MAX 32768 /* about 10 us each */

#define STAT_MAX        1024
#define STAT_START_TIME 22 /* proc_pid_stat(5): its field, counted from 1 */

static void close_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

static bool leads_to(int dir_fd, const char *path, dev_t dev, ino_t ino)
{
	struct stat st;

	return fstatat(dir_fd, path, &st, 0) == 0 && st.st_dev == dev && st.st_ino == ino;
}

/* ---- where container runtimes bind them ---- */

static int find_bound(const char *folder, dev_t dev, ino_t ino, char ret[static PATH_MAX])
{
	OWNED(close_dir) DIR *dir = opendir(folder);
	const struct dirent *e;

	if (!dir)
		return -errno;
	for (unsigned i = 0; i < BINDS_MAX && (e = readdir(dir)); i++) {
		if (!leads_to(dirfd(dir), e->d_name, dev, ino))
			continue;
		snprintf(ret, PATH_MAX, "%s/%s", folder, e->d_name);
		return 0;
	}
	return -ENOENT;
}

/* ---- processes ---- */

/* 0 when it is gone. */
static uint64_t parse_start_time(const char *stat)
{
	const char *p = strrchr(stat, ')'); /* the name before it may hold anything */

	for (int field = 2; p && field < STAT_START_TIME; field++) {
		p = strchr(p, ' ');
		if (p)
			p++;
	}
	return p ? strtoull(p, NULL, 10) : 0;
}

uint64_t netns_path_start_time(int proc_fd, const char *pid)
{
	char path[NAME_MAX + 8], text[STAT_MAX];
	OWNED_FD int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/stat", pid);
	fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	return parse_start_time(text);
}

bool netns_path_is_in(int proc_fd, const char *pid, dev_t dev, ino_t ino)
{
	char path[NAME_MAX + 8];

	snprintf(path, sizeof(path), "%s/ns/net", pid);
	return leads_to(proc_fd, path, dev, ino);
}

/* The oldest of a pod's is the one that holds its sandbox: it is there before the first container
 * and ends after the last.
 */
static int find_process(dev_t dev, ino_t ino, pid_t not_pid, char ret[static PATH_MAX])
{
	OWNED(close_dir) DIR *proc = opendir("/proc");
	uint64_t oldest = UINT64_MAX;
	const struct dirent *e;

	if (!proc)
		return -errno;
	for (unsigned i = 0; i < PROCESSES_MAX && (e = readdir(proc)); i++) {
		pid_t pid = isdigit((unsigned char)e->d_name[0]) ? atoi(e->d_name) : 0;
		uint64_t start;

		if (pid == 0 || pid == not_pid || pid == getpid() ||
		    !netns_path_is_in(dirfd(proc), e->d_name, dev, ino))
			continue;
		start = netns_path_start_time(dirfd(proc), e->d_name);
		if (start == 0 || start >= oldest)
			continue;
		oldest = start;
		snprintf(ret, PATH_MAX, "/proc/%d/ns/net", pid);
	}
	return oldest == UINT64_MAX ? -ENOENT : 0;
}

int netns_path_find(dev_t dev, ino_t ino, pid_t not_pid, char ret[static PATH_MAX])
{
	static const char *const folders[] = {"/run/netns", "/var/run/netns", "/run/docker/netns"};

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		if (find_bound(folders[i], dev, ino, ret) == 0)
			return 0;
	}
	return find_process(dev, ino, not_pid, ret) == 0 ? 0 : -ENOENT;
}
