/* SPDX-License-Identifier: Apache-2.0 */
#include "install/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/owned.h"
#include "install/conf.h"
#include "install/disk.h"

#define CONF_MAX     DISK_REWRITE_MAX
#define ATTEMPTS     5               /* while somebody else writes */
#define SAVED_SUFFIX ".sluice-saved" /* what a list of ours stands for; no runtime reads it */

struct folder {
	const char *path;
	int fd;
	char *why;  /* DISK_WHY_MAX */
	bool stale; /* somebody wrote at the same time: it has to be looked at again */
};

static struct span text_of(const struct disk_file *f)
{
	return (struct span){(const uint8_t *)f->text, f->len};
}

static bool has_suffix(const char *name, const char *suffix)
{
	size_t n = strlen(name), m = strlen(suffix);

	return n > m && strcmp(name + n - m, suffix) == 0;
}

/* "10-x.conf" -> "10-x.conflist", and the name under which 10-x.conf is kept meanwhile. */
static int other_names(const char *name, char list[static NAME_MAX + 1],
		       char saved[static NAME_MAX + 1])
{
	const char *dot = strrchr(name, '.');
	int n = snprintf(list, NAME_MAX + 1, "%.*s.conflist", (int)(dot - name), name);
	int m = snprintf(saved, NAME_MAX + 1, "%s" SAVED_SUFFIX, name);

	return n > NAME_MAX || m > NAME_MAX ? -ENAMETOOLONG : 0;
}

__attribute__((format(printf, 2, 3))) static enum folder_state failed(struct folder *dir,
								      const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(dir->why, DISK_WHY_MAX, format, args);
	va_end(args);
	return FOLDER_FAILED;
}

static int write_like(const char *path, const char *text, const struct stat *like)
{
	return disk_write(path, text, strlen(text), like->st_mode, like->st_uid, like->st_gid);
}

static int exists(const struct folder *dir, const char *name)
{
	struct stat st;

	return fstatat(dir->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- our entry into a list ---- */

static enum folder_state extend(struct folder *dir, const char *name, const struct disk_file *f,
				const char *entry)
{
	OWNED_MEM char *text = NULL;
	int r = conf_with(text_of(f), entry, &text);

	if (r < 0)
		return failed(dir, "'%s/%s' cannot be changed: %s", dir->path, name,
			      r == -EBADMSG ? "where its plugins are is not clear; write it anew, "
					      "without escapes in the names of fields"
					    : strerrordesc_np(-r));
	if (strcmp(text, f->text) == 0)
		return FOLDER_DONE;
	r = disk_rewrite(f, text, strlen(text));
	dir->stale = r == -ESTALE;
	if (r < 0)
		return failed(dir, "cannot write '%s/%s': %s", dir->path, name,
			      strerrordesc_np(-r));
	log_info("'%s/%s': " CONF_TYPE " is its last plugin now", dir->path, name);
	return FOLDER_CHANGED;
}

/* ---- a single plugin becomes a list ---- */

/* Does the list say what the file did that it was made of, our entry apart? */
static bool stands_for(const struct disk_file *list, const struct disk_file *saved)
{
	OWNED_MEM char *made = NULL, *made_without = NULL, *without = NULL;

	return conf_to_list(text_of(saved), "{\"type\":\"" CONF_TYPE "\"}", &made) == 0 &&
	       conf_without(span_of(made), &made_without) == 0 &&
	       conf_without(text_of(list), &without) == 0 && strcmp(made_without, without) == 0;
}

/* May that list take the place of the one that is there? Only if it is one that was made here. */
static bool may_replace(const struct folder *dir, const char *list, const char *saved,
			const struct disk_file *conf)
{
	OWNED(disk_file_done) struct disk_file f = {0};
	int r = disk_read(dir->fd, list, CONF_MAX, &f);

	if (r == -ENOENT)
		return true;
	if (r < 0)
		return false;
	return stands_for(&f, conf) || (exists(dir, saved) && conf_has_entry(text_of(&f)));
}

/* Somebody had written it anew, and that was put aside: it is to be converted, too. The file itself
 * goes back, who is still writing writes there; what it was made of is kept instead.
 */
static int give_back(const struct folder *dir, const char *name, const char *saved,
		     const struct disk_file *f)
{
	char path[PATH_MAX];
	int r;

	if (snprintf(path, sizeof(path), "%s/%s", dir->path, saved) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	r = disk_move(dir->fd, saved, name);
	if (r == 0)
		r = disk_copy(path, f);
	return r < 0 && r != -EEXIST ? r : -ESTALE; /* there: that is newer still */
}

/* The new one first: at no moment there is none, and until the old one is gone, that one is taken.
 */
static int put_in_place(const struct folder *dir, const char *name, const char *list,
			const char *saved, const char *text, const struct disk_file *f)
{
	char path[PATH_MAX];
	int r;

	if (snprintf(path, sizeof(path), "%s/%s", dir->path, list) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	r = write_like(path, text, &f->st);
	if (r == 0 && renameat(dir->fd, name, dir->fd, saved) < 0)
		r = errno == ENOENT ? -ESTALE : -errno;
	if (r == 0 && !disk_is_same(dir->fd, saved, f))
		r = give_back(dir, name, saved, f);
	return r < 0 ? r : disk_sync(dir->fd);
}

static enum folder_state convert(struct folder *dir, const char *name, const struct disk_file *f,
				 const char *entry)
{
	char list[NAME_MAX + 1], saved[NAME_MAX + 1];
	OWNED_MEM char *text = NULL;
	int r = other_names(name, list, saved);

	if (r == 0)
		r = conf_to_list(text_of(f), entry, &text);
	if (r == 0 && !may_replace(dir, list, saved, f))
		return failed(dir,
			      "'%s/%s' has to become '%s', and another file has that name: remove "
			      "one of them",
			      dir->path, name, list);
	if (r == 0)
		r = put_in_place(dir, name, list, saved, text, f);
	dir->stale = r == -ESTALE;
	if (r < 0)
		return failed(dir, "cannot make '%s/%s' of '%s': %s", dir->path, list, name,
			      strerrordesc_np(-r));
	log_info("'%s/%s' is '%s' now, with " CONF_TYPE " as its last plugin; what it was is kept "
		 "as '%s'",
		 dir->path, name, list, saved);
	return FOLDER_CHANGED;
}

/* ---- the first valid one ---- */

static enum folder_state unreadable(struct folder *dir, const char *name, int r)
{
	if (r == -ELOOP || r == -EXDEV)
		return failed(dir,
			      "'%s/%s' is a link that leads out of the folder: what it says cannot "
			      "be seen from here; put the file itself there",
			      dir->path, name);
	return failed(dir, "cannot read '%s/%s': %s", dir->path, name, strerrordesc_np(-r));
}

/* FOLDER_EMPTY: this one is not taken, the next may be. */
static enum folder_state try_file(struct folder *dir, const char *name, const char *entry)
{
	OWNED(disk_file_done) struct disk_file f = {0};
	const char *why = NULL;
	int r = disk_read(dir->fd, name, CONF_MAX, &f);

	if (r == -ENOENT || r == -EISDIR) /* gone meanwhile, or a link to nowhere */
		return FOLDER_EMPTY;
	if (r < 0)
		return unreadable(dir, name, r);
	switch (conf_judge(name, text_of(&f), &why)) {
	case CONF_LIST:
		return extend(dir, name, &f, entry);
	case CONF_SINGLE:
		return convert(dir, name, &f, entry);
	case CONF_UNCHAINED:
		return failed(dir,
			      "'%s/%s' is what runtimes take, and sluice-cni cannot join it: %s",
			      dir->path, name, why);
	case CONF_UNUSABLE:
		snprintf(dir->why, DISK_WHY_MAX, "'%s/%s' is not valid: %s", dir->path, name, why);
		return FOLDER_EMPTY;
	case CONF_OTHER:
		break;
	}
	return FOLDER_EMPTY;
}

static int is_candidate(const char *name)
{
	return conf_is_candidate(name);
}

static enum folder_state install_once(const char *path, const char *entry,
				      char why[static DISK_WHY_MAX], bool *ret_stale)
{
	OWNED_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct folder dir = {.path = path, .fd = fd, .why = why};
	OWNED(disk_names_free) struct disk_names names = {0};
	enum folder_state state = FOLDER_EMPTY;
	int r = fd < 0 ? -errno : disk_names(fd, is_candidate, &names);

	why[0] = '\0';
	if (r < 0 && r != -ENOENT)
		return failed(&dir, "cannot read the folder '%s': %s", path, strerrordesc_np(-r));
	for (size_t i = 0; i < names.n && state == FOLDER_EMPTY; i++)
		state = try_file(&dir, names.v[i], entry);
	if (state == FOLDER_EMPTY && !why[0])
		snprintf(why, DISK_WHY_MAX, "there is no configuration in '%s' yet", path);
	*ret_stale = dir.stale;
	return state;
}

enum folder_state folder_install(const char *path, const char *entry, char why[static DISK_WHY_MAX])
{
	bool stale = true;
	enum folder_state state = FOLDER_FAILED;

	for (int i = 0; i < ATTEMPTS && stale; i++) {
		stale = false;
		state = install_once(path, entry, why, &stale);
	}
	return state;
}

/* ---- out of all of them ---- */

static int rewrite_without(const struct disk_file *f)
{
	OWNED_MEM char *text = NULL;
	int r = conf_without(text_of(f), &text);

	return r < 0 ? r : disk_rewrite(f, text, strlen(text));
}

static int remove_entry(const struct folder *dir, const char *name)
{
	int r = -ESTALE;

	for (int i = 0; i < ATTEMPTS && r == -ESTALE; i++) {
		OWNED(disk_file_done) struct disk_file f = {0};

		r = disk_read(dir->fd, name, CONF_MAX, &f);
		if (r < 0 && r != -ENOENT)
			return log_err(r, "cannot read '%s/%s'", dir->path, name);
		if (r < 0 || !conf_has_entry(text_of(&f)))
			return 0;
		r = rewrite_without(&f);
	}
	if (r < 0)
		return log_err(r, "cannot take " CONF_TYPE " out of '%s/%s'", dir->path, name);
	log_info("'%s/%s': " CONF_TYPE " is taken out", dir->path, name);
	return 0;
}

/* Its name may have been given to a new file meanwhile: then that one stays. */
static int put_back(const struct folder *dir, const char *saved, const char *name, const char *list)
{
	int r = exists(dir, name) ? unlinkat(dir->fd, saved, 0)
				  : renameat(dir->fd, saved, dir->fd, name);

	if (r == 0)
		r = unlinkat(dir->fd, list, 0);
	if (r < 0)
		return log_err(-errno, "cannot put '%s/%s' back", dir->path, name);
	log_info("'%s/%s' is '%s' again", dir->path, list, name);
	return 0;
}

static int restore(const struct folder *dir, const char *saved)
{
	OWNED(disk_file_done) struct disk_file was = {0}, is = {0};
	char name[NAME_MAX + 1], list[NAME_MAX + 1], ignored[NAME_MAX + 1];
	int r;

	snprintf(name, sizeof(name), "%.*s", (int)(strlen(saved) - strlen(SAVED_SUFFIX)), saved);
	if (!conf_is_candidate(name) || other_names(name, list, ignored) < 0)
		return 0; /* none of ours */
	r = disk_read(dir->fd, saved, CONF_MAX, &was);
	if (r == 0)
		r = disk_read(dir->fd, list, CONF_MAX, &is);
	if (r == 0 && stands_for(&is, &was))
		return put_back(dir, saved, name, list);
	log_warn(0, "'%s/%s' was %s since it was made of '%s', which is kept as '%s'", dir->path,
		 list, r == -ENOENT ? "removed" : "changed", name, saved);
	return 0;
}

static int is_saved(const char *name)
{
	return has_suffix(name, SAVED_SUFFIX);
}

static int is_temporary(const char *name)
{
	return name[0] == '.' && has_suffix(name, DISK_SUFFIX_TMP);
}

static int remove_temporary(const struct folder *dir, const char *name)
{
	return unlinkat(dir->fd, name, 0) < 0
		       ? log_err(-errno, "cannot remove '%s/%s'", dir->path, name)
		       : 0;
}

static int for_each(const struct folder *dir, int (*wanted)(const char *name),
		    int (*act)(const struct folder *dir, const char *name))
{
	OWNED(disk_names_free) struct disk_names names = {0};
	int worst = disk_names(dir->fd, wanted, &names);

	if (worst < 0)
		return log_err(worst, "cannot read the folder '%s'", dir->path);
	for (size_t i = 0; i < names.n; i++) {
		int r = act(dir, names.v[i]);

		if (r < 0)
			worst = r;
	}
	return worst;
}

int folder_remove(const char *path)
{
	OWNED_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct folder dir = {.path = path, .fd = fd};
	int r, worst = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : log_err(-errno, "cannot read the folder '%s'", path);
	r = for_each(&dir, is_saved, restore);
	worst = r < 0 ? r : worst;
	r = for_each(&dir, is_candidate, remove_entry);
	worst = r < 0 ? r : worst;
	r = for_each(&dir, is_temporary, remove_temporary);
	return r < 0 ? r : worst;
}
