/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/load.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/owned.h"
#include "resource/decode.h"
#include "resource/files.h"
#include "resource/report.h"
#include "resource/source.h"

/* A large file is read in pieces by several threads: YAML takes its time. */
#define PIECE_BYTES ((size_t)512 * 1024)
#define THREADS_MAX 8

#define BYTES_MAX ((size_t)512 * 1024 * 1024) /* of all files */

struct text {
	char *bytes;
	size_t len;
};

/* Whole documents of one file. */
struct piece {
	size_t file; /* which of the list */
	struct span text;
	unsigned first_line;
	struct decoded decoded;
};

struct load {
	struct report report;
	struct file_list files;
	struct text *texts; /* one a file */
	size_t bytes;       /* of all texts */
	struct piece *pieces;
	size_t n_pieces, room;
	atomic_size_t next;            /* piece to be decoded */
	struct service_entry *entries; /* of all pieces */
	size_t n;
};

static void free_texts(struct load *load)
{
	for (size_t i = 0; load->texts && i < load->files.n; i++)
		free(load->texts[i].bytes);
	free(load->texts);
	load->texts = NULL;
}

void load_free(struct load *load)
{
	if (!load)
		return;
	for (size_t i = 0; i < load->n_pieces; i++)
		decoded_done(&load->pieces[i].decoded);
	free_texts(load);
	free(load->pieces);
	free(load->entries);
	file_list_done(&load->files);
	report_done(&load->report);
	free(load);
}

static void drop_load(struct load **load)
{
	load_free(*load);
}

/* ---- reading ---- */

static void read_file(struct load *load, size_t i)
{
	const char *path = load->files.paths[i];
	int r = file_read(path, FILE_BYTES_MAX, &load->texts[i].bytes, &load->texts[i].len);

	load->bytes += load->texts[i].len;
	if (r == 0 && load->bytes > BYTES_MAX)
		r = -EOVERFLOW;
	if (r == 0)
		return;
	report_error(&load->report, "%.400s: cannot be read: %s", path,
		     r == -EOVERFLOW ? "all files together are larger than 512 MiB"
				     : file_read_str(r));
	report_fail(&load->report, r);
}

/* ---- cutting into pieces ---- */

static int add_piece(struct load *load, size_t file, struct span text, unsigned first_line)
{
	if (load->n_pieces == load->room) {
		size_t room = load->room > 0 ? load->room * 2 : 16;
		struct piece *more = reallocarray(load->pieces, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		load->pieces = more;
		load->room = room;
	}
	load->pieces[load->n_pieces++] =
		(struct piece){.file = file, .text = text, .first_line = first_line};
	return 0;
}

static bool is_json(const char *path)
{
	const char *dot = strrchr(path, '.');

	return dot && strcmp(dot, ".json") == 0;
}

/* Up to and with the line break before the first "---" line at or behind `from`. YAML allows that
 * line nowhere inside a document, not even in a quoted or block scalar.
 */
static size_t document_end(struct span text, size_t from)
{
	while (from < text.len) {
		const uint8_t *p = memmem(text.p + from, text.len - from, "\n---", 4);
		size_t at;

		if (!p)
			break;
		at = (size_t)(p - text.p) + 1;
		if (at + 3 == text.len || strchr(" \t\r\n", text.p[at + 3]))
			return at;
		from = at;
	}
	return text.len;
}

static unsigned count_lines(struct span text)
{
	unsigned n = 0;

	for (size_t i = 0; i < text.len; i++)
		n += text.p[i] == '\n';
	return n;
}

static int cut_yaml(struct load *load, size_t file, struct span text)
{
	bool directives = text.len > 0 && (text.p[0] == '%' || memmem(text.p, text.len, "\n%", 2));
	unsigned line = 1;
	int r = 0;

	/* A directive belongs to the document behind the "---". */
	if (directives)
		return add_piece(load, file, text, line);
	while (text.len > 0 && r == 0) {
		struct span piece;
		size_t end = text.len <= PIECE_BYTES ? text.len : document_end(text, PIECE_BYTES);

		if (!span_cut(&text, end, &piece))
			break;
		r = add_piece(load, file, piece, line);
		line += count_lines(piece);
	}
	return r;
}

static void cut_file(struct load *load, size_t i)
{
	const struct text *t = &load->texts[i];
	struct span text = {(const uint8_t *)t->bytes, t->len};
	int r;

	if (is_json(load->files.paths[i]))
		r = add_piece(load, i, text, 1);
	else
		r = cut_yaml(load, i, text);
	if (r < 0)
		report_fail(&load->report, r);
}

/* ---- decoding ---- */

static void *decode_pieces(void *arg)
{
	struct load *load = arg;
	size_t i;

	while ((i = atomic_fetch_add(&load->next, 1)) < load->n_pieces) {
		struct piece *piece = &load->pieces[i];
		const char *path = load->files.paths[piece->file];

		decode_text(&piece->decoded, path, piece->text,
			    is_json(path) ? TEXT_JSON : TEXT_YAML, piece->first_line);
	}
	return NULL;
}

static size_t n_helpers(const struct load *load)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	size_t n = cpus > THREADS_MAX ? THREADS_MAX : cpus < 1 ? 1 : (size_t)cpus, bytes = 0;

	for (size_t i = 0; i < load->n_pieces; i++)
		bytes += load->pieces[i].text.len;
	if (n > bytes / PIECE_BYTES + 1)
		n = bytes / PIECE_BYTES + 1;
	return (n > load->n_pieces && load->n_pieces > 0 ? load->n_pieces : n) - 1;
}

static void decode_all(struct load *load)
{
	pthread_t helpers[THREADS_MAX];
	size_t n = n_helpers(load), started = 0;

	/* Without a helper it takes longer, no more. */
	while (started < n && pthread_create(&helpers[started], NULL, decode_pieces, load) == 0)
		started++;
	decode_pieces(load);
	while (started > 0)
		pthread_join(helpers[--started], NULL);
}

/* ---- putting together ---- */

/* One warning a kind and file, whichever piece saw it first. */
static void warn_skipped(struct load *load, size_t first, size_t end)
{
	for (size_t kind = 0; kind < SKIPPED_N_; kind++) {
		for (size_t i = first; i < end; i++) {
			const struct piece *piece = &load->pieces[i];

			if (piece->decoded.skipped[kind] == 0)
				continue;
			report_warn(&load->report,
				    "%.400s:%u: %s is not used by this version, ignoring all of "
				    "that kind in this file",
				    load->files.paths[piece->file], piece->decoded.skipped[kind],
				    skipped_str(kind));
			break;
		}
	}
}

static void merge_reports(struct load *load)
{
	size_t first = 0;

	for (size_t i = 0; i < load->n_pieces; i++) {
		report_merge(&load->report, &load->pieces[i].decoded.report);
		if (i + 1 == load->n_pieces || load->pieces[i + 1].file != load->pieces[i].file) {
			warn_skipped(load, first, i + 1);
			first = i + 1;
		}
	}
}

static uint64_t hash_name(const struct service_entry *e)
{
	uint64_t hash = 0xcbf29ce484222325ULL;

	for (const char *p = e->ns; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 0x100000001b3ULL;
	hash = (hash ^ '/') * 0x100000001b3ULL;
	for (const char *p = e->name; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 0x100000001b3ULL;
	return hash ^ hash >> 32;
}

/* Files are the administrator's: nobody else can choose names that collide. */
static int refuse_doubles(struct report *report, const struct service_entry *entries, size_t n)
{
	OWNED_MEM const struct service_entry **slots = NULL;
	size_t room = 16;

	while (room < n * 2)
		room *= 2;
	slots = calloc(room, sizeof(const struct service_entry *));
	if (!slots)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct service_entry *e = &entries[i];
		size_t at = hash_name(e) & (room - 1);

		while (slots[at] &&
		       (strcmp(slots[at]->name, e->name) != 0 || strcmp(slots[at]->ns, e->ns) != 0))
			at = (at + 1) & (room - 1);
		if (slots[at])
			report_error(report,
				     "%.400s: ServiceEntry %.63s/%.253s is there already, in "
				     "%.200s: give it another name or take it out",
				     e->source, e->ns, e->name, slots[at]->source);
		slots[at] = e;
	}
	return 0;
}

static int gather(struct load *load)
{
	struct service_entry *to;

	for (size_t i = 0; i < load->n_pieces; i++)
		load->n += load->pieces[i].decoded.n;
	load->entries = to = calloc(load->n + 1, sizeof(*to));
	if (!to)
		return -ENOMEM;
	for (size_t i = 0; i < load->n_pieces; i++) {
		const struct decoded *d = &load->pieces[i].decoded;

		if (d->n > 0)
			memcpy(to, d->entries, d->n * sizeof(*to));
		to += d->n;
	}
	return refuse_doubles(&load->report, load->entries, load->n);
}

static int read_all(struct load *load, const char *const *paths, size_t n)
{
	int r;

	file_list_collect(&load->files, paths, n, &load->report);
	load->texts = calloc(load->files.n + 1, sizeof(*load->texts));
	if (!load->texts)
		return -ENOMEM;
	for (size_t i = 0; i < load->files.n && load->bytes <= BYTES_MAX; i++) {
		read_file(load, i);
		cut_file(load, i);
	}
	if (load->report.r < 0)
		return load->report.r; /* nothing is decided on half of the files */

	decode_all(load);
	merge_reports(load);
	r = report_result(&load->report);
	if (r == 0 || r == -EINVAL)
		r = gather(load);
	return r < 0 ? r : report_result(&load->report);
}

static void first_error(const struct report *report, int r, char ret[1024])
{
	const char *text = report->errors.n > 0 ? report->errors.text[0] : NULL;

	if (!text)
		text = strerrordesc_np(-r);
	if (report->errors.n > 1)
		snprintf(ret, 1024, "%s (and %zu more)", text, report->errors.n - 1);
	else
		snprintf(ret, 1024, "%s", text);
}

int load_read(const char *const *paths, size_t n, struct load **ret, char ret_error[static 1024])
{
	OWNED(drop_load) struct load *load = calloc(1, sizeof(*load));
	int r = load ? read_all(load, paths, n) : -ENOMEM;

	if (!load)
		return log_err(r, "cannot load the registry");
	report_log(&load->report);
	if (r < 0 && load->report.errors.n == 0)
		log_err(r, "cannot load the registry");
	if (r < 0) {
		first_error(&load->report, r, ret_error);
		return r;
	}
	free_texts(load);
	*ret = TAKE_PTR(load);
	return 0;
}

int load_build(const struct load *load, const struct service_entry *more, size_t n_more,
	       registry_warn_fn *warn, void *ctx, struct registry **ret)
{
	OWNED_MEM struct service_entry *all = NULL;
	size_t n = load ? load->n : 0;

	if (n_more == 0)
		return registry_new(ret, load ? load->entries : NULL, n, warn, ctx);
	if (n == 0)
		return registry_new(ret, more, n_more, warn, ctx);
	all = calloc(n + n_more, sizeof(*all));
	if (!all)
		return -ENOMEM;
	memcpy(all, load->entries, n * sizeof(*all));
	memcpy(all + n, more, n_more * sizeof(*all));
	return registry_new(ret, all, n + n_more, warn, ctx);
}

static void on_registry_warning(void *ctx, const char *text)
{
	report_warn(ctx, "%s", text);
}

int source_load(const char *const *paths, size_t n, struct registry **ret, char ret_error[1024])
{
	OWNED(drop_load) struct load *load = NULL;
	OWNED(report_done) struct report report = {0};
	char error[1024] = "";
	int r = load_read(paths, n, &load, error);

	if (r == 0) {
		r = load_build(load, NULL, 0, on_registry_warning, &report, ret);
		report_log(&report);
		if (r < 0)
			snprintf(error, sizeof(error), "%s", strerrordesc_np(-r));
	}
	if (r < 0 && ret_error)
		memcpy(ret_error, error, sizeof(error));
	return r;
}
