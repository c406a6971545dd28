/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/reflector_trouble.h"

#include <errno.h>

#include "base/log.h"

#define AGAIN_MS 60000 /* what comes and goes is told no more often */

enum trouble_kind trouble_kind(const struct kube_answer *answer)
{
	if (answer->r == -EBADMSG || answer->r == -EMSGSIZE)
		return TROUBLE_ANSWER;
	if (answer->r < 0 || answer->status >= 500 || answer->status == 429)
		return TROUBLE_SERVER;
	return answer->status == 401 || answer->status == 403 ? TROUBLE_RIGHTS : TROUBLE_ANSWER;
}

static void tell(const struct trouble *t, const struct kube_answer *answer)
{
	if (answer->status == 401 && answer->r == 0)
		log_warn(0,
			 "%s does not let us in (401): are token and client certificate those of "
			 "this cluster? Cannot watch %s, trying again: %s",
			 t->server, t->what, answer->text);
	else if (t->kind == TROUBLE_RIGHTS)
		log_warn(0,
			 "not allowed to watch %s: the role of the agent needs the verbs list and "
			 "watch for it; trying again: %s",
			 t->what, answer->text);
	else
		log_warn(0,
			 "cannot watch %s at %s, going on with what is known and trying again: %s",
			 t->what, t->server, answer->text);
}

static const unsigned told_at[TROUBLE_N_] = {
	[TROUBLE_SERVER] = 1,
	[TROUBLE_RIGHTS] = 2,
	[TROUBLE_ANSWER] = 1,
};

void trouble_note(struct trouble *t, const struct kube_answer *answer, uint64_t now_ms)
{
	enum trouble_kind kind = trouble_kind(answer);
	uint64_t *told_ms = &t->told_ms[kind];

	t->times = t->kind == kind ? t->times + 1 : 1;
	t->kind = kind;
	if (t->times != told_at[kind])
		return;
	if (*told_ms > 0 && now_ms - *told_ms < AGAIN_MS)
		return;
	*told_ms = now_ms;
	t->told = true;
	tell(t, answer);
}

void trouble_over(struct trouble *t)
{
	if (t->told)
		log_info("watching %s at %s works again", t->what, t->server);
	t->times = 0;
	t->told = false;
}
