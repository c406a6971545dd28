/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Listening sockets for the admin server. The descriptors belong to the caller; -errno, not logged.
 */
#include "base/addr.h"

/* "::" takes IPv4 too. */
int listen_open_tcp(const struct addr *addr);

/* Mode 0600. Makes the folder when only it is missing, and replaces a stale socket. -EADDRINUSE
 * when somebody listens on it, -EEXIST when the path is something else. The caller unlinks.
 */
int listen_open_unix(const char *path);
