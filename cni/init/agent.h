/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What is asked of the node's agent. Logs. */
#include "init/options.h"

/* Has the namespace enrolled as the pod, waiting --agent-timeout for an agent that does not answer.
 * 0 when it is captured. -EREMOTEIO when the agent refused, -errno.
 */
int agent_enrol(const struct init_options *o, int netns_fd);

/* 0: the agent has found all of the pod in force. -errno. */
int agent_check(const struct init_options *o);

/* 0: the agent knows of no such pod. -EBUSY: it does. -errno: it did not say. */
int agent_does_not_know(const struct init_options *o);
