/* SPDX-License-Identifier: Apache-2.0 */
#include "init/value.h"

#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/addr.h"
#include "base/num.h"
#include "base/owned.h"
#include "pod/pod_name.h"

#define GROUPS_MAX 64 /* Istio's own bound */
#define V4_BITS    96 /* of a mapped address in front of the IPv4 one */

static bool is_one_of(const char *text, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(text, words[i]) == 0)
			return true;
	}
	return false;
}

/* ---- lists ---- */

bool value_cut_item(const char **list, char ret[static VALUE_ITEM_MAX])
{
	while (**list) {
		size_t all = strcspn(*list, ","), n = all, skip = 0;
		const char *item = *list;

		*list += all + (item[all] == ',');
		while (skip < n && item[skip] == ' ')
			skip++;
		while (n > skip && item[n - 1] == ' ')
			n--;
		n -= skip;
		if (n == 0)
			continue;
		if (n >= VALUE_ITEM_MAX)
			n = VALUE_ITEM_MAX - 1;
		memcpy(ret, item + skip, n);
		ret[n] = '\0';
		return true;
	}
	return false;
}

/* The number of items; SIZE_MAX when one of them is not as it should be. */
static size_t count(const char *list, bool is_good(const char *item))
{
	char item[VALUE_ITEM_MAX];
	size_t n = 0;

	while (value_cut_item(&list, item)) {
		if (!is_good(item))
			return SIZE_MAX;
		n++;
	}
	return n;
}

/* ---- items ---- */

static bool is_port(const char *text)
{
	uint16_t port;

	return num_parse_port(text, &port) == 0;
}

static bool is_cidr(const char *text)
{
	struct cidr net;

	return cidr_parse(text, &net) == 0;
}

/* A number, or a name as Debian's useradd(8) allows it and a few more do. */
static bool is_id(const char *text)
{
	size_t n = strlen(text);

	return n < 64 && text[0] != '-' &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
		       n;
}

static bool is_group(const char *text)
{
	return strcmp(text, "*") == 0 || is_id(text);
}

/* A trailing '+' is iptables' wildcard. */
static bool is_interface(const char *text)
{
	return strlen(text) < IFNAMSIZ && !strpbrk(text, "/: \t");
}

static bool is_number(const char *text)
{
	bool hex = strncmp(text, "0x", 2) == 0 || strncmp(text, "0X", 2) == 0;
	char *end;

	if (!isxdigit((unsigned char)text[hex ? 2 : 0]))
		return false;
	errno = 0;
	return strtoull(text, &end, hex ? 16 : 10) <= UINT32_MAX && errno == 0 && *end == '\0';
}

static bool cut_unit(const char **p)
{
	static const char *const units[] = {"ns", "us", "\u00b5s", "\u03bcs", "ms", "s", "m", "h"};

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (strncmp(*p, units[i], strlen(units[i])) == 0) {
			*p += strlen(units[i]);
			return true;
		}
	}
	return false;
}

/* Go's time.ParseDuration; what it means nobody here asks. */
static bool is_duration(const char *text)
{
	const char *p = text + (*text == '-' || *text == '+');

	if (strcmp(p, "0") == 0)
		return true;
	if (*p == '\0')
		return false;
	while (*p) {
		size_t whole = strspn(p, "0123456789"), part = 0;

		p += whole;
		if (*p == '.') {
			part = strspn(p + 1, "0123456789");
			p += 1 + part;
		}
		if (whole + part == 0 || !cut_unit(&p))
			return false;
	}
	return true;
}

static bool is_loopback(const char *text)
{
	struct cidr net;

	return strchr(text, '/') && cidr_parse(text, &net) == 0 && cidr_is_v4(&net) &&
	       net.ip[12] == 127 && net.bits >= V4_BITS + 8;
}

/* "debug", "default:info,validation:debug" */
static bool is_scope_level(const char *text)
{
	static const char *const levels[] = {"debug", "info", "warn", "error", "fatal", "none"};
	const char *colon = strchr(text, ':');

	return is_one_of(colon ? colon + 1 : text, levels, ARRAY_SIZE(levels));
}

/* ---- booleans ---- */

static const char *const true_words[] = {"1", "t", "T", "TRUE", "true", "True"};
static const char *const false_words[] = {"0", "f", "F", "FALSE", "false", "False"};

bool value_is_true(const char *text)
{
	return is_one_of(text, true_words, ARRAY_SIZE(true_words));
}

bool value_is_bool(const char *text)
{
	return value_is_true(text) || is_one_of(text, false_words, ARRAY_SIZE(false_words));
}

/* ---- values ---- */

static bool is_all(const char *text)
{
	return strcmp(text, "*") == 0;
}

static bool is_good(enum value_kind kind, const char *text)
{
	struct pod_name pod;
	uint64_t ms;

	switch (kind) {
	case VALUE_TEXT:
		return true;
	case VALUE_BOOL:
		return value_is_bool(text);
	case VALUE_PORT:
		return is_port(text);
	case VALUE_PORT_OR_ZERO:
		return strcmp(text, "0") == 0 || is_port(text);
	case VALUE_NUMBER:
		return is_number(text);
	case VALUE_DURATION:
		return is_duration(text);
	case VALUE_OWN_DURATION:
		return num_parse_duration_ms(text, &ms) == 0;
	case VALUE_INBOUND_MODE:
		return !*text || strcmp(text, "REDIRECT") == 0 || strcmp(text, "TPROXY") == 0;
	case VALUE_IDS:
		return count(text, is_id) != SIZE_MAX;
	case VALUE_GROUPS:
		return count(text, is_group) <= GROUPS_MAX;
	case VALUE_PORTS_OR_ALL:
		return is_all(text) || count(text, is_port) != SIZE_MAX;
	case VALUE_PORTS:
		return count(text, is_port) != SIZE_MAX;
	case VALUE_CIDRS_OR_ALL:
		return is_all(text) || count(text, is_cidr) != SIZE_MAX;
	case VALUE_CIDRS:
		return count(text, is_cidr) != SIZE_MAX;
	case VALUE_LOOPBACK_CIDR:
		return is_loopback(text);
	case VALUE_INTERFACES:
		return count(text, is_interface) != SIZE_MAX;
	case VALUE_IPTABLES_BINARY:
		return !*text || strcmp(text, "legacy") == 0 || strcmp(text, "nft") == 0;
	case VALUE_LOG_LEVEL:
		return *text && count(text, is_scope_level) != SIZE_MAX;
	case VALUE_POD:
		return !*text || pod_name_parse(text, &pod) == 0;
	case VALUE_NAME:
		return !*text || pod_subdomain_is_valid(text);
	case VALUE_PATH:
		return text[0] == '/';
	case VALUE_KIND_N_:
		break;
	}
	return false;
}

const char *value_complaint(enum value_kind kind, const char *text)
{
	static const char *const wants[] = {
		[VALUE_TEXT] = "give a text",
		[VALUE_BOOL] = "give true or false",
		[VALUE_PORT] = "give a port, 1 to 65535",
		[VALUE_PORT_OR_ZERO] = "give a port, 0 to 65535",
		[VALUE_NUMBER] = "give a number of 32 bits, decimal or 0x...",
		[VALUE_DURATION] = "give a duration like 5s or 1m30s",
		[VALUE_OWN_DURATION] = "give a duration like 30s, 500ms or 1m30s",
		[VALUE_INBOUND_MODE] = "give REDIRECT or TPROXY",
		[VALUE_IDS] = "give users or groups, numbers or names, with commas between",
		[VALUE_GROUPS] = "give at most 64 groups with commas between, or *",
		[VALUE_PORTS] = "give ports, 1 to 65535, with commas between",
		[VALUE_PORTS_OR_ALL] = "give ports, 1 to 65535, with commas between, or *",
		[VALUE_CIDRS] = "give networks like 10.0.0.0/8, with commas between",
		[VALUE_CIDRS_OR_ALL] = "give networks like 10.0.0.0/8, with commas between, or *",
		[VALUE_LOOPBACK_CIDR] = "give a network within 127.0.0.0/8",
		[VALUE_INTERFACES] =
			"give names of interfaces, up to 15 bytes, with commas between",
		[VALUE_IPTABLES_BINARY] = "give legacy or nft",
		[VALUE_LOG_LEVEL] = "give debug, info, warn, error or none, like default:info",
		[VALUE_POD] = "give NAMESPACE/NAME as Kubernetes allows them",
		[VALUE_NAME] = "give a name as Kubernetes allows it",
		[VALUE_PATH] = "give an absolute path",
	};
	_Static_assert(ARRAY_SIZE(wants) == VALUE_KIND_N_, "every kind says what it wants");

	return is_good(kind, text) ? NULL : wants[kind];
}
