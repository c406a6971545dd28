/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/guard_ebpf.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/owned.h"

static const char *const dir_names[] = {"in", "out"};
_Static_assert(ARRAY_SIZE(dir_names) == GUARD_DIR_N_, "every direction has a name");

static void close_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* ---- names ---- */

static void name_dir(const char *pin_dir, const char *version, struct guard_pins *ret)
{
	snprintf(ret->dir, sizeof(ret->dir), "%.320s/%.48s", pin_dir, version);
}

static void links_dir(const struct guard_pins *pins, char buf[static GUARD_PATH_MAX])
{
	snprintf(buf, GUARD_PATH_MAX, "%s/links", pins->dir);
}

int guard_pins_open(const char *pin_dir, struct guard_pins *ret, char error[static GUARD_ERROR_MAX])
{
	char links[GUARD_PATH_MAX], version[48];
	int r;

	r = bpf_pin_open_fs(pin_dir, error);
	if (r < 0)
		return r;
	snprintf(version, sizeof(version), "guard-v%d", GUARD_ABI);
	name_dir(pin_dir, version, ret);
	links_dir(ret, links);
	return bpf_pin_make_dirs(links, error);
}

const char *guard_pins_map(const struct guard_pins *pins, const char *name,
			   char buf[static GUARD_PATH_MAX])
{
	snprintf(buf, GUARD_PATH_MAX, "%s/%.60s", pins->dir, name);
	return buf;
}

const char *guard_pins_link(const struct guard_pins *pins, uint32_t ifindex, enum guard_dir dir,
			    char buf[static GUARD_PATH_MAX])
{
	snprintf(buf, GUARD_PATH_MAX, "%s/links/%" PRIu32 "-%s", pins->dir, ifindex,
		 dir_names[dir]);
	return buf;
}

/* ---- what is there ---- */

void guard_pins_each_link(const struct guard_pins *pins, void (*each)(void *ctx, uint32_t ifindex),
			  void *ctx)
{
	OWNED(close_dir) DIR *dir = NULL;
	char path[GUARD_PATH_MAX];
	struct dirent *e;

	links_dir(pins, path);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		uint32_t ifindex;

		if (sscanf(e->d_name, "%" SCNu32 "-", &ifindex) == 1)
			each(ctx, ifindex);
	}
}

void guard_pins_each_version(const char *pin_dir, const struct guard_pins *but,
			     void (*each)(void *ctx, const struct guard_pins *pins), void *ctx)
{
	OWNED(close_dir) DIR *dir = opendir(pin_dir);
	struct guard_pins pins;
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		if (fnmatch("guard-v[0-9]*", e->d_name, 0) != 0)
			continue;
		name_dir(pin_dir, e->d_name, &pins);
		if (!but || strcmp(pins.dir, but->dir) != 0)
			each(ctx, &pins);
	}
}

/* ---- taking away ---- */

/* False when something stayed. */
static bool empty_dir(const char *path, void (*remove_file)(const char *path))
{
	OWNED(close_dir) DIR *dir = opendir(path);
	char file[GUARD_PATH_MAX];
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] == '.' || e->d_type == DT_DIR)
			continue;
		snprintf(file, sizeof(file), "%.440s/%.60s", path, e->d_name);
		remove_file(file);
	}
	return rmdir(path) == 0 || errno == ENOENT;
}

static void unpin(const char *path)
{
	unlink(path);
}

int guard_pins_remove(const struct guard_pins *pins)
{
	char links[GUARD_PATH_MAX];

	links_dir(pins, links);
	if (!empty_dir(links, guard_tcx_detach))
		return -errno;
	return empty_dir(pins->dir, unpin) ? 0 : -errno;
}
