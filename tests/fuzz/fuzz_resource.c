/* SPDX-License-Identifier: Apache-2.0 */

/* Any text as YAML and as JSON: decoded, validated, and, where it is good, built into a registry
 * and asked.
 */
#include <stdlib.h>

#include "base/owned.h"
#include "resource/decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore_warning(void *ctx, const char *text)
{
	(void)ctx;
	if (text[0] == '\0')
		abort(); /* a warning says something */
}

/* What was accepted must be found again under its own names. */
static void ask(const struct registry *reg, const struct service_entry *e)
{
	for (size_t i = 0; i < e->n_hosts; i++) {
		enum reason reason;

		if (e->hosts[i][0] == '*' || e->n_ports == 0)
			continue;
		registry_find_name(reg, span_of(e->hosts[i]), e->ports[0].number, e->ns, &reason);
	}
}

static void build(const struct decoded *d)
{
	struct registry *reg;

	if (registry_new(&reg, d->entries, d->n, ignore_warning, NULL) < 0)
		return;
	for (size_t i = 0; i < d->n; i++)
		ask(reg, &d->entries[i]);
	registry_unref(reg);
}

static void decode(struct span text, enum text_format format)
{
	OWNED(decoded_done) struct decoded d = {0};

	decode_text(&d, "fuzz", text, format, 1);
	if (report_result(&d.report) == 0)
		build(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span text = {data, size};

	decode(text, TEXT_YAML);
	decode(text, TEXT_JSON);
	return 0;
}
