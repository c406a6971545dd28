/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/agent.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define PAUSE_MIN_MS 10
#define PAUSE_MAX_MS 160

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void sleep_ms(uint64_t ms)
{
	nanosleep(&(struct timespec){.tv_sec = (time_t)(ms / 1000),
				     .tv_nsec = (long)(ms % 1000) * 1000000},
		  NULL);
}

bool agent_may_answer_later(int r)
{
	return r == -EAGAIN || r == -ENOENT || r == -ECONNREFUSED || r == -ECONNRESET ||
	       r == -EPIPE || r == -ETIMEDOUT;
}

int agent_ask(const char *socket_path, const struct enrol_question *question, unsigned timeout_ms,
	      char error[static ENROL_CLIENT_ERROR_MAX])
{
	uint64_t until = now_ms() + timeout_ms, pause = PAUSE_MIN_MS, now;
	struct enrol_question q = *question;
	char why[ENROL_CLIENT_ERROR_MAX] = "";
	int r = 0, last;

	q.timeout_ms = timeout_ms;
	for (;;) {
		last = enrol_ask(socket_path, &q, why);
		/* That there was no time for another answer says less than the one before. */
		if (r != -EAGAIN || last != -ETIMEDOUT) {
			r = last;
			memcpy(error, why, sizeof(why));
		}
		now = now_ms();
		if (!agent_may_answer_later(r) || now + pause >= until)
			return r;
		/* A socket that is not there yet can be waited for in no other way: its folder may
		 * be missing too.
		 */
		sleep_ms(pause);
		pause = pause * 2 < PAUSE_MAX_MS ? pause * 2 : PAUSE_MAX_MS;
		now = now_ms();
		if (now >= until)
			return r;
		q.timeout_ms = (unsigned)(until - now);
	}
}
