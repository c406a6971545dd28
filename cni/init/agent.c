/* SPDX-License-Identifier: Apache-2.0 */
#include "init/agent.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "pod/enrol_client.h"

#define RETRY_MS 100

struct pod_text {
	char text[sizeof(struct pod_name) + 1];
};

static struct pod_text pod_text(const struct init_options *o)
{
	struct pod_text t;

	snprintf(t.text, sizeof(t.text), "%s/%s", o->pod.ns, o->pod.name);
	return t;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int ask(const struct init_options *o, const char *op, int netns_fd,
	       char error[static ENROL_CLIENT_ERROR_MAX])
{
	return enrol_request_within(o->value[INIT_AGENT_SOCKET], op, pod_text(o).text,
				    o->value[INIT_SERVICE_ACCOUNT], netns_fd, error);
}

/* It said no, or cannot be asked this way ever: the same question again is the kubelet's to ask. */
static bool is_final(int r)
{
	return r == 0 || r == -EREMOTEIO || r == -EPROTO || r == -EINVAL || r == -ENAMETOOLONG ||
	       r == -EACCES || r == -EPERM;
}

int agent_enrol(const struct init_options *o, int netns_fd)
{
	uint64_t until = now_ms() + init_agent_timeout_ms(o);
	char error[ENROL_CLIENT_ERROR_MAX] = "";
	bool said = false;
	int r;

	for (;;) {
		r = ask(o, "enroll", netns_fd, error);
		if (is_final(r) || now_ms() >= until)
			break;
		if (!said)
			log_info("%s; waiting %s for it", error, o->value[INIT_AGENT_TIMEOUT]);
		said = true;
		/* A socket that is not there yet can be waited for in no other way: its folder may
		 * be missing too.
		 */
		nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000L}, NULL);
	}
	if (r < 0)
		return log_err(0, "pod '%s' is not enrolled: %s", pod_text(o).text, error), r;
	log_info("pod '%s' is enrolled", pod_text(o).text);
	return 0;
}

int agent_check(const struct init_options *o)
{
	char error[ENROL_CLIENT_ERROR_MAX] = "";
	int r = ask(o, "check", -1, error);

	return r < 0 ? log_err(0, "pod '%s': %s", pod_text(o).text, error), r : 0;
}

int agent_does_not_know(const struct init_options *o)
{
	char error[ENROL_CLIENT_ERROR_MAX] = "";
	int r = ask(o, "check", -1, error);

	if (r == -ESRCH)
		return 0;
	if (r == 0 || r == -EREMOTEIO)
		return -EBUSY;
	return log_err(0, "%s", error), r;
}
