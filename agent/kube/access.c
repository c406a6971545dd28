/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/access.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/owned.h"
#include "resource/files.h"

#define ACCOUNT       "/var/run/secrets/kubernetes.io/serviceaccount/"
#define TOKEN_KEEP_MS 60000

/* ---- the token ---- */

/* What may stand in a header, alone: a line break in it would be a header of its own. */
static bool is_token(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!isgraph((unsigned char)text[i]))
			return false;
	}
	return len > 0;
}

static const char *token_error(int r)
{
	return r == -EBADMSG ? "it is empty, or holds what no token does" : file_read_str(r);
}

static int read_token(const char *path, char **ret)
{
	OWNED_MEM char *text = NULL;
	size_t len, start = 0;
	int r = file_read(path, ACCESS_TOKEN_MAX, &text, &len);

	if (r < 0)
		return r;
	while (len > 0 && isspace((unsigned char)text[len - 1]))
		len--;
	while (start < len && isspace((unsigned char)text[start]))
		start++;
	if (!is_token(text + start, len - start))
		return -EBADMSG;
	*ret = strndup(text + start, len - start);
	return *ret ? 0 : -ENOMEM;
}

bool access_renew(struct access *access, uint64_t now_ms)
{
	char *token;
	bool changed;
	int r;

	if (!access->token_file)
		return false;
	access->token_read_ms = now_ms;
	r = read_token(access->token_file, &token);
	if (r < 0) {
		if (!access->token_unreadable)
			log_warn(0, "cannot read token '%s', going on with the old one: %s",
				 access->token_file, token_error(r));
		access->token_unreadable = true;
		return false;
	}
	access->token_unreadable = false;
	changed = !access->token || strcmp(token, access->token) != 0;
	free(access->token);
	access->token = token;
	return changed;
}

const char *access_token(struct access *access, uint64_t now_ms)
{
	if (access->token_file && now_ms - access->token_read_ms >= TOKEN_KEEP_MS)
		access_renew(access, now_ms);
	return access->token;
}

/* ---- the server ---- */

static char *url_part(CURLU *url, CURLUPart part)
{
	char *text = NULL;

	return curl_url_get(url, part, &text, CURLU_DEFAULT_PORT) == CURLUE_OK ? text : NULL;
}

static void free_url(CURLU **url)
{
	curl_url_cleanup(*url);
}

static void free_part(char **part)
{
	curl_free(*part);
}

static const char *set_parts(struct access *access, const char *host, const char *port, char *path,
			     const char *name)
{
	size_t len = strlen(path);

	while (len > 0 && path[len - 1] == '/')
		path[--len] = '\0';
	access->server = arena_print(&access->mem, "https://%s:%s", host, port);
	access->base = arena_print(&access->mem, "https://%s:%s%s", name ?: host, port, path);
	if (name)
		access->connect_to = arena_print(&access->mem, "::%s:%s", host, port);
	if (!access->server || !access->base || (name && !access->connect_to))
		return "there is no memory left for it";
	return NULL;
}

const char *access_set_server(struct access *access, const char *text, const char *name)
{
	OWNED(free_url) CURLU *url = curl_url();
	OWNED(free_part) char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL;
	OWNED(free_part) char *user = NULL, *query = NULL;

	if (!url || curl_url_set(url, CURLUPART_URL, text, 0) != CURLUE_OK)
		return "must be a URL like https://192.0.2.1:6443";
	scheme = url_part(url, CURLUPART_SCHEME);
	host = url_part(url, CURLUPART_HOST);
	port = url_part(url, CURLUPART_PORT);
	path = url_part(url, CURLUPART_PATH);
	user = url_part(url, CURLUPART_USER);
	query = url_part(url, CURLUPART_QUERY);
	if (!scheme || strcmp(scheme, "https") != 0)
		return "must begin with https://: the registry must not come from just anybody";
	if (user || query)
		return "must have neither a user nor a query";
	return set_parts(access, host, port, path, name);
}

/* ---- in a pod ---- */

static int set_cluster_server(struct access *access)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST");
	const char *port = getenv("KUBERNETES_SERVICE_PORT"), *why;
	char url[300];

	if (!host || !*host || !port || !*port) {
		log_err(0, "cannot find the Kubernetes API: KUBERNETES_SERVICE_HOST and _PORT are "
			   "not set, so this is no pod; name a kubeconfig");
		return -EINVAL;
	}
	snprintf(url, sizeof(url),
		 strchr(host, ':') ? "https://[%.200s]:%.10s" : "https://%.200s:%.10s", host, port);
	why = access_set_server(access, url, NULL);
	if (why) {
		log_err(0, "KUBERNETES_SERVICE_HOST and _PORT: '%s' %s", url, why);
		return -EINVAL;
	}
	return 0;
}

static int use_service_account(struct access *access, const struct kube_config *config)
{
	const char *ca = config->ca_file ?: ACCOUNT "ca.crt";
	const char *token = config->token_file ?: ACCOUNT "token";
	int r = set_cluster_server(access);

	if (r < 0)
		return r;
	access->ca.file = arena_dup(&access->mem, ca, strlen(ca));
	access->token_file = arena_dup(&access->mem, token, strlen(token));
	return access->ca.file && access->token_file ? 0 : -ENOMEM;
}

/* ---- opening ---- */

static void close_access(struct access **access)
{
	access_close(*access);
}

static int readable(const char *path)
{
	return !path || access(path, R_OK) == 0 ? 0 : -errno;
}

/* Now, and not with the first request: what is missing is a mistake of the configuration's. */
static int check_files(const struct access *a)
{
	const char *const files[] = {a->ca.file, a->cert.file, a->key.file};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		int r = readable(files[i]);

		if (r < 0)
			return log_err(r, "cannot read '%s', needed for the Kubernetes API",
				       files[i]);
	}
	return 0;
}

static int read_first_token(struct access *access)
{
	int r;

	if (!access->token_file)
		return 0;
	r = read_token(access->token_file, &access->token);
	if (r < 0)
		log_err(0, "cannot read token '%s' for the Kubernetes API: %s", access->token_file,
			token_error(r));
	return r;
}

int access_open(struct access **ret, const struct kube_config *config)
{
	OWNED(close_access) struct access *access = calloc(1, sizeof(*access));
	int r;

	if (!access)
		return log_err(-ENOMEM, "cannot prepare for the Kubernetes API");
	if (config->kubeconfig && config->kubeconfig[0])
		r = access_read_kubeconfig(access, config->kubeconfig);
	else
		r = use_service_account(access, config);
	r = r ?: check_files(access);
	r = r ?: read_first_token(access);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(access);
	return 0;
}

void access_close(struct access *access)
{
	if (!access)
		return;
	free(access->token);
	arena_done(&access->mem);
	free(access);
}
