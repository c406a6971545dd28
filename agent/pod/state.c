/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/owned.h"

#define SUFFIX     ".json"
#define TMP_SUFFIX ".tmp"
#define HASH_CHARS 32
#define VERSION    2 /* 1 had neither links nor back end */

static void free_json(json_t **j)
{
	json_decref(*j);
}

static void close_dir(DIR **d)
{
	if (*d)
		closedir(*d);
}

void pod_state_done(struct pod_state *state)
{
	free(state->netns);
	*state = (struct pod_state){0};
}

/* ---- names of files ---- */

/* "<namespace>_<name>.json"; '_' is in neither. What is too long for a file name gets the rest of
 * the pod's name as a hash.
 */
static int file_name(const struct pod_name *pod, char ret[static NAME_MAX + 1])
{
	size_t room = NAME_MAX - strlen(SUFFIX TMP_SUFFIX);
	char whole[POD_LABEL_MAX + POD_NAME_MAX + 2];
	unsigned char hash[EVP_MAX_MD_SIZE];
	char hex[HASH_CHARS + 1];

	snprintf(whole, sizeof(whole), "%s_%s", pod->ns, pod->name);
	if (strlen(whole) <= room) {
		snprintf(ret, NAME_MAX + 1, "%.*s" SUFFIX, (int)room, whole);
		return 0;
	}
	if (EVP_Digest(whole, strlen(whole), hash, NULL, EVP_sha256(), NULL) != 1)
		return -EIO;
	for (size_t i = 0; i < HASH_CHARS / 2; i++)
		snprintf(hex + 2 * i, 3, "%02x", hash[i]);
	snprintf(ret, NAME_MAX + 1, "%.*s_%s" SUFFIX, (int)room - HASH_CHARS - 1, whole, hex);
	return 0;
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n > m && strcmp(text + n - m, end) == 0;
}

int state_make_dir(const char *dir)
{
	OWNED_MEM char *path = strdup(dir);

	if (!path)
		return -ENOMEM;
	for (char *p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* ---- writing ---- */

static json_t *link_json(const struct host_link *l)
{
	char mac[18];

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", l->mac[0], l->mac[1], l->mac[2],
		 l->mac[3], l->mac[4], l->mac[5]);
	return json_pack("{s:s s:I s:s s:s s:o*}", "name", l->name, "ifindex",
			 (json_int_t)l->ifindex, "kind", l->kind, "mac", mac, "open_until_ms",
			 l->open_until_ms ? json_integer((json_int_t)l->open_until_ms) : NULL);
}

/* A link left out would be taken for one that came later. */
static json_t *links_json(const struct pod_links *links)
{
	OWNED(free_json) json_t *array = json_array();

	for (size_t i = 0; i < links->n_links; i++) {
		if (json_array_append_new(array, link_json(&links->links[i])) < 0)
			return NULL;
	}
	return TAKE_PTR(array);
}

static json_t *addrs_json(const struct pod_links *links)
{
	OWNED(free_json) json_t *array = json_array();
	char text[ADDR_TEXT];

	for (size_t i = 0; i < links->n_addrs; i++) {
		if (json_array_append_new(array,
					  json_string(addr_print_ip(&links->addrs[i], text))) < 0)
			return NULL;
	}
	return TAKE_PTR(array);
}

static const char *text_or_null(const char *text)
{
	return *text ? text : NULL;
}

static json_t *to_json(const struct pod_state *s)
{
	return json_pack("{s:i s:s s:s s:s s:b s:s s:I s:I s:I s:s s:I s:I s:s* s:s* s:s s:o s:o}",
			 "version", VERSION, "namespace", s->pod.ns, "pod", s->pod.name,
			 "service_account", s->service_account, "by_cgroup", s->by_cgroup, "netns",
			 s->netns, "dev", (json_int_t)s->dev, "ino", (json_int_t)s->ino, "cookie",
			 (json_int_t)s->cookie, "boot_id", s->boot_id, "node_cookie",
			 (json_int_t)s->node_cookie, "enrolled_at", (json_int_t)s->enrolled_at,
			 "container", text_or_null(s->container), "network",
			 text_or_null(s->network), "backend", redirect_backend_str(s->backend),
			 "links", links_json(&s->links), "addresses", addrs_json(&s->links));
}

static int write_all(int fd, const char *text, size_t n)
{
	while (n > 0) {
		ssize_t w = write(fd, text, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return -errno;
		text += w;
		n -= (size_t)w;
	}
	return 0;
}

static int write_tmp(int dirfd, const char *tmp, const char *text)
{
	OWNED_FD int fd =
		openat(dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return -errno;
	r = write_all(fd, text, strlen(text));
	if (r < 0)
		return r;
	return fsync(fd) < 0 ? -errno : 0;
}

int state_write(const char *dir, const struct pod_state *state)
{
	char name[NAME_MAX + 1], tmp[NAME_MAX + sizeof(TMP_SUFFIX)];
	OWNED(free_json) json_t *json = to_json(state);
	OWNED_MEM char *text = NULL;
	OWNED_FD int dirfd = -1;
	int r;

	if (!json)
		return -EINVAL; /* a path that is no UTF-8, or out of memory */
	text = json_dumps(json, JSON_COMPACT);
	if (!text)
		return -ENOMEM;
	r = file_name(&state->pod, name);
	if (r < 0)
		return r;
	snprintf(tmp, sizeof(tmp), "%s" TMP_SUFFIX, name);

	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0)
		return -errno;
	r = write_tmp(dirfd, tmp, text);
	if (r == 0 && renameat(dirfd, tmp, dirfd, name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(dirfd, tmp, 0);
	/* The folder itself is not synced: no namespace outlives the boot that the name is for. */
	return r;
}

int state_remove(const char *dir, const struct pod_name *pod)
{
	char name[NAME_MAX + 1];
	OWNED_FD int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (dirfd < 0)
		return errno == ENOENT ? 0 : -errno;
	r = file_name(pod, name);
	if (r < 0)
		return r;
	return unlinkat(dirfd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

/* ---- reading ---- */

static int read_file(const char *path, char **ret, size_t *ret_len)
{
	OWNED_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	OWNED_MEM char *buf = NULL;
	size_t n = 0;

	if (fd < 0)
		return -errno;
	buf = malloc(STATE_MAX_BYTES + 1);
	if (!buf)
		return -ENOMEM;
	while (n <= STATE_MAX_BYTES) {
		ssize_t got = read(fd, buf + n, STATE_MAX_BYTES + 1 - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		n += (size_t)got;
	}
	*ret = TAKE_PTR(buf);
	*ret_len = n;
	return 0;
}

/* What the text says, in jansson's types; the strings belong to the JSON. */
struct raw_state {
	int version, by_cgroup;
	json_t *links, *addresses;
	const char *backend, *container, *network;
	const char *ns, *pod, *service_account, *netns, *boot_id;
	json_int_t dev, ino, cookie, node_cookie, enrolled_at;
};

static bool read_mac(const char *text, uint8_t ret[static 6])
{
	int end = 0;

	return sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &ret[0], &ret[1], &ret[2],
		      &ret[3], &ret[4], &ret[5], &end) == 6 &&
	       text[end] == '\0';
}

/* What an older agent wrote has no link address; most links are not open. */
static bool read_link(json_t *json, struct host_link *ret)
{
	const char *name, *kind, *mac = NULL;
	json_int_t ifindex, open_until_ms = 0;

	if (json_unpack_ex(json, NULL, JSON_STRICT, "{s:s s:I s:s s?s s?I}", "name", &name,
			   "ifindex", &ifindex, "kind", &kind, "mac", &mac, "open_until_ms",
			   &open_until_ms) < 0)
		return false;
	if (mac && !read_mac(mac, ret->mac))
		return false;
	if (strlen(name) >= sizeof(ret->name) || strlen(kind) >= sizeof(ret->kind) || ifindex < 0 ||
	    ifindex > INT32_MAX || open_until_ms < 0)
		return false;
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	snprintf(ret->kind, sizeof(ret->kind), "%s", kind);
	ret->ifindex = (uint32_t)ifindex;
	ret->open_until_ms = (uint64_t)open_until_ms;
	return true;
}

static bool read_links(const struct raw_state *raw, struct pod_links *ret)
{
	size_t n_links = json_array_size(raw->links), n_addrs = json_array_size(raw->addresses);

	if (n_links > HOST_LINK_MAX_LINKS || n_addrs > HOST_LINK_MAX_ADDRS)
		return false;
	for (size_t i = 0; i < n_links; i++) {
		if (!read_link(json_array_get(raw->links, i), &ret->links[i]))
			return false;
	}
	for (size_t i = 0; i < n_addrs; i++) {
		const char *text = json_string_value(json_array_get(raw->addresses, i));

		if (!text || addr_parse_ip(text, &ret->addrs[i]) < 0)
			return false;
	}
	ret->n_links = n_links;
	ret->n_addrs = n_addrs;
	return true;
}

static bool read_backend(const char *word, enum redirect_backend *ret)
{
	for (unsigned i = 0; i < REDIRECT_BACKEND_N_; i++) {
		if (strcmp(word, redirect_backend_str(i)) == 0) {
			*ret = i;
			return true;
		}
	}
	return false;
}

static const char *fill(const struct raw_state *raw, struct pod_state *s)
{
	if (raw->version != 1 && raw->version != VERSION)
		return "a version that this agent does not know";
	if (!pod_label_is_valid(raw->ns) || !pod_subdomain_is_valid(raw->pod))
		return "no valid pod name";
	if (*raw->service_account && !pod_subdomain_is_valid(raw->service_account))
		return "no valid service account";
	if (raw->netns[0] != '/')
		return "the namespace's path is not absolute";
	if (strlen(raw->boot_id) >= sizeof(s->boot_id))
		return "no valid boot_id";
	if (strlen(raw->container) > ENROL_ID_MAX || strlen(raw->network) > ENROL_ID_MAX)
		return "no valid container or network";
	if (!read_links(raw, &s->links))
		return "no valid links or addresses";
	if (!read_backend(raw->backend, &s->backend))
		return "a back end that this agent does not know";
	s->by_cgroup = raw->by_cgroup;
	snprintf(s->pod.ns, sizeof(s->pod.ns), "%s", raw->ns);
	snprintf(s->pod.name, sizeof(s->pod.name), "%s", raw->pod);
	snprintf(s->service_account, sizeof(s->service_account), "%s", raw->service_account);
	snprintf(s->boot_id, sizeof(s->boot_id), "%s", raw->boot_id);
	snprintf(s->container, sizeof(s->container), "%s", raw->container);
	snprintf(s->network, sizeof(s->network), "%s", raw->network);
	s->dev = (dev_t)raw->dev;
	s->ino = (ino_t)raw->ino;
	s->cookie = (uint64_t)raw->cookie;
	s->node_cookie = (uint64_t)raw->node_cookie;
	s->enrolled_at = raw->enrolled_at;
	return NULL;
}

static const char *decode(const char *text, size_t n, struct pod_state *ret)
{
	OWNED(free_json) json_t *json = NULL;
	struct raw_state raw = {.backend = "auto", .container = "", .network = ""};
	const char *why;

	if (n > STATE_MAX_BYTES)
		return "longer than any that was written";
	json = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
	if (!json)
		return "not JSON";
	if (json_unpack_ex(json, NULL, JSON_STRICT,
			   "{s:i s:s s:s s:s s:s s:I s:I s:I s:s s?I s:I s?b s?s s?s s?s s?o s?o}",
			   "version", &raw.version, "namespace", &raw.ns, "pod", &raw.pod,
			   "service_account", &raw.service_account, "netns", &raw.netns, "dev",
			   &raw.dev, "ino", &raw.ino, "cookie", &raw.cookie, "boot_id",
			   &raw.boot_id, "node_cookie", &raw.node_cookie, "enrolled_at",
			   &raw.enrolled_at, "by_cgroup", &raw.by_cgroup, "backend", &raw.backend,
			   "container", &raw.container, "network", &raw.network, "links",
			   &raw.links, "addresses", &raw.addresses) < 0)
		return "a field is missing, unknown or of the wrong type";
	why = fill(&raw, ret);
	if (why)
		return why;
	ret->netns = strdup(raw.netns);
	return ret->netns ? NULL : "out of memory";
}

int state_read(const char *path, struct pod_state *ret, const char **ret_why)
{
	struct pod_state state = {0};
	OWNED_MEM char *text = NULL;
	const char *why;
	size_t n = 0;
	int r;

	r = read_file(path, &text, &n);
	if (r < 0)
		return r;
	why = decode(text, n, &state);
	if (why) {
		*ret_why = why;
		return -EBADMSG;
	}
	*ret = state;
	return 0;
}

int state_list(const char *dir, void (*on_file)(void *ctx, const char *path), void *ctx)
{
	OWNED(close_dir) DIR *d = opendir(dir);
	const struct dirent *e;

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while ((errno = 0, e = readdir(d))) {
		OWNED_MEM char *path = NULL;

		if (ends_with(e->d_name, SUFFIX TMP_SUFFIX)) {
			unlinkat(dirfd(d), e->d_name, 0);
			continue;
		}
		if (!ends_with(e->d_name, SUFFIX))
			continue;
		if (asprintf(&path, "%s/%s", dir, e->d_name) < 0) {
			path = NULL; /* undefined after a failure */
			return -ENOMEM;
		}
		on_file(ctx, path);
	}
	return -errno;
}

int state_boot_id(char ret[static STATE_BOOT_ID_MAX])
{
	OWNED_FD int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	char buf[STATE_BOOT_ID_MAX];
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, sizeof(buf) - 1);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	memcpy(ret, buf, sizeof(buf));
	return 0;
}
