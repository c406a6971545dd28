/* SPDX-License-Identifier: Apache-2.0 */

/* sluice-install: puts sluice-cni onto a node and keeps it there, as a container of the agent's
 * DaemonSet.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>

#include "base/log.h"
#include "base/owned.h"
#include "install/watch.h"

enum {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
};

static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

/* False: a signal to end has come. */
static bool sleep_a_second(void)
{
	const struct timespec second = {.tv_sec = 1};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	return sigtimedwait(&set, NULL, &second) < 0;
}

static int install_once(struct installer *installer)
{
	enum installed what;

	block_signals();
	do {
		what = installer_run(installer);
	} while (what == INSTALL_WAITING && installer->options->wait && sleep_a_second());
	return what == INSTALLED || what == INSTALLED_CHANGED ? EXIT_DONE : EXIT_FAILED;
}

/* Held by all who watch the folder, and by who takes things away: what a container that takes its
 * time to end would put back would stay in place for ever. -1 when there is no such folder.
 */
static int open_lock(const struct install_options *o)
{
	return open(o->conf_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* False: a signal to end has come. */
static bool wait_for_watchers(const struct install_options *o, int lock)
{
	bool said = false;

	while (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
		if (!said)
			log_info("waiting for the end of whoever watches '%s'", o->conf_dir);
		said = true;
		if (!sleep_a_second())
			return false;
	}
	return true;
}

static int remove_alone(const struct install_options *o)
{
	OWNED_FD int lock = open_lock(o);

	return wait_for_watchers(o, lock) ? installer_remove(o) : -EINTR;
}

static int remove_all(const struct install_options *o)
{
	block_signals();
	if (remove_alone(o) < 0)
		return EXIT_FAILED;
	while (o->stay && sleep_a_second())
		;
	return EXIT_DONE;
}

static int watch(struct installer *installer)
{
	OWNED_FD int lock = open_lock(installer->options);
	int r;

	block_signals();
	if (lock >= 0 && flock(lock, LOCK_SH) < 0)
		log_warn(-errno, "cannot lock '%s', going on without",
			 installer->options->conf_dir);
	installer_end(installer->options); /* of one that was killed */
	r = watch_node(installer);
	installer_end(installer->options);
	if (r < 0)
		return EXIT_FAILED;
	log_info("ending; what is installed stays in place");
	return EXIT_DONE;
}

static int act(const struct install_options *o)
{
	OWNED(installer_done) struct installer installer = {0};

	if (installer_init(&installer, o) < 0)
		return log_err(0, "the entry cannot be written: use UTF-8 only"), EXIT_FAILED;
	if (o->mode == INSTALL_WATCH)
		return watch(&installer);
	return install_once(&installer);
}

int main(int argc, char **argv)
{
	char error[OPTIONS_ERROR_MAX];
	struct install_options o;

	if (install_options_parse(argc, argv, &o, error) < 0)
		return log_err(0, "%s", error), EXIT_USAGE;
	if (o.mode == INSTALL_HELP)
		return fputs(install_options_help(), stdout) < 0 ? EXIT_FAILED : EXIT_DONE;
	if (o.mode == INSTALL_REMOVE)
		return remove_all(&o);
	return act(&o);
}
