/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/ipt_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/owned.h"

bool ipt_is_ours(const char *chain)
{
	return strncmp(chain, IPT_PREFIX, strlen(IPT_PREFIX)) == 0;
}

/* ---- reading ---- */

/* Cuts the next line off. A newline within quotes is part of somebody's comment. */
static char *cut_line(char **text)
{
	char *line = *text, *p = line;
	bool quoted = false;

	if (*line == '\0')
		return NULL;
	for (; *p && (quoted || *p != '\n'); p++) {
		if (*p == '\\' && quoted && p[1])
			p++;
		else if (*p == '"' && *line != '#')
			quoted = !quoted;
	}
	*text = *p ? p + 1 : p;
	*p = '\0';
	return line;
}

static char *cut_word(char **text)
{
	char *word = strsep(text, " ");

	if (!*text)
		*text = word + strlen(word);
	return word;
}

/* Does it go to a chain of ours? Words within quotes are no options. */
static bool goes_to_ours(const char *spec)
{
	bool quoted = false;

	for (const char *p = spec; *p; p++) {
		if (*p == '\\' && quoted && p[1])
			p++;
		else if (*p == '"')
			quoted = !quoted;
		else if (!quoted && (p == spec || p[-1] == ' ') &&
			 (strncmp(p, "-j ", 3) == 0 || strncmp(p, "-g ", 3) == 0) &&
			 ipt_is_ours(p + 3))
			return true;
	}
	return false;
}

static int push(struct ipt_listing *l, struct ipt_line line)
{
	if (l->n == l->room) {
		size_t room = l->room ? l->room * 2 : 128;
		struct ipt_line *v = reallocarray(l->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		l->v = v;
		l->room = room;
	}
	l->v[l->n++] = line;
	return 0;
}

static int add_chain(struct ipt_listing *l, enum ipt_table_id table, char *text)
{
	struct ipt_line line = {.table = table, .chain = cut_word(&text)};

	line.spec = cut_word(&text);
	l->n_chains[table]++;
	l->n_builtin[table] += strcmp(line.spec, "-") != 0;
	return push(l, line);
}

static int add_rule(struct ipt_listing *l, enum ipt_table_id table, char *text)
{
	struct ipt_line line = {.table = table, .is_rule = true, .chain = cut_word(&text)};
	const struct ipt_line *before = l->n > 0 ? &l->v[l->n - 1] : NULL;
	size_t n = strlen(text);

	while (n > 0 && text[n - 1] == ' ')
		text[--n] = '\0';
	line.spec = text;
	line.is_first = !before || !before->is_rule || before->table != table ||
			strcmp(before->chain, line.chain) != 0;
	line.is_jump = !ipt_is_ours(line.chain) && goes_to_ours(text);
	l->n_rules[table]++;
	return push(l, line);
}

/* IPT_TABLE_N_: one that is not for us. */
static enum ipt_table_id find_table(const char *name)
{
	enum ipt_table_id t = 0;

	while (t < IPT_TABLE_N_ && strcmp(name, ipt_table_str(t)) != 0)
		t++;
	return t;
}

static int read_lines(struct ipt_listing *l)
{
	enum ipt_table_id table = IPT_TABLE_N_;
	char *text = l->text, *line;
	bool inside = false;
	int r = 0;

	while (r == 0 && (line = cut_line(&text))) {
		if (*line == '#' || *line == '\0')
			continue;
		if (*line == '*' && !inside) {
			table = find_table(line + 1);
			inside = true;
			if (table == IPT_TABLE_N_)
				continue;
			l->is_strange |= l->has_table[table];
			l->has_table[table] = true;
		} else if (strcmp(line, "COMMIT") == 0 && inside) {
			inside = false;
		} else if (*line == ':' && inside) {
			if (table < IPT_TABLE_N_)
				r = add_chain(l, table, line + 1);
		} else if (strncmp(line, "-A ", 3) == 0 && inside) {
			if (table < IPT_TABLE_N_)
				r = add_rule(l, table, line + 3);
		} else {
			l->is_strange = true;
		}
	}
	l->is_strange |= inside;
	return r;
}

int ipt_listing_parse(const char *text, struct ipt_listing *ret)
{
	OWNED(ipt_listing_done) struct ipt_listing l = {.text = strdup(text)};
	int r;

	if (!l.text)
		return -ENOMEM;
	r = read_lines(&l);
	if (r < 0)
		return r;
	*ret = l;
	l = (struct ipt_listing){0};
	return 0;
}

void ipt_listing_done(struct ipt_listing *listing)
{
	free(listing->text);
	free(listing->v);
	*listing = (struct ipt_listing){0};
}

/* ---- comparing ---- */

static bool is_of_ours(const struct ipt_line *line)
{
	return line->is_jump || ipt_is_ours(line->chain);
}

bool ipt_listing_has_ours(const struct ipt_listing *listing)
{
	for (size_t i = 0; i < listing->n; i++) {
		if (is_of_ours(&listing->v[i]))
			return true;
	}
	return false;
}

/* Chains come in the order of iptables; rules keep theirs within a chain. */
static int compare_lines(const void *a, const void *b)
{
	const struct ipt_line *x = *(const struct ipt_line *const *)a;
	const struct ipt_line *y = *(const struct ipt_line *const *)b;
	int r = (int)x->table - (int)y->table;

	r = r ?: (int)x->is_rule - (int)y->is_rule;
	r = r ?: strcmp(x->chain, y->chain);
	return r ?: (x > y) - (x < y);
}

/* Those of ours, sorted. Returns how many; -ENOMEM. */
static int sort_ours(const struct ipt_listing *l, const struct ipt_line ***ret)
{
	OWNED_MEM const struct ipt_line **v = calloc(l->n + 1, sizeof(*v));
	size_t n = 0;

	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < l->n; i++) {
		if (is_of_ours(&l->v[i]))
			v[n++] = &l->v[i];
	}
	qsort(v, n, sizeof(*v), compare_lines);
	*ret = TAKE_PTR(v);
	return (int)n;
}

/* Some versions of iptables quote more than others. */
static bool is_same_text(const char *a, const char *b)
{
	for (;; a++, b++) {
		a += strspn(a, "\"");
		b += strspn(b, "\"");
		if (*a != *b)
			return false;
		if (*a == '\0')
			return true;
	}
}

/* In nf_tables a chain may have the name of a built-in one and no hook. */
static bool is_builtin(const struct ipt_listing *l, enum ipt_table_id table, const char *chain)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct ipt_line *c = &l->v[i];

		if (!c->is_rule && c->table == table && strcmp(c->chain, chain) == 0)
			return strcmp(c->spec, "-") != 0;
	}
	return false;
}

static bool is_as_wanted(const struct ipt_line *want, const struct ipt_line *have,
			 const struct ipt_listing *all)
{
	if (want->table != have->table || want->is_rule != have->is_rule ||
	    strcmp(want->chain, have->chain) != 0 || !is_same_text(want->spec, have->spec))
		return false;
	return !have->is_jump || (have->is_first && is_builtin(all, have->table, have->chain));
}

int ipt_listing_compare(const struct ipt_listing *want, const struct ipt_listing *have)
{
	OWNED_MEM const struct ipt_line **w = NULL, **h = NULL;
	int n_want, n_have;

	if (have->is_strange) {
		log_debug("iptables-save says what it would not say by itself");
		return -ESTALE;
	}
	n_want = sort_ours(want, &w);
	n_have = n_want < 0 ? n_want : sort_ours(have, &h);
	if (n_have < 0)
		return n_have;
	for (int i = 0; i < n_want && i < n_have; i++) {
		if (is_as_wanted(w[i], h[i], have))
			continue;
		log_debug("iptables has \"%s %s\" where \"%s %s\" was planned, or not in its place",
			  h[i]->chain, h[i]->spec, w[i]->chain, w[i]->spec);
		return -ESTALE;
	}
	if (n_want != n_have)
		log_debug("iptables has %d lines where %d were planned", n_have, n_want);
	return n_want == n_have ? 0 : -ESTALE;
}
