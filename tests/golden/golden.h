/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Comparing text with *.golden. After a change on purpose: SLUICE_GOLDEN_WRITE=1 with the test
 * program writes them anew, for git diff to show. Include behind cmocka.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/addr.h"
#include "redirect/plan.h"

#define GOLDEN_LIST_MAX 16

/* Of words with a blank between them. */
static inline size_t golden_addrs(const char *words, struct addr ret[static GOLDEN_LIST_MAX])
{
	char *text = strdup(words), *save = NULL;
	size_t n = 0;

	assert_non_null(text);
	for (char *t = strtok_r(text, " ", &save); t; t = strtok_r(NULL, " ", &save))
		assert_int_equal(addr_parse_ip(t, &ret[n++]), 0);
	free(text);
	return n;
}

static inline void golden_plan(const char *nets, struct plan *ret)
{
	struct plan_input input = {.capture_port = PLAN_CAPTURE_PORT};
	struct cidr cidrs[GOLDEN_LIST_MAX];
	char *text = strdup(nets), *save = NULL;

	assert_non_null(text);
	input.cluster_cidrs = cidrs;
	for (char *t = strtok_r(text, " ", &save); t; t = strtok_r(NULL, " ", &save))
		assert_int_equal(cidr_parse(t, &cidrs[input.n_cluster_cidrs++]), 0);
	assert_int_equal(plan_make(&input, ret), 0);
	free(text);
}

static inline char *golden_read(const char *path)
{
	FILE *in = fopen(path, "re");
	char *text = NULL;
	size_t size = 0;

	if (!in)
		fail_msg("%s: %s (see golden.h)", path, strerror(errno));
	if (getdelim(&text, &size, '\0', in) < 0)
		fail_msg("%s: %s", path, strerror(errno));
	fclose(in);
	return text;
}

static inline void golden_write(const char *path, const char *text)
{
	FILE *out = fopen(path, "we");

	assert_non_null(out);
	assert_true(fputs(text, out) >= 0);
	assert_int_equal(fclose(out), 0);
}

static inline void golden_check(const char *name, const char *got)
{
	char path[128], *want;

	snprintf(path, sizeof(path), "tests/golden/%s.golden", name);
	if (getenv("SLUICE_GOLDEN_WRITE"))
		golden_write(path, got);
	want = golden_read(path);
	assert_string_equal(got, want);
	free(want);
}
