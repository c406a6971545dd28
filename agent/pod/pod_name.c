/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/pod_name.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* Of any length: Kubernetes lets a label of a subdomain be as long as the whole. */
static bool label(const char *p, size_t n)
{
	if (n == 0 || !is_alnum(p[0]) || !is_alnum(p[n - 1]))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!is_alnum(p[i]) && p[i] != '-')
			return false;
	}
	return true;
}

bool pod_label_is_valid(const char *text)
{
	return strlen(text) <= POD_LABEL_MAX && label(text, strlen(text));
}

bool pod_subdomain_is_valid(const char *text)
{
	if (strlen(text) > POD_NAME_MAX)
		return false;
	for (;;) {
		size_t n = strcspn(text, ".");

		if (!label(text, n))
			return false;
		if (text[n] == '\0')
			return true;
		text += n + 1;
	}
}

int pod_name_parse(const char *text, struct pod_name *ret)
{
	const char *slash = strchr(text, '/');
	struct pod_name p = {0};
	size_t n;

	if (!slash)
		return -EINVAL;
	n = (size_t)(slash - text);
	if (n > POD_LABEL_MAX || !label(text, n) || !pod_subdomain_is_valid(slash + 1))
		return -EINVAL;
	memcpy(p.ns, text, n);
	memcpy(p.name, slash + 1, strlen(slash + 1) + 1);
	*ret = p;
	return 0;
}
