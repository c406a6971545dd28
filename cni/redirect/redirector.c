/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/redirector.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>

#include "base/netns.h"
#include "base/owned.h"
#include "redirect/plan.h"

int redirector_try(int (*apply)(const struct plan *plan), int (*verify)(const struct plan *plan))
{
	OWNED(netns_leave) int home = -1;
	OWNED(plan_done) struct plan plan = {0};
	struct plan_input nothing = {.capture_port = PLAN_CAPTURE_PORT};
	int r;

	r = plan_make(&nothing, &plan);
	if (r < 0)
		return r;
	home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0)
		return -errno;
	if (unshare(CLONE_NEWNET) < 0)
		return -errno;
	r = apply(&plan);
	if (r == 0)
		r = verify(&plan);
	if (r == -ENOMEM || r == -EPERM)
		return r;
	return r < 0 ? -EOPNOTSUPP : 0;
}
