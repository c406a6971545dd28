/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What one file of a CNI configuration folder says, and its text with and without our plugin in it.
 * A list is changed where it has to be and nowhere else: order, unknown fields and layout stay, and
 * taking the entry out gives the very text from before. Pure but for memory.
 */
#include "base/span.h"

#define CONF_TYPE "sluice-cni"

enum conf_kind {
	CONF_OTHER,     /* by its name none that a runtime reads */
	CONF_UNUSABLE,  /* a runtime takes it for invalid */
	CONF_SINGLE,    /* .conf, .json: one plugin */
	CONF_LIST,      /* .conflist: a chain */
	CONF_UNCHAINED, /* valid, but of a kind that our plugin cannot be chained into */
};

/* Judges a file by its name and text as libcni does. For CONF_UNUSABLE and CONF_UNCHAINED *ret_why
 * is set to static text.
 */
enum conf_kind conf_judge(const char *name, struct span text, const char **ret_why);

/* By its name alone: is it one that a runtime would look into? */
bool conf_is_candidate(const char *name);

/* Our entry as JSON text. NULL when out of memory, or when an argument is no UTF-8. */
char *conf_entry(const char *agent_socket, const char *timeout);

/* A list's text with `entry` as its last plugin, and no other of ours; without any of ours; a
 * single plugin's text as a list with ours. malloc'ed. -EBADMSG where the text cannot be changed
 * safely; -ENOMEM.
 */
int conf_with(struct span list, const char *entry, char **ret);
int conf_without(struct span list, char **ret);
int conf_to_list(struct span single, const char *entry, char **ret);

/* Is there an entry of ours? False also for what is no list. */
bool conf_has_entry(struct span list);
