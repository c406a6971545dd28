/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The rules of the pod that the calling thread is in. Logs. */
#include <stdio.h>

#include "init/options.h"
#include "redirect/plan.h"

/* For plan_done(). -errno. */
int rules_plan(const struct init_options *o, struct plan *ret);

/* Prints the plan, and what nf_tables would be told where that is the back end. -errno. */
int rules_print(const struct init_options *o, FILE *out);

/* Puts them in place, by the first back end that proves itself: what it did, it reads back. When
 * that fails, what is in place stays. -errno.
 */
int rules_apply(const struct init_options *o, const struct plan *plan);

/* Takes away whatever is there, of all back ends. -errno. */
int rules_remove(void);
