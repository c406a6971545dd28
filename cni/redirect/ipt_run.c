/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/ipt_run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>

#include "base/log.h"
#include "base/owned.h"

#define ARGS_MAX      8
#define COMPLAINT_MAX 1024
#define CHUNK         (16U << 10)
#define CHUNKS        8 /* more than a pipe holds */

int ipt_run_find(const char *name, char ret[static IPT_PATH_MAX])
{
	static const char *const folders[] = {"/usr/sbin", "/sbin", "/usr/bin", "/bin"};

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		char path[IPT_PATH_MAX];

		if ((size_t)snprintf(path, sizeof(path), "%s/%s", folders[i], name) <
			    sizeof(path) &&
		    access(path, X_OK) == 0) {
			memcpy(ret, path, sizeof(path));
			return 0;
		}
	}
	return -ENOENT;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- the child ---- */

/* What it wrote to one of its descriptors. */
struct output {
	int fd;
	char *text;
	size_t n, max;
	bool cut_off; /* more than `max` is thrown away; else it is an error */
};

struct child {
	pid_t pid; /* 0: none, or waited for */
	int pidfd;
	struct output out, complaint;
};

static int make_input(const char *text)
{
	OWNED_FD int fd = memfd_create("iptables", MFD_CLOEXEC);
	size_t left = text ? strlen(text) : 0;

	if (fd < 0)
		return -errno;
	while (left > 0) {
		ssize_t n = write(fd, text, left);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			text += n;
			left -= (size_t)n;
		}
	}
	if (lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* Signals are as a new process finds them; in a group of its own, so that a module loader of its is
 * killed with it.
 */
static int set_attributes(posix_spawnattr_t *attr)
{
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	return -(posix_spawnattr_setsigmask(attr, &none)
			 ?: posix_spawnattr_setsigdefault(attr, &all)
				    ?: posix_spawnattr_setpgroup(attr, 0)
					       ?: posix_spawnattr_setflags(
							  attr, POSIX_SPAWN_SETSIGMASK |
									POSIX_SPAWN_SETSIGDEF |
									POSIX_SPAWN_SETPGROUP));
}

static int set_files(posix_spawn_file_actions_t *files, const int fds[3])
{
	int r = 0;

	for (int i = 0; i < 3 && r == 0; i++)
		r = posix_spawn_file_actions_adddup2(files, fds[i], i);
	return -(r ?: posix_spawn_file_actions_addclosefrom_np(files, 3));
}

/* The lock of legacy iptables is one file for all namespaces of the node, and whoever programs
 * Services holds it for long. It keeps nobody in a pod from anything, who has a file system of his
 * own; what keeps two changes of one table apart is the kernel, which says EAGAIN to the second. So
 * the lock is our own standard input.
 */
static char *const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C",
				    "XTABLES_LOCKFILE=/proc/self/fd/0", NULL};

static int spawn_with(const struct ipt_run *run, const int fds[3], pid_t *ret)
{
	const char *name = strrchr(run->path, '/');
	const char *argv[ARGS_MAX + 2] = {name ? name + 1 : run->path};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	int r;

	for (size_t i = 0; run->args && run->args[i]; i++) {
		if (i == ARGS_MAX)
			return -E2BIG;
		argv[i + 1] = run->args[i];
	}
	r = -posix_spawnattr_init(&attr);
	if (r < 0)
		return r;
	r = -posix_spawn_file_actions_init(&files);
	if (r == 0) {
		r = set_attributes(&attr);
		if (r == 0)
			r = set_files(&files, fds);
		/* exec does not change the words that it is given. */
		if (r == 0)
			r = -posix_spawn(ret, run->path, &files, &attr, (char *const *)argv,
					 environment);
		posix_spawn_file_actions_destroy(&files);
	}
	posix_spawnattr_destroy(&attr);
	return r;
}

/* Both ends of a pipe are closed on exec; dup2 gives the child the one that it needs. */
static int start(const struct ipt_run *run, struct child *child)
{
	OWNED_FD int in = -1, out = -1, err = -1;
	int p[2], r;

	in = make_input(run->input);
	if (in < 0)
		return in;
	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	child->out.fd = p[0];
	out = p[1];
	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	child->complaint.fd = p[0];
	err = p[1];
	if (fcntl(child->out.fd, F_SETFL, O_NONBLOCK) < 0 ||
	    fcntl(child->complaint.fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	r = spawn_with(run, (int[]){in, out, err}, &child->pid);
	if (r < 0)
		return r;
	child->pidfd = pidfd_open(child->pid, 0); /* from Linux 5.3 on */
	return 0;
}

/* Killed unless it has ended, and waited for in any case. */
static void end(struct child *child)
{
	if (child->pid > 0) {
		kill(-child->pid, SIGKILL);
		while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
			continue;
	}
	owned_close(&child->pidfd);
	owned_close(&child->out.fd);
	owned_close(&child->complaint.fd);
	free(child->out.text);
	free(child->complaint.text);
}

/* ---- listening to it ---- */

static int keep(struct output *o, const char *bytes, size_t n)
{
	char *text;

	if (n > o->max - o->n) {
		if (!o->cut_off)
			return -EFBIG;
		n = o->max - o->n;
	}
	text = realloc(o->text, o->n + n + 1);
	if (!text)
		return -ENOMEM;
	memcpy(text + o->n, bytes, n);
	o->n += n;
	text[o->n] = '\0';
	o->text = text;
	return 0;
}

/* Reads what was there when it was called, and closes at the end. */
static int drain(struct output *o)
{
	char chunk[CHUNK];

	for (int i = 0; i < CHUNKS && o->fd >= 0; i++) {
		ssize_t n = read(o->fd, chunk, sizeof(chunk));
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0)
			return -errno;
		if (n == 0) {
			owned_close(&o->fd);
			o->fd = -1;
			return 0;
		}
		r = keep(o, chunk, (size_t)n);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Until it has ended, since what it started itself may keep the pipes open for longer; or, where
 * the kernel does not tell, until nobody has.
 */
static int listen_to(struct child *child, uint64_t deadline_ms)
{
	for (;;) {
		struct pollfd p[] = {{.fd = child->pidfd, .events = POLLIN},
				     {.fd = child->out.fd, .events = POLLIN},
				     {.fd = child->complaint.fd, .events = POLLIN}};
		uint64_t now = now_ms();
		int r;

		if (now >= deadline_ms)
			return -ETIMEDOUT;
		if (poll(p, ARRAY_SIZE(p), (int)(deadline_ms - now)) < 0 && errno != EINTR)
			return -errno;
		r = drain(&child->out);
		if (r == 0)
			r = drain(&child->complaint);
		if (r < 0 || p[0].revents || (child->out.fd < 0 && child->complaint.fd < 0))
			return r;
	}
}

static int wait_for(struct child *child, int *ret_status)
{
	pid_t r;

	do
		r = waitpid(child->pid, ret_status, 0);
	while (r < 0 && errno == EINTR);
	child->pid = 0;
	return r < 0 ? -errno : 0;
}

/* Exit codes say little, and not the same in both kinds of iptables. */
static int read_complaint(const struct ipt_run *run, int status, const char *complaint)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	log_debug("%s: %s %d: %.*s", run->path, WIFEXITED(status) ? "exit code" : "signal",
		  WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status),
		  (int)strcspn(complaint, "\n"), complaint);
	if (strstr(complaint, "Permission denied") || strstr(complaint, "not permitted"))
		return -EPERM;
	if (strstr(complaint, "Resource temporarily unavailable") ||
	    strstr(complaint, "xtables lock"))
		return -EAGAIN;
	return -EIO;
}

int ipt_run(const struct ipt_run *run, char **ret_output)
{
	OWNED(end)
	struct child child = {.pidfd = -1,
			      .out = {.fd = -1, .max = run->output_max},
			      .complaint = {.fd = -1, .max = COMPLAINT_MAX, .cut_off = true}};
	int status, r;

	r = keep(&child.out, "", 0);
	if (r == 0)
		r = keep(&child.complaint, "", 0);
	if (r == 0)
		r = start(run, &child);
	if (r == 0)
		r = listen_to(&child, now_ms() + run->timeout_ms);
	if (r == 0)
		r = wait_for(&child, &status);
	if (r < 0) {
		log_debug("%s: %s", run->path, strerrordesc_np(-r));
		return r;
	}
	r = read_complaint(run, status, child.complaint.text);
	if (r < 0)
		return r;
	if (ret_output)
		*ret_output = TAKE_PTR(child.out.text);
	return 0;
}
