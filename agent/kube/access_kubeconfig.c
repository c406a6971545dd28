/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/access.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/owned.h"
#include "resource/field.h"
#include "resource/files.h"

#define CONFIG_MAX ((size_t)4 * 1024 * 1024)

/* ---- one field each. A kubeconfig is not ours: what is not known to us is none of our business */

/* NULL when it is not there, or no text. */
static const char *text_at(const struct field *f, const char *key)
{
	struct field child = field_get(f, key);
	const char *ret = NULL;

	if (field_is_set(&child) && !(child.node->text && child.node->text[0] == '\0'))
		field_text(&child, &ret);
	return ret && ret[0] ? ret : NULL;
}

static bool flag_at(const struct field *f, const char *key)
{
	struct field child = field_get(f, key);
	bool ret = false;

	if (field_is_set(&child))
		field_bool(&child, &ret);
	return ret;
}

static void refuse(const struct field *f, const char *key, const char *why)
{
	struct field child = field_get(f, key);

	if (field_is_set(&child))
		field_error(&child, "%s", why);
}

/* As kubectl does: relative to where the kubeconfig is. */
static const char *file_at(const struct field *f, const char *key)
{
	const char *path = text_at(f, key), *config = f->where->file, *ret;
	const char *slash = strrchr(config, '/');

	if (!path || path[0] == '/' || !slash)
		return path;
	ret = arena_print(f->where->keep, "%.*s/%s", (int)(slash - config), config, path);
	if (!ret)
		report_fail(f->where->report, -ENOMEM);
	return ret;
}

/* Without the line breaks that some tools put in. */
static size_t squeeze(char *text)
{
	size_t n = 0;

	for (size_t i = 0; text[i]; i++) {
		if (!isspace((unsigned char)text[i]))
			text[n++] = text[i];
	}
	text[n] = '\0';
	return n;
}

static void decode(const struct field *f, const char *text, struct access_pem *ret)
{
	OWNED_MEM char *copy = strdup(text);
	unsigned char *bytes;
	size_t len;
	int n = -1;

	bytes = field_alloc(f, strlen(text) + 1, 1); /* more than the result needs */
	if (!copy || !bytes) {
		report_fail(f->where->report, -ENOMEM);
		return;
	}
	len = squeeze(copy);
	if (len > 0 && len % 4 == 0)
		n = EVP_DecodeBlock(bytes, (unsigned char *)copy, (int)len);
	if (n <= 0) {
		field_error(f, "must be base64");
		return;
	}
	for (size_t i = len; i > len - 2 && copy[i - 1] == '='; i--)
		n--; /* what fills the last three bytes is counted as bytes */
	*ret = (struct access_pem){.text = (char *)bytes, .len = (size_t)n};
}

/* The data wins over the file, as with kubectl. */
static void pem_at(const struct field *f, const char *key, const char *data_key,
		   struct access_pem *ret)
{
	struct field data = field_get(f, data_key);
	const char *text = text_at(f, data_key);

	if (text)
		decode(&data, text, ret);
	else
		ret->file = file_at(f, key);
}

/* ---- the three kinds of things ---- */

static void read_cluster(const struct field *f, struct access *access)
{
	struct field server = field_get(f, "server");
	const char *url = text_at(f, "server"), *why;

	if (!url) {
		field_error(&server, "is missing: where is the API server?");
		return;
	}
	why = access_set_server(access, url, text_at(f, "tls-server-name"));
	if (why)
		field_error(&server, "'%.200s' %s", url, why);
	pem_at(f, "certificate-authority", "certificate-authority-data", &access->ca);
	access->proxy = text_at(f, "proxy-url");
	if (flag_at(f, "insecure-skip-tls-verify"))
		refuse(f, "insecure-skip-tls-verify",
		       "is not accepted: whoever stands in between could open any host; give "
		       "certificate-authority, and tls-server-name if the name is another one");
}

static void read_token(const struct field *f, struct access *access)
{
	const char *token = text_at(f, "token");

	access->token_file = file_at(f, "tokenFile"); /* it wins over `token` */
	if (access->token_file || !token)
		return;
	access->token = strdup(token);
	if (!access->token)
		report_fail(f->where->report, -ENOMEM);
	for (const char *c = token; *c; c++) {
		if (!isgraph((unsigned char)*c)) {
			refuse(f, "token", "holds a character that no token has");
			return;
		}
	}
}

static void read_user(const struct field *f, struct access *access)
{
	static const char plugin[] = "is not supported: an agent must not run programs to get in; "
				     "use a token, a tokenFile or a client certificate";

	refuse(f, "exec", plugin);
	refuse(f, "auth-provider", plugin);
	refuse(f, "username", "is not supported, nor is it by Kubernetes since 1.19; use a token");
	refuse(f, "as", "is not supported: use a user of its own for the agent");
	read_token(f, access);
	pem_at(f, "client-certificate", "client-certificate-data", &access->cert);
	pem_at(f, "client-key", "client-key-data", &access->key);
	if ((access->cert.file || access->cert.text) != (access->key.file || access->key.text))
		field_error(f, "needs both client-certificate and client-key, or neither");
}

struct context {
	const char *cluster, *user;
};

static void read_context(const struct field *f, struct context *ret)
{
	*ret = (struct context){text_at(f, "cluster"), text_at(f, "user")};
	if (!ret->cluster)
		field_error(f, "names no cluster");
}

/* ---- finding them ---- */

/* Looks for `name` in a list of {name: NAME, KIND: {...}}; *ret_item and *ret have to stay
 * together. False after a complaint.
 */
static bool find(const struct field *list, const char *name, const char *kind,
		 struct field *ret_item, struct field *ret)
{
	if (!field_is_set(list) || list->node->kind != TREE_LIST) {
		field_error(list, "must be a list with '%.80s' in it", name);
		return false;
	}
	for (*ret_item = field_first(list); ret_item->node; field_next(ret_item)) {
		const struct tree *found = tree_get(ret_item->node, "name");

		if (!found || !found->text || strcmp(found->text, name) != 0)
			continue;
		*ret = field_get(ret_item, kind);
		if (field_is_set(ret))
			return field_is(ret, TREE_MAP);
		field_error(ret_item, "has no %s", kind);
		return false;
	}
	field_error(list, "there is no '%.80s'", name);
	return false;
}

static void read_config(const struct field *root, struct access *access)
{
	struct field current = field_get(root, "current-context");
	struct field contexts = field_get(root, "contexts"), clusters = field_get(root, "clusters");
	struct field users = field_get(root, "users"), item, f;
	const char *name = text_at(root, "current-context");
	struct context context = {0};

	if (!name) {
		field_error(&current, "is missing: which context is to be used?");
		return;
	}
	if (find(&contexts, name, "context", &item, &f))
		read_context(&f, &context);
	if (context.cluster && find(&clusters, context.cluster, "cluster", &item, &f))
		read_cluster(&f, access);
	if (context.user && find(&users, context.user, "user", &item, &f))
		read_user(&f, access);
}

/* ---- the file ---- */

static void close_yaml(struct tree_yaml **yaml)
{
	tree_yaml_close(*yaml);
}

static void read_text(struct access *access, struct span text, const struct where *where)
{
	OWNED(arena_done) struct arena mem = {0};
	OWNED(close_yaml) struct tree_yaml *yaml = NULL;
	struct field root = {.where = where};
	struct tree_error error;
	int r = tree_yaml_open(&yaml, text, 1);

	r = r < 0 ? r : tree_yaml_next(yaml, &mem, &root.node, &error);
	if (r == -EINVAL)
		report_error(where->report, "%s:%u:%u: %s", where->file, error.line, error.column,
			     error.text);
	else if (r < 0)
		report_fail(where->report, r);
	else if (r == 0 || root.node->kind != TREE_MAP)
		report_error(where->report, "%s: is no kubeconfig", where->file);
	else
		read_config(&root, access);
}

int access_read_kubeconfig(struct access *access, const char *path)
{
	OWNED(report_done) struct report report = {0};
	OWNED_MEM char *text = NULL;
	struct where where = {&report, &access->mem, path, "kubeconfig"};
	size_t len;
	int r = file_read(path, CONFIG_MAX, &text, &len);

	if (r < 0) {
		log_err(0, "cannot read kubeconfig '%s': %s", path, file_read_str(r));
		return r;
	}
	read_text(access, (struct span){(uint8_t *)text, len}, &where);
	explicit_bzero(text, len);
	report_log(&report);
	return report_result(&report);
}
