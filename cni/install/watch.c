/* SPDX-License-Identifier: Apache-2.0 */
#include "install/watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/owned.h"

#define LOOK_MS      10000 /* what no event tells of: targets of links */
#define LOOK_SOON_MS 1000  /* folders that are not there yet */
#define WAIT_MIN_MS  50
#define WAIT_MAX_MS  2000
#define CALM_MS      1000 /* what was let stand for so long was not undone in a fight */

#define EVENTS                                                                                   \
	(IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | \
	 IN_MOVE_SELF | IN_ONLYDIR)

struct node {
	struct installer *installer;
	int inotify_fd, signal_fd;
	uint64_t paced_ms;      /* when something was last put back, or failed; 0: never */
	uint64_t not_before_ms; /* of the next look */
	uint64_t wait_ms;       /* between the two */
	uint64_t look_ms;       /* until the next look without news */
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Once more for a folder that is watched already changes nothing. */
static void listen_to(const struct node *n)
{
	const struct install_options *o = n->installer->options;

	if (inotify_add_watch(n->inotify_fd, o->conf_dir, EVENTS) < 0)
		log_debug("cannot watch '%s'", o->conf_dir);
	if (inotify_add_watch(n->inotify_fd, o->bin_dir, EVENTS) < 0)
		log_debug("cannot watch '%s'", o->bin_dir);
}

/* What happened where does not matter: all of it is looked at. */
static void drain(int fd)
{
	char buf[16384];

	while (read(fd, buf, sizeof(buf)) > 0)
		;
}

/* What had to be put back was undone by somebody, and what failed leaves events of its own: neither
 * may become a loop. The time that a slow disk takes to put it back is not one of calm.
 */
static void pace(struct node *n, uint64_t began_ms)
{
	uint64_t now = now_ms();

	if (n->paced_ms == 0 || began_ms - n->paced_ms > n->wait_ms + CALM_MS)
		n->wait_ms = WAIT_MIN_MS;
	else
		n->wait_ms = n->wait_ms * 2 < WAIT_MAX_MS ? n->wait_ms * 2 : WAIT_MAX_MS;
	n->paced_ms = now;
	n->not_before_ms = now + n->wait_ms;
}

static void look(struct node *n)
{
	uint64_t began_ms = now_ms();
	enum installed what;

	listen_to(n); /* before looking: nothing is missed in between */
	what = installer_run(n->installer);
	n->look_ms = what == INSTALLED || what == INSTALLED_CHANGED ? LOOK_MS : LOOK_SOON_MS;
	if (what != INSTALLED_CHANGED && what != INSTALL_FAILED)
		return;
	pace(n, began_ms);
	if (what == INSTALLED_CHANGED && n->wait_ms > WAIT_MIN_MS)
		log_warn(0,
			 "somebody undid what is installed, and it is put back; the next time in "
			 "%llu ms at the soonest",
			 (unsigned long long)n->wait_ms);
}

/* How long to wait for events; 0: look now. */
static uint64_t time_to_look(const struct node *n, bool news)
{
	uint64_t now = now_ms();

	if (!news)
		return n->look_ms;
	return now < n->not_before_ms ? n->not_before_ms - now : 0;
}

/* 1: something may have changed, or it is time to look; 0: the end was asked for. -errno. */
static int wait_for_news(struct node *n, uint64_t wait_ms)
{
	struct pollfd fds[] = {{.fd = n->signal_fd, .events = POLLIN},
			       {.fd = n->inotify_fd, .events = POLLIN}};
	int r = poll(fds, ARRAY_SIZE(fds), (int)wait_ms);

	if (r < 0)
		return errno == EINTR ? 1 : -errno;
	if (fds[0].revents)
		return 0;
	drain(n->inotify_fd);
	return 1;
}

static int run(struct node *n)
{
	bool news = true;

	for (;;) {
		uint64_t wait = time_to_look(n, news);
		int r;

		if (wait == 0) {
			look(n);
			news = false;
			continue;
		}
		r = wait_for_news(n, wait);
		if (r <= 0)
			return r;
		news = true;
	}
}

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int watch_node(struct installer *installer)
{
	OWNED_FD int inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	OWNED_FD int signal_fd = open_signals();
	struct node n = {.installer = installer, .inotify_fd = inotify_fd, .signal_fd = signal_fd};
	int r;

	if (inotify_fd < 0 || signal_fd < 0)
		return log_err(-errno, "cannot watch the node");
	r = run(&n);
	return r < 0 ? log_err(r, "cannot wait for changes") : 0;
}
