/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One look at the node: binary and entry in place, and whoever waits for it told. Logs; what is
 * still wrong in the same way as last time is not said again.
 */
#include "install/folder.h"
#include "install/options.h"

struct installer {
	const struct install_options *options;
	char *entry;             /* owned */
	char said[DISK_WHY_MAX]; /* last */
};

enum installed {
	INSTALLED,         /* all is in place, and was */
	INSTALLED_CHANGED, /* it is now */
	INSTALL_WAITING,   /* there is no configuration yet */
	INSTALL_FAILED,
};

/* `options` is borrowed. -ENOMEM, and what installer_done() takes. */
int installer_init(struct installer *ret, const struct install_options *options);
void installer_done(struct installer *installer);

/* Makes it so, and the ready file tell of it. */
enum installed installer_run(struct installer *installer);

/* Takes everything away. -errno of the worst. */
int installer_remove(const struct install_options *options);

/* The ready file is taken away: nobody watches any more. */
void installer_end(const struct install_options *options);
