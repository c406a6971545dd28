/* SPDX-License-Identifier: Apache-2.0 */
#include "install/installer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/owned.h"
#include "install/binary.h"
#include "install/conf.h"

int installer_init(struct installer *ret, const struct install_options *options)
{
	*ret = (struct installer){.options = options,
				  .entry = conf_entry(options->socket, options->timeout)};
	return ret->entry ? 0 : -ENOMEM;
}

void installer_done(struct installer *installer)
{
	free(installer->entry);
	*installer = (struct installer){0};
}

/* ---- the ready file ---- */

static void say_ready(const char *path)
{
	OWNED_FD int fd = -1;

	if (!path || access(path, F_OK) == 0)
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		log_err(-errno, "cannot write '%s'", path);
}

static void say_unready(const char *path)
{
	if (path && unlink(path) < 0 && errno != ENOENT)
		log_err(-errno, "cannot remove '%s'", path);
}

void installer_end(const struct install_options *options)
{
	say_unready(options->ready_file);
}

/* ---- all of it ---- */

static void say_once(struct installer *in, enum installed what, const char *why)
{
	if (strcmp(in->said, why) == 0)
		return;
	memcpy(in->said, why, sizeof(in->said));
	if (!why[0])
		return;
	if (what == INSTALL_FAILED)
		log_err(0, "%s", why);
	else if (what == INSTALL_WAITING)
		log_warn(0, "%s; waiting for one", why);
	else
		log_warn(0, "%s; passing it over, as runtimes do that do not stop there", why);
}

static enum installed outcome(enum folder_state state, bool copied)
{
	switch (state) {
	case FOLDER_DONE:
		return copied ? INSTALLED_CHANGED : INSTALLED;
	case FOLDER_CHANGED:
		return INSTALLED_CHANGED;
	case FOLDER_EMPTY:
		return INSTALL_WAITING;
	case FOLDER_FAILED:
		break;
	}
	return INSTALL_FAILED;
}

/* The binary first: an entry without it keeps every pod from starting. */
enum installed installer_run(struct installer *in)
{
	const struct install_options *o = in->options;
	enum installed what = INSTALL_FAILED;
	char why[DISK_WHY_MAX] = "";
	int r = binary_install(o->source, o->bin_dir, why);

	if (r >= 0)
		what = outcome(folder_install(o->conf_dir, in->entry, why), r > 0);
	say_once(in, what, why);
	if (what == INSTALLED || what == INSTALLED_CHANGED)
		say_ready(o->ready_file);
	else
		say_unready(o->ready_file);
	return what;
}

/* The other way round, for the same reason. */
int installer_remove(const struct install_options *o)
{
	int r;

	say_unready(o->ready_file);
	r = folder_remove(o->conf_dir);
	if (r < 0)
		return log_err(r, "'%s/" BINARY_NAME "' stays: a configuration may still name it",
			       o->bin_dir);
	return binary_remove(o->bin_dir);
}
