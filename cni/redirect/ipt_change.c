/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/ipt_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"

struct change {
	const struct ipt_listing *want, *have;
	enum ipt_table_id table;
	FILE *out;
};

static bool is_chain(const struct ipt_line *l, enum ipt_table_id table)
{
	return !l->is_rule && l->table == table && ipt_is_ours(l->chain);
}

static bool has_chain(const struct ipt_listing *listing, enum ipt_table_id table, const char *name)
{
	for (size_t i = 0; i < listing->n; i++) {
		if (is_chain(&listing->v[i], table) && strcmp(listing->v[i].chain, name) == 0)
			return true;
	}
	return false;
}

/* Jumps out of the chain `name`; *ret_last is one of them. */
static size_t count_jumps(const struct ipt_listing *listing, enum ipt_table_id table,
			  const char *name, const struct ipt_line **ret_last)
{
	size_t n = 0;

	for (size_t i = 0; i < listing->n; i++) {
		const struct ipt_line *l = &listing->v[i];

		if (!l->is_jump || l->table != table || strcmp(l->chain, name) != 0)
			continue;
		*ret_last = l;
		n++;
	}
	return n;
}

/* The one jump that there should be out of this chain, and the first rule there. */
static bool is_settled(const struct change *c, const char *chain)
{
	const struct ipt_line *want = NULL, *have = NULL;

	return count_jumps(c->want, c->table, chain, &want) == 1 &&
	       count_jumps(c->have, c->table, chain, &have) == 1 && have->is_first &&
	       strcmp(have->spec, want->spec) == 0;
}

/* A jump that is not as it should be goes, and so do those to chains that are going: a rule is
 * deleted by what it says, so that a rule of somebody else's can never be meant.
 */
static void delete_jumps(const struct change *c)
{
	for (size_t i = 0; i < c->have->n; i++) {
		const struct ipt_line *l = &c->have->v[i];

		if (l->is_jump && l->table == c->table && !is_settled(c, l->chain))
			fprintf(c->out, "-D %s %s\n", l->chain, l->spec);
	}
}

/* Emptied before they are deleted: they may lead to each other. */
static void delete_chains(const struct change *c)
{
	static const char *const verbs[] = {"-F", "-X"};

	for (size_t v = 0; v < ARRAY_SIZE(verbs); v++) {
		for (size_t i = 0; i < c->have->n; i++) {
			const struct ipt_line *l = &c->have->v[i];

			if (is_chain(l, c->table) && !has_chain(c->want, c->table, l->chain))
				fprintf(c->out, "%s %s\n", verbs[v], l->chain);
		}
	}
}

/* With --noflush, a chain of one's own that is declared is there and empty. */
static void declare_chains(const struct change *c)
{
	for (size_t i = 0; i < c->want->n; i++) {
		if (is_chain(&c->want->v[i], c->table))
			fprintf(c->out, ":%s - [0:0]\n", c->want->v[i].chain);
	}
}

static void add_rules(const struct change *c)
{
	for (size_t i = 0; i < c->want->n; i++) {
		const struct ipt_line *l = &c->want->v[i];

		if (l->is_rule && !l->is_jump && l->table == c->table)
			fprintf(c->out, "-A %s %s\n", l->chain, l->spec);
	}
}

static void insert_jumps(const struct change *c)
{
	for (size_t i = 0; i < c->want->n; i++) {
		const struct ipt_line *l = &c->want->v[i];

		if (l->is_jump && l->table == c->table && !is_settled(c, l->chain))
			fprintf(c->out, "-I %s %s\n", l->chain, l->spec);
	}
}

static bool has_ours_in(const struct ipt_listing *listing, enum ipt_table_id table)
{
	for (size_t i = 0; i < listing->n; i++) {
		const struct ipt_line *l = &listing->v[i];

		if (l->table == table && (l->is_jump || ipt_is_ours(l->chain)))
			return true;
	}
	return false;
}

/* A table is replaced at its COMMIT, all at once. */
static void change_table(const struct change *c)
{
	if (!has_ours_in(c->want, c->table) && !has_ours_in(c->have, c->table))
		return;
	fprintf(c->out, "*%s\n", ipt_table_str(c->table));
	declare_chains(c);
	delete_jumps(c);
	delete_chains(c);
	add_rules(c);
	insert_jumps(c);
	fputs("COMMIT\n", c->out);
}

int ipt_change_to(const struct ipt_listing *want, const struct ipt_listing *have, char **ret)
{
	struct change c = {.want = want, .have = have};
	OWNED_MEM char *text = NULL;
	size_t size;

	c.out = open_memstream(&text, &size);
	if (!c.out)
		return -ENOMEM;
	for (unsigned t = 0; t < IPT_TABLE_N_; t++) {
		c.table = (enum ipt_table_id)t;
		change_table(&c);
	}
	if (fclose(c.out) != 0)
		return -ENOMEM;
	*ret = TAKE_PTR(text);
	return 0;
}

int ipt_change_to_nothing(const struct ipt_listing *have, char **ret)
{
	const struct ipt_listing nothing = {0};
	struct change c = {.want = &nothing, .have = have};
	OWNED_MEM char *text = NULL;
	size_t size;

	c.out = open_memstream(&text, &size);
	if (!c.out)
		return -ENOMEM;
	for (unsigned t = IPT_TABLE_N_; t-- > 0;) {
		c.table = (enum ipt_table_id)t;
		change_table(&c);
	}
	if (fclose(c.out) != 0)
		return -ENOMEM;
	*ret = TAKE_PTR(text);
	return 0;
}
