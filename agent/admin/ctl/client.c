/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/ctl/ctl.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"

#define RESPONSE_MAX (256UL << 20)

struct response {
	char *text;
	size_t len;
};

static void close_curl(CURL **curl)
{
	curl_easy_cleanup(*curl);
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
	struct response *response = arg;
	char *text;

	n *= size;
	if (n > RESPONSE_MAX - response->len)
		return 0;
	text = realloc(response->text, response->len + n + 1);
	if (!text)
		return 0;
	memcpy(text + response->len, data, n);
	response->len += n;
	text[response->len] = '\0';
	response->text = text;
	return n;
}

static void set_options(CURL *curl, const struct ctl *ctl, const char *url,
			struct response *response)
{
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, ctl->admin);
	curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* also none from the environment */
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, 5000L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 30000L);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, response);
}

static int say_unreachable(const struct ctl *ctl, CURL *curl, CURLcode code)
{
	long os_errno = 0;

	if (code != CURLE_COULDNT_CONNECT)
		return ctl_fail("no good answer from the agent at '%s': %s", ctl->admin,
				curl_easy_strerror(code));
	curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &os_errno);
	if (os_errno == EACCES || os_errno == EPERM)
		return ctl_fail("may not connect to '%s': run this as root", ctl->admin);
	return ctl_fail("cannot reach the agent at '%s': is sluice-agent running? "
			"(--admin names another socket)",
			ctl->admin);
}

/* The body of an error is a text of one line. */
static int say_status(const struct ctl *ctl, const char *path, long status, const char *text)
{
	int path_len = (int)strcspn(path, "?"), len = (int)strcspn(text, "\r\n");

	if (status == 404)
		return ctl_fail("the agent at '%s' has no '%.*s': ask an agent of the other role "
				"(pods are a node's)",
				ctl->admin, path_len, path);
	return ctl_fail("the agent at '%s' answered %ld to '%.*s': %.*s", ctl->admin, status,
			path_len, path, len < 300 ? len : 300, text);
}

static int perform(const struct ctl *ctl, const char *path, const char *url,
		   struct response *response)
{
	OWNED(close_curl) CURL *curl = curl_easy_init();
	long status = 0;
	CURLcode code;

	if (!curl)
		return ctl_fail("out of memory");
	set_options(curl, ctl, url, response);
	code = curl_easy_perform(curl);
	if (code != CURLE_OK)
		return say_unreachable(ctl, curl, code);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200)
		return say_status(ctl, path, status, response->text ?: "");
	return EXIT_DONE;
}

int client_get(const struct ctl *ctl, const char *path, char **ret_text, json_t **ret_json)
{
	struct response response = {0};
	OWNED_MEM char *url = NULL, *text = NULL;
	json_error_t error;
	json_t *json;
	int r;

	if (asprintf(&url, "http://localhost%s", path) < 0) {
		url = NULL;
		return ctl_fail("out of memory");
	}
	r = perform(ctl, path, url, &response);
	text = response.text;
	if (r != EXIT_DONE)
		return r;
	json = json_loads(text ?: "", 0, &error);
	if (!json)
		return ctl_fail("the agent at '%s' sent something that is not JSON: %s", ctl->admin,
				error.text);
	*ret_json = json;
	*ret_text = TAKE_PTR(text);
	return EXIT_DONE;
}

char *client_escape(const char *text)
{
	char *escaped = curl_easy_escape(NULL, text, 0);
	char *copy = escaped ? strdup(escaped) : NULL;

	curl_free(escaped);
	return copy;
}
