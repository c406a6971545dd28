/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/owned.h"
#include "kube/entries.h"

#define KIND    "sluice.io/kubernetes-cache"
#define VERSION 1

#define SUM_BYTES 32 /* SHA-256 */
/* {"sha256":"..."} and a line break, always as long. */
#define SUM_LINE (sizeof("{\"sha256\":\"\"}\n") - 1 + 2 * SUM_BYTES)

static void free_json(json_t **j)
{
	json_decref(*j);
}

static void free_digest(EVP_MD_CTX **md)
{
	EVP_MD_CTX_free(*md);
}

static void close_file(FILE **f)
{
	if (*f)
		fclose(*f);
}

static void print_sum(const unsigned char sum[static SUM_BYTES], char ret[static SUM_LINE + 1])
{
	char hex[2 * SUM_BYTES + 1];

	for (size_t i = 0; i < SUM_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", sum[i]);
	snprintf(ret, SUM_LINE + 1, "{\"sha256\":\"%s\"}\n", hex);
}

/* ---- writing ---- */

struct writer {
	FILE *file;
	EVP_MD_CTX *md;
	size_t bytes;
};

static int write_line(struct writer *w, const json_t *json)
{
	OWNED_MEM char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	size_t n;

	if (!text)
		return -ENOMEM;
	n = strlen(text);
	text[n++] = '\n'; /* in the place of its NUL */
	w->bytes += n;
	if (w->bytes > CACHE_BYTES_MAX - SUM_LINE)
		return -EFBIG;
	if (EVP_DigestUpdate(w->md, text, n) != 1)
		return -EIO;
	return fwrite(text, 1, n, w->file) == n ? 0 : -EIO;
}

static int write_head(struct writer *w, const struct cache_view *view)
{
	OWNED(free_json)
	json_t *head =
		json_pack("{s:s, s:i, s:s, s:I, s:O}", "kind", KIND, "version", VERSION, "server",
			  view->server, "entries", (json_int_t)view->n, "parts", view->parts);

	return write_line(w, head);
}

static int write_sum(struct writer *w)
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	char line[SUM_LINE + 1];

	if (EVP_DigestFinal_ex(w->md, sum, NULL) != 1)
		return -EIO;
	print_sum(sum, line);
	return fwrite(line, 1, SUM_LINE, w->file) == SUM_LINE ? 0 : -EIO;
}

static int write_all(struct writer *w, const struct cache_view *view, const atomic_bool *stop)
{
	int r = write_head(w, view);

	for (size_t i = 0; i < view->n && r == 0; i++) {
		OWNED(free_json) json_t *json = entry_json(&view->entries[i]);

		if (atomic_load_explicit(stop, memory_order_relaxed))
			return -ECANCELED;
		r = write_line(w, json);
	}
	if (r == 0)
		r = write_sum(w);
	if (r == 0 && (fflush(w->file) != 0 || fsync(fileno(w->file)) < 0))
		r = -errno;
	return r;
}

static int write_tmp(int dirfd, const char *name, const struct cache_view *view,
		     const atomic_bool *stop)
{
	OWNED(free_digest) EVP_MD_CTX *md = EVP_MD_CTX_new();
	OWNED(close_file) FILE *file = NULL;
	OWNED_FD int fd =
		openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	if (!md || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1)
		return -ENOMEM;
	file = fdopen(fd, "w");
	if (!file)
		return -errno;
	(void)TAKE_FD(fd);
	return write_all(&(struct writer){.file = file, .md = md}, view, stop);
}

int cache_write(const char *dir, const struct cache_view *view, const atomic_bool *stop)
{
	static const char tmp[] = CACHE_FILE ".tmp";
	OWNED_FD int dirfd = -1;
	int r;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return -errno;
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0)
		return -errno;
	r = write_tmp(dirfd, tmp, view, stop);
	if (r == 0 && renameat(dirfd, tmp, dirfd, CACHE_FILE) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(dirfd, tmp, 0);
	if (r == -EFBIG)
		unlinkat(dirfd, CACHE_FILE, 0);
	if (r == 0)
		fsync(dirfd); /* without it the file before this one may come back, no more */
	return r;
}

/* ---- reading ---- */

static int read_file(const char *dir, char **ret, size_t *ret_len)
{
	OWNED_MEM char *path = NULL, *bytes = NULL;
	OWNED_FD int fd = -1;
	struct stat st;
	size_t n = 0;

	if (asprintf(&path, "%s/%s", dir, CACHE_FILE) < 0) {
		path = NULL; /* undefined after a failure */
		return -ENOMEM;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (size_t)st.st_size > CACHE_BYTES_MAX)
		return -EFBIG;
	bytes = malloc((size_t)st.st_size + 1);
	if (!bytes)
		return -ENOMEM;
	while (n < (size_t)st.st_size) {
		ssize_t got = read(fd, bytes + n, (size_t)st.st_size - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		n += (size_t)got;
	}
	*ret = TAKE_PTR(bytes);
	*ret_len = n;
	return 0;
}

static bool sum_is_right(const char *bytes, size_t n)
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	char line[SUM_LINE + 1];

	if (n < SUM_LINE || EVP_Digest(bytes, n - SUM_LINE, sum, NULL, EVP_sha256(), NULL) != 1)
		return false;
	print_sum(sum, line);
	return memcmp(bytes + n - SUM_LINE, line, SUM_LINE) == 0;
}

/* The next line as JSON, cut off `text`. NULL: it is none, or there is none. */
static json_t *cut_line(struct span *text)
{
	const uint8_t *end = text->len > 0 ? memchr(text->p, '\n', text->len) : NULL;
	struct span line;

	if (!end || !span_cut(text, (size_t)(end - text->p) + 1, &line))
		return NULL;
	return json_loadb((const char *)line.p, line.len, JSON_REJECT_DUPLICATES, NULL);
}

static const char *check_head(const json_t *head, const char *server, json_int_t *ret_n,
			      json_t **ret_parts)
{
	const char *kind, *of;
	int version;

	if (json_unpack((json_t *)head, "{s:s, s:i, s:s, s:I, s:o}", "kind", &kind, "version",
			&version, "server", &of, "entries", ret_n, "parts", ret_parts) < 0 ||
	    strcmp(kind, KIND) != 0)
		return "it is no cache";
	if (version != VERSION)
		return "it is of another version of this program";
	if (strcmp(of, server) != 0)
		return "it is of another API server";
	return NULL;
}

static const char *read_lines(struct span text, const char *server, json_t **ret_parts,
			      void (*on_entry)(void *ctx, json_t *object), void *ctx)
{
	OWNED(free_json) json_t *head = cut_line(&text);
	json_t *parts = NULL;
	json_int_t n = 0;
	const char *why = check_head(head, server, &n, &parts);

	if (why)
		return why;
	for (json_int_t i = 0; i < n; i++) {
		OWNED(free_json) json_t *object = cut_line(&text);

		if (!object)
			return "a line is missing or no JSON";
		on_entry(ctx, object);
	}
	if (text.len > 0)
		return "there is more in it than it says";
	*ret_parts = json_incref(parts);
	return NULL;
}

int cache_read(const char *dir, const char *server, json_t **ret_parts,
	       void (*on_entry)(void *ctx, json_t *object), void *ctx, const char **ret_why)
{
	OWNED_MEM char *bytes = NULL;
	const char *why;
	size_t n = 0;
	int r = read_file(dir, &bytes, &n);

	if (r < 0)
		return r;
	if (sum_is_right(bytes, n))
		why = read_lines((struct span){(const uint8_t *)bytes, n - SUM_LINE}, server,
				 ret_parts, on_entry, ctx);
	else
		why = "its sum is wrong";
	if (!why)
		return 0;
	*ret_why = why;
	return -EBADMSG;
}

int cache_remove(const char *dir)
{
	OWNED_FD int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (unlinkat(fd, CACHE_FILE, 0) < 0 && errno != ENOENT)
		return -errno;
	if (rmdir(dir) < 0 && errno != ENOTEMPTY && errno != EEXIST && errno != EBUSY)
		return -errno;
	return 0;
}
