/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What was asked for and is done otherwise: no flag makes a hole. Pure. */
#include "init/options.h"

/* Calls `say` with one line for each flag that has another effect than with Istio: a warning where
 * somebody may have counted on it, else info.
 */
void init_advise(const struct init_options *o,
		 void say(void *ctx, enum log_level level, const char *text), void *ctx);
