/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/ctl/ctl.h"

#include <string.h>

#include "base/owned.h"
#include "pod/enrol_client.h"

static int ask(const struct ctl *ctl, const char *op)
{
	char error[ENROL_CLIENT_ERROR_MAX] = "";
	int r;

	r = ctl->cgroup ? enrol_request_cgroup(ctl->agent, ctl->pod, ctl->service_account,
					       ctl->cgroup, error)
			: enrol_request(ctl->agent, op, ctl->pod, ctl->service_account, ctl->netns,
					error);
	if (r == 0)
		return EXIT_DONE;
	return ctl_fail("cannot %s pod '%s': %s", op, ctl->pod, *error ? error : strerror(-r));
}

int ctl_enroll(const struct ctl *ctl)
{
	return ask(ctl, "enroll");
}

int ctl_unenroll(const struct ctl *ctl)
{
	return ask(ctl, "unenroll");
}

int ctl_pods(const struct ctl *ctl)
{
	static const struct column columns[] = {
		{"NAMESPACE", "namespace"},
		{"POD", "pod"},
		{"SERVICE-ACCOUNT", "service_account"},
		{"STATE", "state"},
		{"BACKEND", "backend"},
		{"GUARD", "guard"},
		{"CONNECTIONS", "connections"},
		{"ENROLLED-AT", "enrolled_at"},
		{"NETNS", "netns"},
	};

	return table_show(ctl, "/pods", columns, ARRAY_SIZE(columns),
			  "no pod is enrolled (sluicectl enroll --netns ... does it)");
}
