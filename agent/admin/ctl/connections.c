/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/ctl/ctl.h"

#include "base/owned.h"

int ctl_connections(const struct ctl *ctl)
{
	static const struct column columns[] = {
		{"SOURCE", "source"},       {"PROTOCOL", "protocol"},
		{"AUTHORITY", "authority"}, {"ORIGINAL-DESTINATION", "original_destination"},
		{"UPSTREAM", "upstream"},   {"GATEWAY", "gateway"},
		{"STATE", "state"},         {"RECEIVED", "bytes_received"},
		{"SENT", "bytes_sent"},     {"AGE-MS", "age_ms"},
		{"IDLE-MS", "idle_ms"},     {"REQUEST-ID", "request_id"},
	};

	return table_show(ctl, "/connections", columns, ARRAY_SIZE(columns),
			  "no connection is open");
}
