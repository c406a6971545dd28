/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/ctl/ctl.h"

#include "base/owned.h"

/* For people the same object, indented. */
int ctl_config(const struct ctl *ctl)
{
	OWNED(drop_json) json_t *config = NULL;
	OWNED_MEM char *text = NULL, *pretty = NULL;
	int r;

	r = client_get(ctl, "/config", &text, &config);
	if (r != EXIT_DONE)
		return r;
	if (ctl->json)
		return print_text(text);
	pretty = json_dumps(config, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
	return pretty ? print_text(pretty) : ctl_fail("out of memory");
}
