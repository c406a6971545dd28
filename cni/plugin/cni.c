/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/cni.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/owned.h"

#define NEWEST         "1.1.0"
#define AGENT_SOCKET   "/run/sluice/agent.sock"
#define TIMEOUT_MS     5000
#define TIMEOUT_MAX_MS 60000

/* Oldest first; a command is known from one of them on. 0.3.0 is where chains begin, and what
 * Antrea and kube-router still write; 0.3.1 differs from it in the wording alone.
 */
static const char *const versions[] = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};

#define NEEDS_CONTAINER 1
#define NEEDS_NETNS     2
#define NEEDS_IFNAME    4
#define NEEDS_PATH      8

static const struct command {
	const char *name;
	unsigned since; /* index into versions */
	unsigned needs;
} commands[] = {
	[CNI_ADD] = {"ADD", 0, NEEDS_CONTAINER | NEEDS_NETNS | NEEDS_IFNAME | NEEDS_PATH},
	[CNI_DEL] = {"DEL", 0, NEEDS_CONTAINER | NEEDS_IFNAME | NEEDS_PATH},
	[CNI_CHECK] = {"CHECK", 2, NEEDS_CONTAINER | NEEDS_NETNS | NEEDS_IFNAME | NEEDS_PATH},
	[CNI_GC] = {"GC", 4, NEEDS_PATH},
	[CNI_STATUS] = {"STATUS", 4, NEEDS_PATH},
	[CNI_VERSION] = {"VERSION", 0, 0},
};
_Static_assert(ARRAY_SIZE(commands) == CNI_N_, "every command is described");

/* What came from outside may be no UTF-8, or cut in the middle of a character; JSON takes neither.
 */
static void only_ascii(char *text)
{
	for (; *text; text++) {
		if (!isascii((unsigned char)*text))
			*text = '?';
	}
}

int cni_fail(struct cni_error *error, enum cni_code code, const char *details, const char *format,
	     ...)
{
	va_list args;

	error->code = code;
	va_start(args, format);
	vsnprintf(error->msg, sizeof(error->msg), format, args);
	va_end(args);
	snprintf(error->details, sizeof(error->details), "%s", details ?: "");
	only_ascii(error->msg);
	only_ascii(error->details);
	return -EINVAL;
}

/* ---- environment ---- */

/* A letter or digit, then those and "_", ".", "-": the id of a container, the name of a network.
 * The specification knows no longest one.
 */
static bool is_name(const char *text)
{
	if (!isalnum((unsigned char)text[0]) || strlen(text) > CNI_NAME_MAX)
		return false;
	for (const char *p = text; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("_.-", *p))
			return false;
	}
	return true;
}

/* What Linux takes as an interface's name. */
static bool is_ifname(const char *text)
{
	if (!*text || strlen(text) > 15 || strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
		return false;
	for (const char *p = text; *p; p++) {
		if (*p == '/' || *p == ':' || isspace((unsigned char)*p))
			return false;
	}
	return true;
}

static int check_missing(const struct command *command, const struct cni_env *env, const char *path,
			 struct cni_error *error)
{
	const struct {
		unsigned flag;
		const char *name, *value;
	} all[] = {
		{NEEDS_CONTAINER, "CNI_CONTAINERID", env->container_id},
		{NEEDS_NETNS, "CNI_NETNS", env->netns},
		{NEEDS_IFNAME, "CNI_IFNAME", env->ifname},
		{NEEDS_PATH, "CNI_PATH", path},
	};
	char list[CNI_TEXT_MAX] = "";

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		if (!(command->needs & all[i].flag) || all[i].value[0])
			continue;
		if (list[0])
			strcat(list, ",");
		strcat(list, all[i].name);
	}
	return list[0] ? cni_fail(error, CNI_CODE_ENVIRONMENT, NULL,
				  "required env variables [%.100s] missing", list)
		       : 0;
}

int cni_read_env(const char *(*get)(const char *name), struct cni_env *ret, struct cni_error *error)
{
	const char *name = get("CNI_COMMAND");
	struct cni_env env = {
		.container_id = get("CNI_CONTAINERID") ?: "",
		.netns = get("CNI_NETNS") ?: "",
		.ifname = get("CNI_IFNAME") ?: "",
		.args = get("CNI_ARGS") ?: "",
	};
	unsigned i = 0;
	int r;

	if (!name || !*name)
		return -ENOENT;
	while (i < CNI_N_ && strcmp(commands[i].name, name) != 0)
		i++;
	if (i == CNI_N_)
		return cni_fail(error, CNI_CODE_ENVIRONMENT, NULL, "unknown CNI_COMMAND: %.60s",
				name);
	env.command = i;
	r = check_missing(&commands[i], &env, get("CNI_PATH") ?: "", error);
	if (r < 0)
		return r;
	if (commands[i].needs & NEEDS_CONTAINER && !is_name(env.container_id))
		return cni_fail(error, CNI_CODE_ENVIRONMENT, env.container_id,
				"CNI_CONTAINERID must be of letters, digits, '_', '.' and '-', at "
				"most 128");
	if (commands[i].needs & NEEDS_IFNAME && !is_ifname(env.ifname))
		return cni_fail(error, CNI_CODE_ENVIRONMENT, env.ifname,
				"CNI_IFNAME is no name of an interface");
	*ret = env;
	return 0;
}

int cni_arg(const char *args, const char *key, char *ret, size_t size)
{
	size_t n = strlen(key), len;
	const char *found = NULL;

	for (const char *p = args; *p; p += strcspn(p, ";"), p += *p == ';') {
		if (strncmp(p, key, n) == 0 && p[n] == '=')
			found = p + n + 1;
	}
	len = found ? strcspn(found, ";") : 0;
	if (len >= size)
		return -EINVAL;
	if (len == 0)
		return 0;
	memcpy(ret, found, len);
	ret[len] = '\0';
	return 1;
}

/* ---- configuration ---- */

static unsigned index_of(const char *version)
{
	unsigned i = 0;

	while (i < ARRAY_SIZE(versions) && strcmp(versions[i], version) != 0)
		i++;
	return i;
}

bool cni_speaks(const char *version)
{
	return index_of(version) < ARRAY_SIZE(versions);
}

static int check_version(struct cni_config *c, enum cni_command command, struct cni_error *error)
{
	unsigned i = index_of(c->version);
	char details[CNI_TEXT_MAX];

	if (i == ARRAY_SIZE(versions)) {
		snprintf(details, sizeof(details),
			 "config is \"%.40s\", sluice-cni speaks 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
			 c->version);
		c->version = NEWEST;
		return cni_fail(error, CNI_CODE_VERSION, details, "incompatible CNI versions");
	}
	if (i < commands[command].since)
		return cni_fail(error, CNI_CODE_VERSION, NULL, "config version does not allow %s",
				commands[command].name);
	return 0;
}

/* What every plugin is told. */
static int read_common(struct cni_config *c, enum cni_command command, struct cni_error *error)
{
	if (json_unpack(c->json, "{s?s s?s s?o}", "cniVersion", &c->version, "name", &c->name,
			"prevResult", &c->prev_result) < 0)
		return cni_fail(error, CNI_CODE_DECODE, NULL,
				"cniVersion and name must be strings");
	if (check_version(c, command, error) < 0)
		return -EINVAL;
	if (!is_name(c->name))
		return cni_fail(error, CNI_CODE_CONFIG, c->name,
				"the network needs a name of letters, digits, '_', '.' and '-', at "
				"most 128");
	if (json_is_null(c->prev_result))
		c->prev_result = NULL;
	if (c->prev_result && !json_is_object(c->prev_result))
		return cni_fail(error, CNI_CODE_DECODE, NULL, "prevResult is no object");
	return 0;
}

static int read_timeout(const char *text, unsigned *ret, struct cni_error *error)
{
	uint64_t ms = TIMEOUT_MS;

	if (text && (num_parse_duration_ms(text, &ms) < 0 || ms == 0 || ms > TIMEOUT_MAX_MS))
		return cni_fail(error, CNI_CODE_CONFIG, text,
				"timeout must be a duration like 5s, at most 60s");
	*ret = (unsigned)ms;
	return 0;
}

/* What this one is told. */
static int read_own(struct cni_config *c, struct cni_error *error)
{
	const char *timeout = NULL, *agent_socket = AGENT_SOCKET, *ns = "";

	if (json_unpack(c->json, "{s?s s?s s?s}", "agentSocket", &agent_socket, "defaultNamespace",
			&ns, "timeout", &timeout) < 0)
		return cni_fail(error, CNI_CODE_CONFIG, NULL,
				"agentSocket, defaultNamespace and timeout must be strings");
	if (agent_socket[0] != '/')
		return cni_fail(error, CNI_CODE_CONFIG, agent_socket,
				"agentSocket must be an absolute path");
	c->agent_socket = agent_socket;
	c->default_namespace = ns;
	return read_timeout(timeout, &c->timeout_ms, error);
}

int cni_read_config(const char *text, size_t len, enum cni_command command, struct cni_config *ret,
		    struct cni_error *error)
{
	json_error_t where;
	int r;

	*ret = (struct cni_config){.json = json_loadb(text, len, 0, &where),
				   .version = "0.1.0", /* what a missing one means */
				   .name = "",
				   .agent_socket = AGENT_SOCKET,
				   .default_namespace = "",
				   .timeout_ms = TIMEOUT_MS};
	if (!json_is_object(ret->json)) {
		ret->version = NEWEST;
		return cni_fail(error, CNI_CODE_DECODE, ret->json ? NULL : where.text,
				"the configuration on standard input is no JSON object");
	}
	r = read_common(ret, command, error);
	if (command == CNI_DEL) {
		read_own(ret, error);
		return 0; /* what is wrong kept the pod from being made; it has to go all the same
			   */
	}
	return r == 0 ? read_own(ret, error) : r;
}

void cni_config_done(struct cni_config *config)
{
	json_decref(config->json);
	*config = (struct cni_config){0};
}

int cni_valid_containers(const struct cni_config *config, json_t **ret, struct cni_error *error)
{
	json_t *list = json_object_get(config->json, "cni.dev/valid-attachments"), *ids, *one;
	size_t i;

	if (!list || json_is_null(list))
		return -ENOENT;
	ids = json_array();
	json_array_foreach(list, i, one)
	{
		json_t *id = json_object_get(one, "containerID");

		if (!json_is_string(id) || json_array_append(ids, id) < 0)
			break;
	}
	if (!ids || !json_is_array(list) || json_array_size(ids) < json_array_size(list)) {
		json_decref(ids);
		return cni_fail(error, CNI_CODE_CONFIG, NULL,
				"cni.dev/valid-attachments must be an array of objects with "
				"containerID");
	}
	*ret = ids;
	return 0;
}

/* ---- answers ---- */

char *cni_print_result(const struct cni_config *config)
{
	json_t *result = json_copy(config->prev_result);
	char *text = NULL;

	if (result && json_object_set_new(result, "cniVersion", json_string(config->version)) == 0)
		text = json_dumps(result, JSON_INDENT(2));
	json_decref(result);
	return text;
}

char *cni_print_version(const char *text, size_t len)
{
	json_t *asked = json_loadb(text, len, 0, NULL), *answer = json_object();
	json_t *version = json_object_get(asked, "cniVersion"), *list = json_array();
	char *ret = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(versions); i++)
		json_array_append_new(list, json_string(versions[i]));
	if (json_is_string(version))
		json_object_set(answer, "cniVersion", version);
	else
		json_object_set_new(answer, "cniVersion", json_string(NEWEST));
	if (json_object_set_new(answer, "supportedVersions", list) == 0)
		ret = json_dumps(answer, JSON_COMPACT);
	json_decref(answer);
	json_decref(asked);
	return ret;
}

char *cni_print_error(const char *version, const struct cni_error *error)
{
	json_t *answer = json_pack("{s:s, s:i, s:s}", "cniVersion", version ?: NEWEST, "code",
				   (int)error->code, "msg", error->msg);
	char *text;

	if (answer && error->details[0])
		json_object_set_new(answer, "details", json_string(error->details));
	text = json_dumps(answer, JSON_INDENT(2));
	json_decref(answer);
	return text;
}
