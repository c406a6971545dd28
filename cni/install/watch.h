/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Keeps what was installed in place: looks whenever somebody touches one of the two folders, and
 * every ten seconds.
 */
#include "install/installer.h"

/* Until SIGTERM or SIGINT, which the caller has blocked in all threads. Repairs at once; who undoes
 * it again and again has to wait longer and longer for the next time, up to 2 s. Logs. 0; -errno
 * when it cannot watch.
 */
int watch_node(struct installer *installer);
