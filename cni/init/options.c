/* SPDX-License-Identifier: Apache-2.0 */
#include "init/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "base/owned.h"
#include "init/value.h"

#define NAME_TEXT_MAX 64

__attribute__((format(printf, 2, 3))) static int wrong(char error[static INIT_ERROR_MAX],
						       const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, INIT_ERROR_MAX, format, args);
	va_end(args);
	return -EINVAL;
}

/* ---- names ---- */

static const char *automatic_name(const struct flag *flag, char buf[static NAME_TEXT_MAX])
{
	size_t i;

	for (i = 0; flag->name[i] && i < NAME_TEXT_MAX - 1; i++)
		buf[i] = flag->name[i] == '-' ? '_' : (char)toupper((unsigned char)flag->name[i]);
	buf[i] = '\0';
	return buf;
}

const char *init_flag_name(const struct init_options *o, enum init_flag flag, char buf[static 64])
{
	const char *entry = o->entry[flag];

	if (o->source[flag] == INIT_BY_ENVIRONMENT)
		snprintf(buf, NAME_TEXT_MAX, "%.*s", (int)strcspn(entry, "="), entry);
	else if (init_flags[flag].name)
		snprintf(buf, NAME_TEXT_MAX, "--%s", init_flags[flag].name);
	else
		snprintf(buf, NAME_TEXT_MAX, "%s", init_flags[flag].names[0]);
	return buf;
}

static const struct flag *find_letter(char letter)
{
	for (size_t i = 0; i < INIT_FLAG_N_; i++) {
		if (init_flags[i].letter && init_flags[i].letter == letter)
			return &init_flags[i];
	}
	return NULL;
}

static const struct flag *find_name(const char *name, size_t len)
{
	for (size_t i = 0; i < INIT_FLAG_N_; i++) {
		if (init_flags[i].name && strlen(init_flags[i].name) == len &&
		    strncmp(init_flags[i].name, name, len) == 0)
			return &init_flags[i];
	}
	return NULL;
}

/* "NAME=value", or NULL. */
static const char *find_entry(char *const *environment, const char *name)
{
	size_t len = strlen(name);

	for (; *environment; environment++) {
		if (strncmp(*environment, name, len) == 0 && (*environment)[len] == '=')
			return *environment;
	}
	return NULL;
}

static const char *value_of(const char *entry)
{
	return entry ? strchr(entry, '=') + 1 : "";
}

/* ---- from where values come ---- */

/* Only texts and lists can be empty, as Istio has it: others stay at their default then. */
static const char *from_environment(const struct flag *flag, char *const *environment)
{
	char buf[NAME_TEXT_MAX];
	const char *entry = NULL;

	if (flag->automatic)
		entry = find_entry(environment, automatic_name(flag, buf));
	for (size_t i = 0; i < FLAG_NAMES_MAX && flag->names[i] && !entry; i++)
		entry = find_entry(environment, flag->names[i]);
	return !*value_of(entry) && value_complaint(flag->kind, "") ? NULL : entry;
}

static void start(struct init_options *o, char *const *environment)
{
	*o = (struct init_options){0};
	for (size_t i = 0; i < INIT_FLAG_N_; i++) {
		const char *entry = from_environment(&init_flags[i], environment);

		o->value[i] = entry ? value_of(entry) : init_flags[i].fallback;
		o->source[i] = entry ? INIT_BY_ENVIRONMENT : INIT_BY_DEFAULT;
		o->entry[i] = entry;
	}
}

/* What is left of the command line. */
struct arguments {
	int n;
	char *const *v;
};

static const char *next(struct arguments *args)
{
	args->n--;
	return *args->v++;
}

static void set(struct init_options *o, const struct flag *flag, const char *text)
{
	o->value[flag - init_flags] = text;
	o->source[flag - init_flags] = INIT_BY_ARGUMENT;
}

/* `text` is what followed the flag in the same argument; NULL: nothing. */
static int set_or_take(struct init_options *o, struct arguments *args, const struct flag *flag,
		       const char *text, char error[static INIT_ERROR_MAX])
{
	if (!text && flag->kind == VALUE_BOOL)
		text = "true";
	if (!text && args->n == 0)
		return wrong(error, "--%s: give a value", flag->name);
	set(o, flag, text ?: next(args));
	return 0;
}

static int take_long(struct init_options *o, struct arguments *args, const char *name,
		     char error[static INIT_ERROR_MAX])
{
	const char *eq = strchr(name, '=');
	size_t len = eq ? (size_t)(eq - name) : strlen(name);
	const struct flag *flag = find_name(name, len);

	if (!flag)
		return wrong(error, "there is no flag --%.*s: --help lists those that there are",
			     (int)len, name);
	return set_or_take(o, args, flag, eq ? eq + 1 : NULL, error);
}

/* "-n", "-p15001", "-p=15001", "-p 15001", "-np15001" */
static int take_letters(struct init_options *o, struct arguments *args, const char *letters,
			char error[static INIT_ERROR_MAX])
{
	for (; *letters; letters++) {
		const struct flag *flag = find_letter(*letters);

		if (!flag)
			return wrong(error,
				     "there is no flag -%c: --help lists those that there are",
				     *letters);
		if (letters[1] == '=')
			return set_or_take(o, args, flag, letters + 2, error);
		if (flag->kind != VALUE_BOOL)
			return set_or_take(o, args, flag, letters[1] ? letters + 1 : NULL, error);
		set(o, flag, "true");
	}
	return 0;
}

static int take(struct init_options *o, struct arguments *args, char error[static INIT_ERROR_MAX])
{
	const char *arg = next(args);

	if (strncmp(arg, "--", 2) == 0 && arg[2])
		return take_long(o, args, arg + 2, error);
	if (arg[0] == '-' && arg[1] && arg[1] != '-')
		return take_letters(o, args, arg + 1, error);
	return wrong(error,
		     "'%s' belongs to no flag: put a * in quotes, and write --FLAG=false for what "
		     "is true or false",
		     arg);
}

static int take_all(struct init_options *o, struct arguments args,
		    char error[static INIT_ERROR_MAX])
{
	int r = 0;

	if (args.n > 0 && strcmp(args.v[0], "istio-iptables") == 0)
		next(&args);
	while (args.n > 0 && r == 0)
		r = take(o, &args, error);
	return r;
}

/* ---- looking at them ---- */

static int check_values(const struct init_options *o, char error[static INIT_ERROR_MAX])
{
	for (size_t i = 0; i < INIT_FLAG_N_; i++) {
		const char *why = value_complaint(init_flags[i].kind, o->value[i]);
		char buf[NAME_TEXT_MAX];

		if (why)
			return wrong(error, "%s '%.128s': %s",
				     init_flag_name(o, (enum init_flag)i, buf), o->value[i], why);
	}
	if (init_is_on(o, INIT_NATIVE_NFTABLES) && init_is_set(o, INIT_FORCE_IPTABLES_BINARY))
		return wrong(error, "--native-nftables and --force-iptables-binary: give one");
	return 0;
}

static int find_pod(struct init_options *o, char *const *environment,
		    char error[static INIT_ERROR_MAX])
{
	const char *ns = value_of(find_entry(environment, "POD_NAMESPACE"));
	const char *name = value_of(find_entry(environment, "POD_NAME"));
	char text[sizeof(struct pod_name) + 1];

	if (*o->value[INIT_POD])
		return pod_name_parse(o->value[INIT_POD], &o->pod);
	if (!*ns || !*name)
		return 0;
	if ((size_t)snprintf(text, sizeof(text), "%s/%s", ns, name) >= sizeof(text) ||
	    pod_name_parse(text, &o->pod) < 0)
		return wrong(error,
			     "POD_NAMESPACE and POD_NAME are '%.64s' and '%.253s': take "
			     "metadata.namespace and metadata.name by the downward API",
			     ns, name);
	return 0;
}

int init_options_parse(int argc, char *const *argv, char *const *environment,
		       struct init_options *ret, char error[static INIT_ERROR_MAX])
{
	struct init_options o;
	int r;

	start(&o, environment);
	r = take_all(&o, (struct arguments){argc > 0 ? argc - 1 : 0, argv + 1}, error);
	if (r == 0)
		r = check_values(&o, error);
	if (r == 0)
		r = find_pod(&o, environment, error);
	if (r < 0)
		return r;
	if (!*o.pod.name && !init_is_on(&o, INIT_DRY_RUN) && !init_is_on(&o, INIT_HELP))
		return wrong(error, "say which pod this is: --pod NAMESPACE/NAME, or POD_NAMESPACE "
				    "and POD_NAME from metadata.namespace and metadata.name by the "
				    "downward API");
	*ret = o;
	return 0;
}

/* ---- what others ask ---- */

bool init_is_on(const struct init_options *o, enum init_flag flag)
{
	return value_is_true(o->value[flag]);
}

bool init_is_set(const struct init_options *o, enum init_flag flag)
{
	return o->source[flag] != INIT_BY_DEFAULT && *o->value[flag];
}

uint64_t init_agent_timeout_ms(const struct init_options *o)
{
	uint64_t ms = 0;

	num_parse_duration_ms(o->value[INIT_AGENT_TIMEOUT], &ms);
	return ms;
}

/* The default scope's, or the one that has no scope. */
enum log_level init_log_level(const struct init_options *o)
{
	const char *list = o->value[INIT_LOG_OUTPUT_LEVEL];
	enum log_level level = LOG_LEVEL_INFO;
	char item[VALUE_ITEM_MAX];

	while (value_cut_item(&list, item)) {
		char *colon = strchr(item, ':');
		const char *word = colon ? colon + 1 : item;

		if (colon && strncmp(item, "default:", strlen("default:")) != 0)
			continue;
		level = strcmp(word, "debug") == 0  ? LOG_LEVEL_DEBUG
			: strcmp(word, "info") == 0 ? LOG_LEVEL_INFO
			: strcmp(word, "warn") == 0 ? LOG_LEVEL_WARNING
						    : LOG_LEVEL_ERROR;
	}
	return level;
}
