/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/watcher.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/owned.h"
#include "resource/files.h"

/* A burst is over after this much quiet, and is not waited for longer than that. */
#define QUIET_MS 50
#define BURST_MS 300

/* inotify sees folders; a folder further up that is replaced, a network file system, or no inotify
 * at all are left to a look at the files now and then.
 */
#define POLL_MS  1000
#define AGAIN_MS 100 /* later it is still the same: so nobody is writing */

/* Not IN_MODIFY: a file that is being written is looked at when its writer closes it. */
#define EVENTS                                                                                   \
	(IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_DELETE_SELF | \
	 IN_MOVE_SELF | IN_ATTRIB)

static void settle_soon(struct watcher *w)
{
	uint64_t now = loop_now_ms(w->loop), latest;

	if (!timer_is_armed(&w->settle))
		w->first_event_ms = now;
	latest = w->first_event_ms + BURST_MS;
	if (latest <= now)
		return; /* its timer is due */
	timer_start(w->loop, &w->settle, latest - now < QUIET_MS ? latest - now : QUIET_MS);
}

static void on_settled(struct timer *t)
{
	struct watcher *w = CONTAINER_OF(t, struct watcher, settle);

	w->on_change(w);
}

/* A file that was only created is still being written, which IN_CLOSE_WRITE will end; nothing will
 * follow the creation of a link.
 */
static bool is_complete(const struct watched *in, const char *name)
{
	struct stat st;
	char *path;
	bool complete;

	if (asprintf(&path, "%s/%s", in->path, name) < 0)
		return true;
	complete = lstat(path, &st) == 0 && (!S_ISREG(st.st_mode) || st.st_nlink > 1);
	free(path);
	return complete;
}

static bool matters(const struct watched *in, const struct inotify_event *event)
{
	const char *name = event->name;

	if (event->len == 0)
		return true; /* the folder itself */
	if (strncmp(name, "..", 2) == 0)
		return true; /* ..data: how kubelet swaps what a ConfigMap holds */
	if (in->only ? strcmp(name, in->only) != 0 : !file_is_resource(name))
		return false;
	return !(event->mask & IN_CREATE) || is_complete(in, name);
}

static bool any_matters(const struct watcher *w, const struct inotify_event *event)
{
	if (event->mask & IN_Q_OVERFLOW)
		return true;
	for (size_t i = 0; i < w->n_watched; i++) {
		if (w->watched[i].wd == event->wd && matters(&w->watched[i], event))
			return true;
	}
	return false;
}

static void on_inotify(struct watch *watch, uint32_t events)
{
	struct watcher *w = CONTAINER_OF(watch, struct watcher, inotify);
	char buf[8192] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n = read(watch->fd, buf, sizeof(buf)); /* the rest comes with the next round */
	bool changed = false;

	(void)events;
	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *event = (const void *)(buf + at);

		changed = changed || any_matters(w, event);
		at += (ssize_t)(sizeof(*event) + event->len);
	}
	if (changed)
		settle_soon(w);
}

static void on_poll(struct timer *t)
{
	struct watcher *w = CONTAINER_OF(t, struct watcher, poll);
	uint64_t now = file_fingerprint(w->paths, w->n);
	bool changed = now != w->seen && now == w->pending;

	w->pending = now != w->seen ? now : 0;
	timer_start(w->loop, &w->poll, w->pending ? AGAIN_MS : POLL_MS);
	if (changed)
		w->on_change(w);
}

static void watch_folder(struct watcher *w, const char *path, size_t len, const char *only)
{
	struct watched *in = &w->watched[w->n_watched];

	*in = (struct watched){.path = strndup(path, len), .only = only ? strdup(only) : NULL};
	w->n_watched++;
	/* What is not there yet, or no folder, shows in its parent or by polling. */
	in->wd = in->path ? inotify_add_watch(w->inotify.fd, in->path, EVENTS | IN_ONLYDIR) : -1;
	if (in->wd < 0 && errno == ENOSPC)
		log_warn(-ENOSPC, "cannot watch '%s': raise fs.inotify.max_user_watches", path);
}

/* The path as a folder, and the folder it is in. */
static void watch_path(struct watcher *w, const char *path)
{
	size_t n = strlen(path), name;
	char *only;

	while (n > 1 && path[n - 1] == '/')
		n--;
	for (name = n; name > 0 && path[name - 1] != '/'; name--)
		;
	only = strndup(path + name, n - name);
	watch_folder(w, path, n, NULL);
	if (only && name > 0)
		watch_folder(w, path, name, only);
	else if (only)
		watch_folder(w, ".", 1, only);
	free(only);
}

static void forget_all(struct watcher *w)
{
	/* The descriptor, too: no watch of a folder that is no longer there stays behind. */
	watch_close(&w->inotify);
	for (size_t i = 0; i < w->n_watched; i++) {
		free(w->watched[i].path);
		free(w->watched[i].only);
	}
	free(w->watched);
	w->watched = NULL;
	w->n_watched = 0;
}

static int watch_all(struct watcher *w)
{
	int r;

	forget_all(w);
	w->watched = calloc(w->n * 2 + 1, sizeof(*w->watched));
	if (!w->watched)
		return -ENOMEM;
	w->inotify.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (w->inotify.fd < 0)
		return -errno;
	for (size_t i = 0; i < w->n; i++)
		watch_path(w, w->paths[i]);
	r = watch_add(w->loop, &w->inotify, EPOLLIN);
	if (r < 0)
		watch_close(&w->inotify);
	return r;
}

void watcher_init(struct watcher *w, struct loop *loop)
{
	w->loop = loop;
	w->inotify = (struct watch){.fd = -1, .on_event = on_inotify};
	w->settle = (struct timer){.on_expire = on_settled};
	w->poll = (struct timer){.on_expire = on_poll};
}

void watcher_arm(struct watcher *w, const char *const *paths, size_t n)
{
	int r;

	w->paths = paths;
	w->n = n;
	w->pending = 0;
	timer_stop(w->loop, &w->settle);
	r = watch_all(w);
	if (r < 0)
		log_warn(r, "cannot watch the registry's files, looking at them each second");
	w->seen = file_fingerprint(paths, n);
	timer_start(w->loop, &w->poll, POLL_MS);
}

void watcher_done(struct watcher *w)
{
	timer_stop(w->loop, &w->settle);
	timer_stop(w->loop, &w->poll);
	forget_all(w);
}
