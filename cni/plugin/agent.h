/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The node's agent, asked until it answers. Does not log. */
#include <stdbool.h>

#include "pod/enrol_client.h"

/* Asks, and asks again where a moment later the answer may be another: no agent there, one that
 * went away, one that cannot tell yet. At most `timeout_ms` in all. Returns what enrol_ask() does.
 */
int agent_ask(const char *socket_path, const struct enrol_question *question, unsigned timeout_ms,
	      char error[static ENROL_CLIENT_ERROR_MAX]);

/* Did nobody answer, or not for good? */
bool agent_may_answer_later(int r);
