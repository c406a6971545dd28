/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The plugin's binary on the node. Logs what it changed. */
#include "install/disk.h"

#define BINARY_NAME "sluice-cni"

/* Makes bin_dir/sluice-cni what `source` is, mode 0755, when it is not: 1. 0 when it was already.
 * What runs meanwhile goes on with the old one. -errno, and what went wrong in `why`, not logged.
 */
int binary_install(const char *source, const char *bin_dir, char why[static DISK_WHY_MAX]);

/* 0 also when there is none. Logs. -errno. */
int binary_remove(const char *bin_dir);
