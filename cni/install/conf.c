/* SPDX-License-Identifier: Apache-2.0 */
#include "install/conf.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "install/json_text.h"
#include "plugin/cni.h"

#define LIST_VERSION "0.3.1" /* of a chain made of what is older than chains */

/* Runtimes are written in Go, whose numbers and strings have more room than jansson's defaults. */
#define READ_FLAGS (JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL)

static void free_json(json_t **j)
{
	json_decref(*j);
}

static json_t *load(struct span text)
{
	return json_loadb((const char *)text.p, text.len, READ_FLAGS, NULL);
}

static bool is_ours(const json_t *plugin)
{
	const char *type = json_string_value(json_object_get(plugin, "type"));

	return type && strcmp(type, CONF_TYPE) == 0;
}

/* ---- judging ---- */

/* What follows the last dot, as filepath.Ext() has it. */
static bool has_extension(const char *name, const char *extension)
{
	const char *dot = strrchr(name, '.');

	return dot && strcmp(dot, extension) == 0;
}

static bool is_list_name(const char *name)
{
	return has_extension(name, ".conflist");
}

bool conf_is_candidate(const char *name)
{
	return is_list_name(name) || has_extension(name, ".conf") || has_extension(name, ".json");
}

/* Not there, null, or a string: what Go reads into a string. */
static bool is_text(const json_t *value)
{
	return !value || json_is_null(value) || json_is_string(value);
}

static bool is_flag(const json_t *value)
{
	const char *word = json_string_value(value);

	return !value || json_is_boolean(value) ||
	       (word && (strcasecmp(word, "true") == 0 || strcasecmp(word, "false") == 0));
}

static bool is_plugin(const json_t *plugin)
{
	const char *type = json_string_value(json_object_get(plugin, "type"));

	return type && *type && is_text(json_object_get(plugin, "name")) &&
	       is_text(json_object_get(plugin, "cniVersion"));
}

static bool has_plugins_only(const json_t *plugins)
{
	for (size_t i = 0; i < json_array_size(plugins); i++) {
		if (!is_plugin(json_array_get(plugins, i)))
			return false;
	}
	return true;
}

static bool is_spoken(const json_t *version)
{
	return json_is_string(version) && cni_speaks(json_string_value(version));
}

/* The runtime takes the highest of all that are listed and that it knows. */
static bool speaks_any(const json_t *list)
{
	const json_t *versions = json_object_get(list, "cniVersions");

	for (size_t i = 0; i < json_array_size(versions); i++) {
		if (is_spoken(json_array_get(versions, i)))
			return true;
	}
	return is_spoken(json_object_get(list, "cniVersion"));
}

static enum conf_kind unusable(const char *why, const char **ret_why)
{
	*ret_why = why;
	return CONF_UNUSABLE;
}

static enum conf_kind unchained(const char *why, const char **ret_why)
{
	*ret_why = why;
	return CONF_UNCHAINED;
}

static enum conf_kind judge_list(const json_t *list, const char **ret_why)
{
	const json_t *plugins = json_object_get(list, "plugins");
	const json_t *version = json_object_get(list, "cniVersion");

	if (!json_is_string(json_object_get(list, "name")))
		return unusable("it has no name", ret_why);
	if (version && !json_is_string(version))
		return unusable("cniVersion is no string", ret_why);
	if (!is_flag(json_object_get(list, "disableCheck")) ||
	    !is_flag(json_object_get(list, "disableGC")) ||
	    !is_flag(json_object_get(list, "loadOnlyInlinedPlugins")))
		return unusable("a flag is neither true nor false", ret_why);
	if (!plugins)
		return unchained("its plugins come from a folder of its name, where sluice-cni "
				 "cannot be made the last: write them into the list itself",
				 ret_why);
	if (!has_plugins_only(plugins))
		return unusable("one of its plugins has no type", ret_why);
	if (json_array_size(plugins) == 0)
		return unusable("it lists no plugins", ret_why);
	if (json_array_size(plugins) == 1 && is_ours(json_array_get(plugins, 0)))
		return unusable("it lists sluice-cni alone, which makes no network", ret_why);
	return speaks_any(list) ? CONF_LIST
				: unchained("its cniVersion is none that sluice-cni speaks: set "
					    "one of 0.3.1, 0.4.0, 1.0.0, 1.1.0",
					    ret_why);
}

static enum conf_kind judge_single(const json_t *conf, const char **ret_why)
{
	if (!is_plugin(conf))
		return unusable(json_object_get(conf, "plugins")
					? "it is a list: its name has to end in .conflist"
					: "it has no type",
				ret_why);
	if (!json_is_string(json_object_get(conf, "name")))
		return unusable("it has no name", ret_why);
	if (is_ours(conf))
		return unusable("it is sluice-cni alone, which makes no network", ret_why);
	return CONF_SINGLE;
}

enum conf_kind conf_judge(const char *name, struct span text, const char **ret_why)
{
	OWNED(free_json) json_t *json = NULL;

	if (!conf_is_candidate(name))
		return CONF_OTHER;
	json = load(text);
	if (!json_is_object(json))
		return unusable("it is no JSON object", ret_why);
	return is_list_name(name) ? judge_list(json, ret_why) : judge_single(json, ret_why);
}

bool conf_has_entry(struct span list)
{
	OWNED(free_json) json_t *json = load(list);
	const json_t *plugins = json_object_get(json, "plugins");

	for (size_t i = 0; i < json_array_size(plugins); i++) {
		if (is_ours(json_array_get(plugins, i)))
			return true;
	}
	return false;
}

/* ---- changing ---- */

char *conf_entry(const char *agent_socket, const char *timeout)
{
	OWNED(free_json)
	json_t *entry = json_pack("{s:s s:s s:s}", "type", CONF_TYPE, "agentSocket", agent_socket,
				  "timeout", timeout);

	return entry ? json_dumps(entry, JSON_COMPACT) : NULL;
}

/* Where the items of "plugins" are. */
struct place {
	struct span before; /* the space in front of it */
	struct span item;
};

static struct span between(const uint8_t *from, const uint8_t *to)
{
	return (struct span){from, (size_t)(to - from)};
}

/* The place of item `index`. */
static bool find_item(struct span list, size_t index, struct place *ret)
{
	struct span rest, item;
	const uint8_t *mark;

	if (!json_text_member(list, "plugins", &rest))
		return false;
	for (size_t i = 0;; i++) {
		while (rest.len > 0 && rest.p[0] != '[' && rest.p[0] != ',') {
			struct span space;

			span_cut(&rest, 1, &space);
		}
		mark = rest.p;
		if (!json_text_item(&rest, &item))
			return false;
		if (i == index) {
			*ret = (struct place){between(mark + 1, item.p), item};
			return true;
		}
	}
}

/* The text with `cut`, which is a part of it, replaced by three pieces. NULL when out of memory. */
static char *replace(struct span text, struct span cut, const struct span with[3])
{
	struct span head = between(text.p, cut.p);
	struct span tail = between(cut.p + cut.len, text.p + text.len);
	const struct span all[] = {head, with[0], with[1], with[2], tail};
	size_t n = 0;
	char *ret;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		n += all[i].len;
	ret = malloc(n + 1);
	n = 0;
	for (size_t i = 0; ret && i < ARRAY_SIZE(all); i++) {
		if (all[i].len > 0)
			memcpy(ret + n, all[i].p, all[i].len);
		n += all[i].len;
	}
	if (ret)
		ret[n] = '\0';
	return ret;
}

/* An item goes with the comma and the space that joined it to the one before; the first one with
 * those that join it to the next.
 */
static int remove_item(struct span list, size_t index, char **ret)
{
	static const struct span nothing[3];
	struct place at, next, prev;
	struct span cut;

	if (!find_item(list, index, &at))
		return -EBADMSG;
	cut = at.item;
	if (index > 0 && find_item(list, index - 1, &prev))
		cut = between(prev.item.p + prev.item.len, at.item.p + at.item.len);
	else if (find_item(list, 1, &next))
		cut = between(at.item.p, next.item.p);
	*ret = replace(list, cut, nothing);
	return *ret ? 0 : -ENOMEM;
}

/* Behind the last one, set off as that is. */
static int append_item(struct span list, size_t n, const char *entry, char **ret)
{
	struct place last;
	struct span with[3];

	if (n == 0 || !find_item(list, n - 1, &last))
		return -EBADMSG;
	with[0] = span_of(",");
	with[1] = last.before;
	with[2] = span_of(entry);
	*ret = replace(list, between(last.item.p + last.item.len, last.item.p + last.item.len),
		       with);
	return *ret ? 0 : -ENOMEM;
}

/* Takes out of `plugins`, and of the text, what is ours. */
static int remove_ours(json_t *plugins, char **text)
{
	for (size_t i = 0; i < json_array_size(plugins);) {
		char *without;
		int r;

		if (!is_ours(json_array_get(plugins, i))) {
			i++;
			continue;
		}
		r = remove_item(span_of(*text), i, &without);
		if (r < 0)
			return r;
		free(*text);
		*text = without;
		json_array_remove(plugins, i);
	}
	return 0;
}

static int append_ours(json_t *plugins, const char *entry, char **text)
{
	json_t *ours = json_loads(entry, READ_FLAGS, NULL);
	size_t n = json_array_size(plugins);
	char *with;
	int r;

	if (json_array_append_new(plugins, ours) < 0)
		return -ENOMEM;
	r = append_item(span_of(*text), n, entry, &with);
	if (r < 0)
		return r;
	free(*text);
	*text = with;
	return 0;
}

/* The text was changed by hand, the tree by jansson: both must say the same. */
static int change(struct span list, const char *entry, char **ret)
{
	OWNED(free_json) json_t *want = load(list), *got = NULL;
	json_t *plugins = json_object_get(want, "plugins");
	OWNED_MEM char *text = NULL;
	int r;

	if (!json_is_array(plugins) || memchr(list.p, '\0', list.len))
		return -EBADMSG;
	text = strndup((const char *)list.p, list.len);
	if (!text)
		return -ENOMEM;
	r = remove_ours(plugins, &text);
	if (r == 0 && entry)
		r = append_ours(plugins, entry, &text);
	if (r < 0)
		return r;
	got = load(span_of(text));
	if (!json_equal(want, got))
		return -EBADMSG;
	*ret = TAKE_PTR(text);
	return 0;
}

int conf_with(struct span list, const char *entry, char **ret)
{
	return change(list, entry, ret);
}

int conf_without(struct span list, char **ret)
{
	return change(list, NULL, ret);
}

static struct span trimmed(struct span text)
{
	while (text.len > 0 && strchr(" \t\r\n", text.p[text.len - 1]))
		text.len--;
	while (text.len > 0 && strchr(" \t\r\n", text.p[0])) {
		struct span space;

		span_cut(&text, 1, &space);
	}
	return text;
}

int conf_to_list(struct span single, const char *entry, char **ret)
{
	OWNED(free_json) json_t *json = load(single), *list = NULL;
	json_t *version = json_object_get(json, "cniVersion");
	OWNED_MEM char *name = NULL;
	char *text;

	if (!json_is_object(json) || memchr(single.p, '\0', single.len))
		return -EBADMSG;
	single = trimmed(single);
	name = json_dumps(json_object_get(json, "name"), JSON_ENCODE_ANY);
	if (!name)
		return -EBADMSG;
	if (asprintf(&text,
		     "{\n  \"cniVersion\": \"%s\",\n  \"name\": %s,\n  \"plugins\": [\n    %.*s,\n"
		     "    %s\n  ]\n}\n",
		     is_spoken(version) ? json_string_value(version) : LIST_VERSION, name,
		     (int)single.len, (const char *)single.p, entry) < 0)
		return -ENOMEM;
	list = load(span_of(text));
	if (!json_equal(json_array_get(json_object_get(list, "plugins"), 0), json)) {
		free(text);
		return -EBADMSG;
	}
	*ret = text;
	return 0;
}
