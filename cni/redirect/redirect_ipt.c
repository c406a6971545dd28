/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/redirector.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/owned.h"
#include "redirect/ipt_kernel.h"
#include "redirect/ipt_known.h"
#include "redirect/ipt_run.h"
#include "redirect/ipt_text.h"
#include "redirect/plan.h"

#define OUTPUT_MAX (16U << 20) /* bytes of iptables-save */
#define TIMEOUT_MS 10000       /* of one program */
#define TRIES      5           /* while somebody else changes rules too */

/* ---- the programs ---- */

static const char *family_str(enum ipt_family family)
{
	return family == IPT_V4 ? "iptables" : "ip6tables";
}

/* Programs of both kinds are links to one file with the kind in its name. There was one kind before
 * version 1.8.
 */
static enum ipt_variant variant_of(const char *program)
{
	OWNED_MEM char *path = realpath(program, NULL);

	return path && strstr(path, "nft") ? IPT_NFT : IPT_LEGACY;
}

/* By the name that says which variant it is, or the plain one of a system that has only one. */
static int find_program(enum ipt_variant variant, enum ipt_family family, const char *verb,
			char ret[static IPT_PATH_MAX])
{
	char name[IPT_PATH_MAX];

	snprintf(name, sizeof(name), "%s-%s-%s", family_str(family), ipt_variant_str(variant),
		 verb);
	if (ipt_run_find(name, ret) == 0)
		return 0;
	snprintf(name, sizeof(name), "%s-%s", family_str(family), verb);
	if (ipt_run_find(name, ret) == 0 && variant_of(ret) == variant)
		return 0;
	log_debug("there is no %s-%s-%s", family_str(family), ipt_variant_str(variant), verb);
	return -EOPNOTSUPP;
}

/* The lock is of importance to programs that do not know XTABLES_LOCKFILE (ipt_run.c). */
static int restore(enum ipt_variant variant, enum ipt_family family, const char *text)
{
	static const char *const args[] = {"--noflush", "--wait", "5", NULL};
	char path[IPT_PATH_MAX];
	struct ipt_run run = {path, args, text, 0, TIMEOUT_MS};
	int r;

	if (*text == '\0')
		return 0;
	r = find_program(variant, family, "restore", path);
	return r < 0 ? r : ipt_run(&run, NULL);
}

/* -EAGAIN: the kernel does not hold as many rules as the program says. */
static int list(enum ipt_variant variant, enum ipt_family family, const struct ipt_kernel *kernel,
		struct ipt_listing *ret)
{
	OWNED(ipt_listing_done) struct ipt_listing listing = {0};
	OWNED_MEM char *text = NULL;
	char path[IPT_PATH_MAX];
	struct ipt_run run = {path, NULL, NULL, OUTPUT_MAX, TIMEOUT_MS};
	int r;

	if (!kernel->any[family])
		return ipt_listing_parse("", ret);
	r = find_program(variant, family, "save", path);
	if (r == 0)
		r = ipt_run(&run, &text);
	if (r == 0)
		r = ipt_listing_parse(text, &listing);
	if (r < 0)
		return r;
	if (!ipt_kernel_agrees(kernel, variant, family, &listing))
		return -EAGAIN;
	*ret = listing;
	listing = (struct ipt_listing){0};
	return 0;
}

/* ---- what should be there ---- */

struct wanted {
	char *text[IPT_FAMILY_N_]; /* NULL: a family that this kernel does not have */
};

static void wanted_done(struct wanted *want)
{
	for (unsigned f = 0; f < IPT_FAMILY_N_; f++)
		free(want->text[f]);
}

/* `plan` NULL: nothing of ours. */
static int wanted_make(const struct plan *plan, struct wanted *ret)
{
	int r = 0;

	for (unsigned f = 0; f < IPT_FAMILY_N_ && r == 0; f++) {
		if (f == IPT_V6 && !ipt_kernel_has_v6())
			continue;
		if (plan) {
			r = ipt_text_make(plan, (enum ipt_family)f, &ret->text[f]);
		} else {
			ret->text[f] = strdup("");
			r = ret->text[f] ? 0 : -ENOMEM;
		}
	}
	return r;
}

/* ---- one variant ---- */

static int look(enum ipt_variant variant, struct ipt_kernel *ret)
{
	int r = -EAGAIN;

	for (int i = 0; i < TRIES && (r == -EAGAIN || r == -EINTR); i++)
		r = ipt_kernel_look(variant, ret);
	return r;
}

static int change_family(enum ipt_variant variant, enum ipt_family family,
			 const struct ipt_kernel *kernel, const char *wanted)
{
	OWNED(ipt_listing_done) struct ipt_listing want = {0}, have = {0};
	OWNED_MEM char *text = NULL;
	int r = list(variant, family, kernel, &have);

	if (r < 0)
		return r;
	if (have.is_strange)
		return -EBADMSG;
	r = ipt_listing_parse(wanted, &want);
	if (r == 0 && ipt_listing_compare(&want, &have) == 0)
		return 0;
	if (r == 0)
		r = *wanted ? ipt_change_to(&want, &have, &text)
			    : ipt_change_to_nothing(&have, &text);
	return r < 0 ? r : restore(variant, family, text);
}

static int try_to_change(enum ipt_variant variant, const struct wanted *want)
{
	OWNED(ipt_kernel_done) struct ipt_kernel kernel = {0};
	int r = look(variant, &kernel);

	if (r == 0 && kernel.asleep)
		r = ipt_kernel_wake();
	for (unsigned f = 0; f < IPT_FAMILY_N_ && r == 0; f++) {
		if (want->text[f])
			r = change_family(variant, (enum ipt_family)f, &kernel, want->text[f]);
	}
	return r;
}

static int change(enum ipt_variant variant, const struct wanted *want)
{
	int r = -EAGAIN;

	for (int i = 0; i < TRIES && r == -EAGAIN; i++)
		r = try_to_change(variant, want);
	if (r < 0)
		log_debug("iptables (%s): cannot change the rules: %s", ipt_variant_str(variant),
			  strerrordesc_np(-r));
	return r;
}

/* 1: it has something of ours. */
static int holds(enum ipt_variant variant)
{
	OWNED(ipt_kernel_done) struct ipt_kernel kernel = {0};
	int r = look(variant, &kernel);

	if (r < 0)
		return r == -EOPNOTSUPP ? 0 : r;
	return kernel.ours;
}

static int tidy(enum ipt_variant variant)
{
	OWNED(ipt_kernel_done) struct ipt_kernel kernel = {0};
	int r = variant == IPT_NFT ? look(variant, &kernel) : 0;

	return r < 0 || variant != IPT_NFT ? r : ipt_kernel_tidy(&kernel);
}

static int remove_from(enum ipt_variant variant)
{
	OWNED(wanted_done) struct wanted nothing = {0};
	int r = holds(variant);

	if (r <= 0)
		return r;
	r = wanted_make(NULL, &nothing);
	if (r == 0)
		r = change(variant, &nothing);
	return r < 0 ? r : tidy(variant);
}

static int compare(enum ipt_variant variant, const struct ipt_kernel *kernel,
		   const struct wanted *wanted)
{
	int r = 0;

	for (unsigned f = 0; f < IPT_FAMILY_N_ && r == 0; f++) {
		OWNED(ipt_listing_done) struct ipt_listing want = {0}, have = {0};

		if (!wanted->text[f])
			continue;
		r = list(variant, (enum ipt_family)f, kernel, &have);
		if (r == 0)
			r = ipt_listing_parse(wanted->text[f], &want);
		if (r == 0)
			r = ipt_listing_compare(&want, &have);
	}
	return r == -EAGAIN ? -ESTALE : r;
}

/* All that the answer to "is it as wanted?" depends on. */
static int make_question(enum ipt_variant variant, const struct ipt_kernel *kernel,
			 const struct wanted *want, char **ret, size_t *ret_n)
{
	FILE *out = open_memstream(ret, ret_n);

	if (!out)
		return -ENOMEM;
	fprintf(out, "%s\n", ipt_variant_str(variant));
	for (unsigned f = 0; f < IPT_FAMILY_N_; f++)
		fprintf(out, "%s%c", want->text[f] ?: "none", '\0');
	fwrite(kernel->content, kernel->size, 1, out);
	return fclose(out) == 0 ? 0 : -ENOMEM;
}

/* Programs are asked about what has not been seen before. */
static int verify_in(enum ipt_variant variant, const struct ipt_kernel *kernel,
		     const struct plan *plan)
{
	OWNED(ipt_kernel_done) struct ipt_kernel later = {0};
	OWNED(wanted_done) struct wanted want = {0};
	OWNED_MEM char *question = NULL;
	size_t n;
	int r;

	r = wanted_make(plan, &want);
	if (r == 0)
		r = make_question(variant, kernel, &want, &question, &n);
	if (r < 0)
		return r;
	if (ipt_known(question, n))
		return 0;
	r = compare(variant, kernel, &want);
	if (r < 0)
		return r;
	r = look(variant, &later);
	if (r == 0 && later.size == kernel->size &&
	    memcmp(later.content, kernel->content, later.size) == 0)
		ipt_known_add(question, n);
	return r;
}

/* ---- both variants: that of nf_tables first, where the kernel has it ---- */

/* Each family and table changes by itself. When one cannot, those that were to be the first ones go
 * again; where there had been rules, they stay, whatever they are now: more of them refuse, not
 * less.
 */
static int apply_by(enum ipt_variant variant, const struct wanted *want)
{
	int r, had = holds(variant);

	if (had < 0)
		return had;
	r = change(variant, want);
	if (r < 0 && !had)
		remove_from(variant);
	return r;
}

static int apply_somewhere(const struct wanted *want, enum ipt_variant *ret)
{
	int worst = -EOPNOTSUPP;

	for (unsigned v = 0; v < IPT_VARIANT_N_; v++) {
		int r = apply_by((enum ipt_variant)v, want);

		if (r == 0) {
			*ret = (enum ipt_variant)v;
			return 0;
		}
		if (r != -EOPNOTSUPP)
			worst = r;
	}
	return worst;
}

static int remove_but(enum ipt_variant kept)
{
	int worst = 0;

	for (unsigned v = 0; v < IPT_VARIANT_N_; v++) {
		int r = v == kept ? 0 : remove_from((enum ipt_variant)v);

		worst = worst ?: r;
	}
	return worst;
}

static int remove_all(void)
{
	return remove_but(IPT_VARIANT_N_);
}

static int apply(const struct plan *plan)
{
	OWNED(wanted_done) struct wanted want = {0};
	enum ipt_variant variant = IPT_VARIANT_N_;
	int r;

	if (!ipt_kernel_lo_is_lo())
		return -ENODEV;
	r = wanted_make(plan, &want);
	if (r == 0)
		r = apply_somewhere(&want, &variant);
	return r < 0 ? r : remove_but(variant);
}

static int verify(const struct plan *plan)
{
	OWNED(ipt_kernel_done) struct ipt_kernel holder = {0};
	enum ipt_variant variant = IPT_VARIANT_N_;

	if (!ipt_kernel_lo_is_lo())
		return -ESTALE;
	for (unsigned v = 0; v < IPT_VARIANT_N_; v++) {
		OWNED(ipt_kernel_done) struct ipt_kernel kernel = {0};
		int r = look((enum ipt_variant)v, &kernel);

		if (r < 0 && r != -EOPNOTSUPP)
			return r;
		if (r < 0 || !kernel.ours)
			continue;
		if (variant != IPT_VARIANT_N_ || kernel.asleep)
			return -ESTALE;
		variant = (enum ipt_variant)v;
		holder = kernel;
		kernel = (struct ipt_kernel){0};
	}
	return variant == IPT_VARIANT_N_ ? -ESTALE : verify_in(variant, &holder, plan);
}

/* ---- can it be done here at all? ---- */

static int probe(void)
{
	return redirector_try(apply, verify);
}

const struct redirector redirect_ipt = {
	.name = "iptables",
	.probe = probe,
	.apply = apply,
	.verify = verify,
	.remove = remove_all,
};
