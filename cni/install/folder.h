/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The folder of CNI configurations: our entry in the one that container runtimes take, and out of
 * all of them. Logs what it changed.
 */
#include "install/disk.h"

enum folder_state {
	FOLDER_DONE,    /* our entry is where it has to be, and was before */
	FOLDER_CHANGED, /* it is now */
	FOLDER_EMPTY,   /* no configuration that a runtime would take */
	FOLDER_FAILED,  /* it is not, and `why` says why */
};

/* Makes `entry` the last plugin of the first valid configuration in lexical order. `why` says what
 * is wrong, also where only one before the first valid one was passed over; else it is "". That is
 * not logged.
 */
enum folder_state folder_install(const char *path, const char *entry,
				 char why[static DISK_WHY_MAX]);

/* Puts all configurations back as they were before. 0 also when there is nothing. -errno of the
 * worst; goes on after a failure, and logs each.
 */
int folder_remove(const char *path);
