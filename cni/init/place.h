/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The network namespace that is acted on. Does not log. */
#include <stdbool.h>

/* Opens the namespace behind `path`, or the calling thread's own for "", and moves the thread
 * there, for good. The descriptor is for the caller to close. -errno.
 */
int place_enter(const char *path);

/* Is the thread in the namespace that the machine started with, the node's? */
bool place_is_the_nodes(void);

/* Is the capture port of the pod in use? Then the agent listens there. -errno. */
int place_has_listener(void);
