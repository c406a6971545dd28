/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "config_read.h"
#include "base/log.h"
#include "base/owned.h"
#include "resource/field.h"
#include "resource/files.h"

#define CONFIG_BYTES_MAX ((size_t)1024 * 1024)

struct holder {
	struct config config;
	atomic_uint refs;
	struct arena keep; /* all that config points to */
};

/* ---- defaults ---- */

static void set_defaults(struct config *c)
{
	static const struct addr listen[] = {
		{.ip = {[10] = 0xff, [11] = 0xff}, .port = 15443},
		{.port = 15443},
	};

	static const char *const excluded[] = {"kube-system", "sluice-system"};

	*c = (struct config){
		.trust_domain = "cluster.local",
		.tunnel = {.handoff = true, .listen = listen, .n_listen = ARRAY_SIZE(listen)},
		.redirect = {.mark = 16, .table = 15001, .priority = 90},
		.guard = {.pin_dir = "/sys/fs/bpf/sluice", .inbound_flows = 2048},
		.enrol =
			{
				.socket = "/run/sluice/agent.sock",
				.state_dir = "/var/lib/sluice",
				.excluded = excluded,
				.n_excluded = ARRAY_SIZE(excluded),
			},
		.limits =
			{
				.hello_bytes = 65536,
				.hello_timeout_ms = 5000,
				.connect_timeout_ms = 5000,
				.idle_timeout_ms = 3600 * 1000,
				.drain_timeout_ms = 20 * 1000,
			},
		.admin =
			{
				.socket = "/run/sluice/admin.sock",
				.metrics.port = 15020,
				.health.port = 15021,
				.metrics_on = true,
				.health_on = true,
			},
		.access_log.file = "/dev/stdout",
	};
}

/* ---- what has to be worked out ---- */

static void make_absolute(const struct field *top, const char *folder, const char **path)
{
	if (!*path || **path == '/' || **path == '\0')
		return;
	*path = arena_print(top->where->keep, "%s/%s", folder, *path);
	if (!*path)
		report_fail(top->where->report, -ENOMEM);
}

static void check_socket(const struct field *top, const char *section, const char *path)
{
	struct field at = field_get(top, section), socket = field_get(&at, "socket");

	if (path && strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		field_error(&socket, "'%.80s...' is too long for a unix socket: 107 bytes at most",
			    path);
}

static void settle_paths(const struct field *top, const char *folder, struct config *c)
{
	const char **files = (const char **)c->registry_files; /* our own array, made above */

	for (size_t i = 0; i < c->n_registry_files; i++)
		make_absolute(top, folder, &files[i]);
	make_absolute(top, folder, &c->kubernetes.kubeconfig);
	make_absolute(top, folder, &c->tunnel.certificate);
	make_absolute(top, folder, &c->tunnel.private_key);
	make_absolute(top, folder, &c->tunnel.trust_bundle);
	make_absolute(top, folder, &c->guard.pin_dir);
	make_absolute(top, folder, &c->enrol.socket);
	make_absolute(top, folder, &c->enrol.state_dir);
	make_absolute(top, folder, &c->admin.socket);
	make_absolute(top, folder, &c->access_log.file);
	check_socket(top, "enrol", c->enrol.socket);
	check_socket(top, "admin", c->admin.socket);
}

static void settle_node_name(const struct field *top, struct config *c)
{
	char name[HOST_NAME_MAX + 1] = "";
	const char *given = getenv("NODE_NAME");

	if (!c->node_name && given && *given)
		c->node_name = field_keep(top, given);
	if (c->node_name)
		return;
	if (gethostname(name, sizeof(name) - 1) < 0 || name[0] == '\0') {
		struct field f = field_get(top, "nodeName");

		field_error(&f, "is missing, and this host has no name: give one");
		return;
	}
	c->node_name = field_keep(top, name);
}

/* The folder of `path`, without links, for the caller to free. */
static int folder_of(const char *path, char **ret)
{
	OWNED_MEM char *folder = strdup(path);
	char *slash;

	if (!folder)
		return -ENOMEM;
	slash = strrchr(folder, '/');
	if (slash)
		slash[slash == folder] = '\0';
	*ret = realpath(slash ? folder : ".", NULL);
	return *ret ? 0 : -errno;
}

static void refuse_text(struct report *report, const char *path, const struct tree_error *error)
{
	report_error(report, "%.400s:%u: %s (column %u)", path, error->line, error->text,
		     error->column);
}

static void close_yaml(struct tree_yaml **yaml)
{
	tree_yaml_close(*yaml);
}

/* The one document in `text`. JSON is YAML. */
static int read_document(struct report *report, const char *path, struct span text,
			 struct arena *mem, const struct tree **ret)
{
	OWNED(close_yaml) struct tree_yaml *yaml = NULL;
	const struct tree *more;
	struct tree_error error;
	int r;

	r = tree_yaml_open(&yaml, text, 1);
	if (r < 0)
		return r;
	r = tree_yaml_next(yaml, mem, ret, &error);
	if (r == 0) {
		report_error(report,
			     "%.400s: is empty: it needs at least apiVersion, kind and role", path);
		return -EINVAL;
	}
	while (r > 0) {
		r = tree_yaml_next(yaml, mem, &more, &error);
		if (r > 0 && more->kind != TREE_NULL) {
			report_error(report, "%.400s:%u: a second document: only one is read", path,
				     more->line);
			return -EINVAL;
		}
	}
	if (r == -EINVAL)
		refuse_text(report, path, &error);
	return r;
}

static int read_config(struct holder *holder, struct report *report, const char *path,
		       const struct tree *root)
{
	struct where where = {
		.report = report, .keep = &holder->keep, .file = path, .object = "AgentConfig"};
	struct field top = {.where = &where, .node = root};
	struct config *c = &holder->config;
	OWNED_MEM char *folder = NULL;
	int r;

	r = folder_of(path, &folder);
	if (r < 0) {
		report_error(report, "%.400s: its folder cannot be read", path);
		return r;
	}
	c->path = field_keep(&top, path);
	config_read(&top, c);
	settle_node_name(&top, c);
	settle_paths(&top, folder, c);
	return report_result(report);
}

static int load(struct holder *holder, struct report *report, const char *path)
{
	OWNED(arena_done) struct arena mem = {0};
	const struct tree *root;
	OWNED_MEM char *text = NULL;
	size_t len;
	int r;

	r = file_read(path, CONFIG_BYTES_MAX, &text, &len);
	if (r < 0) {
		report_error(report, "%.400s: cannot be read: %s", path, file_read_str(r));
		return r;
	}
	r = read_document(report, path, (struct span){(const uint8_t *)text, len}, &mem, &root);
	return r < 0 ? r : read_config(holder, report, path, root);
}

int config_load(const char *path, const struct config **ret)
{
	OWNED(report_done) struct report report = {0};
	struct holder *holder = calloc(1, sizeof(*holder));
	int r;

	if (!holder)
		return log_err(-ENOMEM, "cannot read '%s'", path);
	holder->refs = 1;
	set_defaults(&holder->config);
	r = load(holder, &report, path);
	report_log(&report);
	if (r < 0 && report.errors.n == 0)
		log_err(r, "cannot read '%s'", path);
	if (r < 0)
		config_unref(&holder->config);
	else
		*ret = &holder->config;
	return r;
}

static struct holder *holder_of(const struct config *config)
{
	return (struct holder *)(uintptr_t)config; /* its first member; ours, and not const */
}

const struct config *config_ref(const struct config *config)
{
	atomic_fetch_add(&holder_of(config)->refs, 1);
	return config;
}

void config_unref(const struct config *config)
{
	struct holder *holder = config ? holder_of(config) : NULL;

	if (!holder || atomic_fetch_sub(&holder->refs, 1) != 1)
		return;
	arena_done(&holder->keep);
	free(holder);
}
