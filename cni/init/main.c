/* SPDX-License-Identifier: Apache-2.0 */

/* sluice-init: an init container with istio-iptables' flags, for clusters in which no CNI plugin
 * may be installed. Closes the pod, then has the node's agent open the one way that is allowed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/owned.h"
#include "init/advice.h"
#include "init/agent.h"
#include "init/options.h"
#include "init/place.h"
#include "init/rules.h"

enum {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_INVALID = 126, /* Istio's code for a pod that is not captured */
};

static void say(void *ctx, enum log_level level, const char *text)
{
	(void)ctx;
	if (level == LOG_LEVEL_WARNING)
		log_warn(0, "%s", text);
	else
		log_info("%s", text);
}

static int print_help(void)
{
	OWNED_MEM char *text = init_help();

	return text && fputs(text, stdout) >= 0 && fflush(stdout) == 0 ? EXIT_DONE : EXIT_FAILED;
}

/* Rules may go only where nobody counts on them: the agent has to say so, and nothing of it may be
 * in the pod.
 */
static int clean_up(const struct init_options *o)
{
	int r = agent_does_not_know(o);

	if (r == 0 && place_has_listener() != 0)
		r = -EBUSY;
	if (r == -EBUSY)
		log_err(0, "--cleanup-only: an agent holds this pod: sluicectl unenroll takes its "
			   "rules away; nothing was removed");
	else if (r < 0)
		log_err(0, "--cleanup-only: only with an agent that says that the pod is not "
			   "enrolled; nothing was removed");
	if (r < 0 || rules_remove() < 0)
		return EXIT_FAILED;
	log_warn(0, "the rules are removed: nothing is captured or refused in this pod any more");
	return EXIT_DONE;
}

static int close_pod(const struct init_options *o)
{
	OWNED(plan_done) struct plan plan = {0};
	int r = rules_plan(o, &plan);

	return r < 0 ? r : rules_apply(o, &plan);
}

static int capture(const struct init_options *o, int netns_fd)
{
	bool by_agent = init_is_on(o, INIT_SKIP_RULE_APPLY);
	bool validate = init_is_on(o, INIT_RUN_VALIDATION);
	int r;

	if (!by_agent && close_pod(o) < 0)
		return EXIT_FAILED;
	r = agent_enrol(o, netns_fd);
	if (r < 0) {
		log_err(0, by_agent ? "this program put no rules in place (--skip-rule-apply); it "
				      "fails, so that the pod does not start"
				    : "the rules are in place: the pod reaches nothing outside the "
				      "cluster, and does not start until an agent answers");
		return by_agent && validate ? EXIT_INVALID : EXIT_FAILED;
	}
	return validate && agent_check(o) < 0 ? EXIT_INVALID : EXIT_DONE;
}

static int act(const struct init_options *o)
{
	OWNED_FD int netns_fd = place_enter(o->value[INIT_NETWORK_NAMESPACE]);

	if (netns_fd < 0)
		return log_err(netns_fd, "cannot enter the network namespace '%s'",
			       o->value[INIT_NETWORK_NAMESPACE]),
		       EXIT_FAILED;
	if (place_is_the_nodes())
		return log_err(0,
			       "this is the node's own network namespace: a pod with hostNetwork "
			       "needs no such container; nothing was changed"),
		       EXIT_FAILED;
	return init_is_on(o, INIT_CLEANUP_ONLY) ? clean_up(o) : capture(o, netns_fd);
}

int main(int argc, char **argv)
{
	char error[INIT_ERROR_MAX];
	struct init_options o;

	if (init_options_parse(argc, argv, environ, &o, error) < 0)
		return log_err(0, "%s", error), EXIT_FAILED;
	if (init_is_on(&o, INIT_HELP))
		return print_help();
	log_set_level(init_log_level(&o));
	init_advise(&o, say, NULL);
	if (init_is_on(&o, INIT_DRY_RUN))
		return rules_print(&o, stdout) < 0 ? EXIT_FAILED : EXIT_DONE;
	return act(&o);
}
