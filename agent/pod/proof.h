/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Proves that what a pod sends out reaches this agent: one connection from the pod's own namespace
 * to a destination that stands for the agent, which answers with a token that nobody else knows.
 */
#include "base/addr.h"

#define PROOF_TOKEN 16

/* Moves the calling thread into the namespace and back; waits at most `timeout_ms`. 0: proved.
 * -ENETUNREACH: the pod has no route for this family, or no address: it reaches nothing at all.
 * -ETIMEDOUT: no answer. -EBADMSG: somebody else answered. -errno, as the pod would see it. Does
 * not log.
 */
int proof_try(int netns_fd, const struct addr *dst, const uint8_t token[static PROOF_TOKEN],
	      int timeout_ms);
