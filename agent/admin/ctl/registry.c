/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/ctl/ctl.h"

#include "base/owned.h"

int ctl_registry(const struct ctl *ctl)
{
	static const struct column columns[] = {
		{"HOST", "host"},
		{"PORT", "port"},
		{"PROTOCOL", "protocol"},
		{"RESOLUTION", "resolution"},
		{"TARGET-PORT", "target_port"},
		{"ENDPOINTS", "endpoints"},
		{"ADDRESSES", "addresses"},
		{"EXPORT-TO", "export_to"},
		{"SERVICE-ENTRY", "service_entry"},
	};

	return table_show(
		ctl, "/registry", columns, ARRAY_SIZE(columns),
		"no host is registered (nothing may leave until a ServiceEntry names it)");
}
