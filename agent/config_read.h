/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The fields of a configuration, one by one and section by section, for config.c. Pure. */
#include "config.h"
#include "resource/field.h"

/* Reads the map at `top` over the defaults that `config` holds; what it points to lives in the
 * memory of `top`. Complaints go to its report.
 */
void config_read(const struct field *top, struct config *config);
