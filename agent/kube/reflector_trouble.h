/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Saying once that something does not work, and once that it does again, however often it is
 * tried. Logs. One thread.
 *
 * A server that has just been started lets nobody in until it has read its roles and accounts: that
 * we have no rights is told when it is said twice in a row.
 */
#include <stdbool.h>
#include <stdint.h>

#include "kube/client.h"

enum trouble_kind {
	TROUBLE_SERVER, /* away, or too busy */
	TROUBLE_RIGHTS, /* 401, 403 */
	TROUBLE_ANSWER, /* it says what we do not understand */
	TROUBLE_N_,
};

/* All zero but the first two is: all is well. */
struct trouble {
	const char *what;   /* "serviceentries.networking.istio.io" */
	const char *server; /* its URL */
	enum trouble_kind kind;
	unsigned times;               /* in a row, of this kind; 0: all is well */
	bool told;                    /* in the log */
	uint64_t told_ms[TROUBLE_N_]; /* when each was told last; 0: never */
};

enum trouble_kind trouble_kind(const struct kube_answer *answer); /* of one that has failed */

void trouble_note(struct trouble *t, const struct kube_answer *answer, uint64_t now_ms);
void trouble_over(struct trouble *t);
