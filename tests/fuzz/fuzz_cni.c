/* SPDX-License-Identifier: Apache-2.0 */

/* Any text as what a container runtime sends to the plugin, and as a file of the node's
 * configuration folder that the installer changes.
 */
#include <errno.h>
#include <string.h>

#include "base/owned.h"
#include "fuzz.h"
#include "install/conf.h"
#include "plugin/cni.h"

#define OURS "{\"type\":\"sluice-cni\",\"timeout\":\"5s\"}"

/* ---- the plugin ---- */

static void free_json(json_t **j)
{
	json_decref(*j);
}

static void check_answers(const struct cni_config *config)
{
	OWNED_MEM char *result = config->prev_result ? cni_print_result(config) : NULL;
	OWNED(free_json) json_t *json = NULL, *ids = NULL;
	struct cni_error error;

	REQUIRE(config->agent_socket[0] == '/' && config->timeout_ms > 0);
	if (result) {
		json = json_loads(result, 0, NULL);
		REQUIRE(json_is_object(json));
	}
	if (cni_valid_containers(config, &ids, &error) == 0)
		REQUIRE(json_is_array(ids));
}

static void read_as(enum cni_command command, const char *text, size_t size)
{
	OWNED(cni_config_done) struct cni_config config = {0};
	struct cni_error error = {0};
	OWNED_MEM char *answer = NULL;

	if (cni_read_config(text, size, command, &config, &error) == 0) {
		check_answers(&config);
		return;
	}
	REQUIRE(error.code > 0 && error.msg[0] && config.version);
	answer = cni_print_error(config.version, &error);
	REQUIRE(answer);
}

static void read_args(const char *text)
{
	char value[16] = "";
	int r = cni_arg(text, "K8S_POD_NAME", value, sizeof(value));

	REQUIRE(r == -EINVAL || (r == 1) == (value[0] != '\0'));
}

/* ---- the installer ---- */

/* What comes of a list is one, with ours as its last plugin; and the way back leads to where it
 * began.
 */
static void check_list(struct span list)
{
	OWNED_MEM char *with = NULL, *again = NULL, *without = NULL, *before = NULL;
	const char *why;

	if (conf_with(list, OURS, &with) < 0)
		return;
	REQUIRE(conf_judge("a.conflist", span_of(with), &why) == CONF_LIST);
	REQUIRE(conf_has_entry(span_of(with)));
	REQUIRE(conf_with(span_of(with), OURS, &again) == 0 && strcmp(with, again) == 0);
	REQUIRE(conf_without(span_of(with), &without) == 0);
	REQUIRE(!conf_has_entry(span_of(without)));
	REQUIRE(conf_without(list, &before) == 0 && strcmp(before, without) == 0);
	if (!conf_has_entry(list))
		REQUIRE(span_equal(list, span_of(without)));
}

static void check_single(struct span single)
{
	OWNED_MEM char *list = NULL;
	const char *why;

	if (conf_to_list(single, OURS, &list) == 0)
		REQUIRE(conf_judge("a.conflist", span_of(list), &why) == CONF_LIST);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	OWNED_MEM char *text = malloc(size + 1), *version = NULL;
	struct span span = {data, size};
	const char *why;

	REQUIRE(text);
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	for (enum cni_command c = CNI_ADD; c < CNI_VERSION; c++)
		read_as(c, text, size);
	version = cni_print_version(text, size);
	REQUIRE(version);
	read_args(text);

	if (conf_judge("a.conflist", span, &why) == CONF_LIST)
		check_list(span);
	if (conf_judge("a.conf", span, &why) == CONF_SINGLE)
		check_single(span);
	return 0;
}
