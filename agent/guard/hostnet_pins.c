/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "abi/hostnet.h"
#include "base/owned.h"
#include "guard/hostnet_own.h"

#define SET_ASIDE_MAX 16

static void close_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* ---- names ---- */

int hostnet_pins_open(const char *pin_dir, struct hostnet_pins *ret,
		      char error[static HOSTNET_ERROR_MAX])
{
	int r;

	r = bpf_pin_open_fs(pin_dir, error);
	if (r < 0)
		return r;
	snprintf(ret->dir, sizeof(ret->dir), "%.320s/hostnet/v%d", pin_dir, HOSTNET_ABI);
	return bpf_pin_make_dirs(ret->dir, error);
}

const char *hostnet_pins_map(const struct hostnet_pins *pins, const char *name,
			     char buf[static GUARD_PATH_MAX])
{
	snprintf(buf, GUARD_PATH_MAX, "%s/%.60s", pins->dir, name);
	return buf;
}

const char *hostnet_pins_cgroup(const struct hostnet_pins *pins, uint64_t id,
				char buf[static GUARD_PATH_MAX])
{
	snprintf(buf, GUARD_PATH_MAX, "%s/%" PRIu64, pins->dir, id);
	return buf;
}

int hostnet_pins_set_aside(const struct hostnet_pins *pins)
{
	char aside[GUARD_PATH_MAX];

	for (int i = 0; i < SET_ASIDE_MAX; i++) {
		if (rmdir(pins->dir) == 0)
			break;
		/* More than one only when agents died before they had taken up their pods. */
		snprintf(aside, sizeof(aside), "%s-old%d", pins->dir, i);
		if (access(aside, F_OK) < 0 && rename(pins->dir, aside) == 0)
			break;
	}
	return mkdir(pins->dir, 0700) < 0 ? -errno : 0;
}

/* ---- what is there ---- */

size_t hostnet_pins_each_cgroup(const struct hostnet_pins *pins,
				void (*each)(void *ctx, uint64_t id), void *ctx)
{
	OWNED(close_dir) DIR *dir = opendir(pins->dir);
	uint64_t ids[4 * HOSTNET_MAX_CGROUPS];
	struct dirent *e;
	size_t n = 0;

	while (dir && n < ARRAY_SIZE(ids) && (e = readdir(dir))) {
		char *end;
		uint64_t id = strtoull(e->d_name, &end, 10);

		if (id > 0 && *end == '\0')
			ids[n++] = id;
	}
	for (size_t i = 0; each && i < n; i++)
		each(ctx, ids[i]);
	return n;
}

void hostnet_pins_each_version(const char *pin_dir, const struct hostnet_pins *but,
			       void (*each)(void *ctx, const struct hostnet_pins *pins), void *ctx)
{
	OWNED(close_dir) DIR *dir = NULL;
	char path[GUARD_PATH_MAX];
	struct hostnet_pins pins;
	struct dirent *e;

	snprintf(path, sizeof(path), "%.320s/hostnet", pin_dir);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		if (fnmatch("v[0-9]*", e->d_name, 0) != 0)
			continue;
		snprintf(pins.dir, sizeof(pins.dir), "%.330s/%.60s", path, e->d_name);
		if (!but || strcmp(pins.dir, but->dir) != 0)
			each(ctx, &pins);
	}
}

/* ---- taking away ---- */

int hostnet_pins_remove(const struct hostnet_pins *pins)
{
	OWNED(close_dir) DIR *dir = opendir(pins->dir);
	char path[GUARD_PATH_MAX];
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] != '.' && e->d_type != DT_DIR)
			unlink(hostnet_pins_map(pins, e->d_name, path));
	}
	return rmdir(pins->dir) < 0 && errno != ENOENT ? -errno : 0;
}

void hostnet_pins_tidy(const char *pin_dir)
{
	char path[GUARD_PATH_MAX];

	snprintf(path, sizeof(path), "%.320s/hostnet", pin_dir);
	rmdir(path);
}
