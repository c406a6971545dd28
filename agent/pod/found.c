/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/found.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/owned.h"
#include "pod/netns_path.h"

#define PROCESSES_MAX 32768
#define CGROUP_MAX    16384 /* bytes of one /proc/PID/cgroup */

static void close_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* Is `name` the uid, as it is or as systemd has it? */
static bool is_uid(const char *name, const char *uid, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (name[i] != uid[i] && !(name[i] == '_' && uid[i] == '-'))
			return false;
	}
	return true;
}

const char *found_folder_end(const char *text, const char *uid)
{
	size_t n = strlen(uid);

	for (const char *p = strstr(text, "pod"); p && n > 0; p = strstr(p + 1, "pod")) {
		const char *end = p + 3 + n;

		if (strnlen(p + 3, n) < n || !is_uid(p + 3, uid, n))
			continue;
		if (strncmp(end, ".slice", 6) == 0)
			end += 6;
		if (*end == '/' || *end == '\n' || *end == '\0')
			return end;
	}
	return NULL;
}

static int read_cgroups(int proc_fd, const char *pid, char ret[static CGROUP_MAX])
{
	char path[NAME_MAX + 8];
	OWNED_FD int fd = -1;
	size_t n = 0;
	ssize_t got;

	snprintf(path, sizeof(path), "%s/cgroup", pid);
	fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (n < CGROUP_MAX - 1 && (got = read(fd, ret + n, CGROUP_MAX - 1 - n)) > 0)
		n += (size_t)got;
	ret[n] = '\0';
	return 0;
}

/* Line "0::/path" is cgroup2's. */
static void take_cgroup2(const char *text, struct found *pod)
{
	const char *line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
	char one[PATH_MAX];
	const char *end;

	pod->cgroup[0] = '\0';
	if (!line)
		return;
	line += *line == '\n' ? 4 : 3;
	snprintf(one, sizeof(one), "%.*s", (int)strcspn(line, "\n"), line);
	end = found_folder_end(one, pod->uid);
	if (end)
		snprintf(pod->cgroup, sizeof(pod->cgroup), "%.*s", (int)(end - one), one);
}

static bool is_on_host(int proc_fd, const char *pid)
{
	struct stat own;

	return fstatat(proc_fd, "thread-self/ns/net", &own, 0) == 0 &&
	       netns_path_is_in(proc_fd, pid, own.st_dev, own.st_ino);
}

static void look_at(int proc_fd, const char *pid, struct found *pods, size_t n,
		    char text[static CGROUP_MAX])
{
	if (read_cgroups(proc_fd, pid, text) < 0)
		return; /* it has ended */
	for (size_t i = 0; i < n; i++) {
		uint64_t started;

		if (!found_folder_end(text, pods[i].uid))
			continue;
		started = netns_path_start_time(proc_fd, pid);
		if (started == 0 || (pods[i].pid != 0 && started >= pods[i].started))
			continue;
		if (!pods[i].on_host && is_on_host(proc_fd, pid))
			continue;
		pods[i].pid = atoi(pid);
		pods[i].started = started;
		take_cgroup2(text, &pods[i]);
	}
}

int found_scan(struct found *pods, size_t n)
{
	OWNED(close_dir) DIR *proc = opendir("/proc");
	OWNED_MEM char *text = malloc(CGROUP_MAX);
	const struct dirent *e;

	if (!proc)
		return -errno;
	if (!text)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		pods[i].pid = 0;
	for (unsigned i = 0; i < PROCESSES_MAX && (e = readdir(proc)); i++) {
		if (isdigit((unsigned char)e->d_name[0]))
			look_at(dirfd(proc), e->d_name, pods, n, text);
	}
	return 0;
}
