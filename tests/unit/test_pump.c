/* SPDX-License-Identifier: Apache-2.0 */

/* A pump between two socketpairs, driven without a loop: what goes in comes out, however the kernel
 * and a judge cut it.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/pump.h"

struct rig {
	struct pump_env env;
	struct sock from, to;
	struct pump pump;
	int writer, reader; /* the outer ends */
};

static int set_up(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	int a[2], b[2];

	assert_non_null(rig);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, a), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, b), 0);
	rig->writer = a[0];
	rig->reader = b[1];
	rig->from.watch.fd = a[1];
	rig->to.watch.fd = b[0];
	rig->from.readable = rig->to.writable = true;
	rig->pump = (struct pump){.from = &rig->from, .to = &rig->to, .run = PUMP_ALL};
	rig->env.scratch = malloc(PUMP_SCRATCH);
	rig->env.max_pipes = 4;
	*state = rig;
	return 0;
}

static int tear_down(void **state)
{
	struct rig *rig = *state;

	pump_drop(&rig->env, &rig->pump);
	assert_int_equal(rig->env.n_pipes, rig->env.n_idle_pipes);
	pump_env_done(&rig->env);
	assert_int_equal(rig->env.n_pipes, 0);
	close(rig->writer);
	close(rig->reader);
	close(rig->from.watch.fd);
	close(rig->to.watch.fd);
	free(rig);
	return 0;
}

/* What an edge would have said. */
static void look_at_sockets(struct rig *rig)
{
	struct pollfd fds[] = {{.fd = rig->from.watch.fd, .events = POLLIN | POLLRDHUP},
			       {.fd = rig->to.watch.fd, .events = POLLOUT}};

	poll(fds, 2, 0);
	rig->from.readable = fds[0].revents & (POLLIN | POLLHUP | POLLRDHUP);
	rig->from.hup = fds[0].revents & (POLLHUP | POLLRDHUP);
	rig->to.writable = fds[1].revents & (POLLOUT | POLLHUP | POLLERR);
}

static uint8_t byte_at(size_t i)
{
	return (uint8_t)(i * 2654435761u >> 13);
}

/* Sends `total` bytes and the end through the pump, and checks each one on the other side. */
static void carry(struct rig *rig, size_t total, size_t write_size, size_t read_size,
		  struct judge *judge)
{
	uint8_t *buf = malloc(write_size > read_size ? write_size : read_size);
	size_t sent = 0, got = 0;
	enum pump_result r = PUMP_BLOCKED;
	bool ended = false;
	int error = 0;

	assert_non_null(buf);
	while (!ended) {
		size_t n = total - sent < write_size ? total - sent : write_size;
		ssize_t m;

		for (size_t i = 0; i < n; i++)
			buf[i] = byte_at(sent + i);
		m = n ? write(rig->writer, buf, n) : 0;
		sent += m > 0 ? (size_t)m : 0;
		if (sent == total)
			shutdown(rig->writer, SHUT_WR);
		look_at_sockets(rig);
		r = pump_step(&rig->env, &rig->pump, judge, &error);
		assert_true(r == PUMP_BLOCKED || r == PUMP_AGAIN || r == PUMP_DONE);
		m = read(rig->reader, buf, read_size);
		for (ssize_t i = 0; i < m; i++)
			assert_int_equal(buf[i], byte_at(got + (size_t)i));
		got += m > 0 ? (size_t)m : 0;
		ended = m == 0;
	}
	assert_int_equal(got, total);
	assert_int_equal(rig->pump.bytes, total);
	assert_int_equal(r, PUMP_DONE);
	assert_true(pump_is_empty(&rig->pump));
	free(buf);
}

static void test_carries_small_and_large(void **state)
{
	carry(*state, 5000000, 100000, 30000, NULL);
}

static void test_carries_single_bytes(void **state)
{
	carry(*state, 3000, 1, 1, NULL);
}

static void test_carries_to_a_slow_reader(void **state)
{
	carry(*state, 3000000, 1 << 20, 4096, NULL);
}

static void test_carries_without_pipes(void **state)
{
	struct rig *rig = *state;

	rig->env.max_pipes = 0;
	carry(rig, 5000000, 100000, 30000, NULL);
}

/* Lets a length byte and as many bytes pass, again and again; lengths that need more wait. */
struct framing {
	struct judge judge;
	size_t frames;
};

static size_t look_at_frame(struct judge *j, struct pump *p, struct span in)
{
	struct framing *f = (struct framing *)j;
	size_t need = 1 + in.p[0] % 7; /* a "head" that has to be seen whole */

	if (in.len < need)
		return 0;
	p->run = (uint64_t)in.p[0] * 3;
	f->frames++;
	return need;
}

static void test_judge_sees_whole_heads(void **state)
{
	struct rig *rig = *state;
	struct framing f = {.judge.look = look_at_frame};
	size_t total = 0, frames = 0;

	while (frames < 4000) {
		total += 1 + byte_at(total) % 7 + (size_t)byte_at(total) * 3;
		frames++;
	}
	rig->pump.run = 0;
	carry(rig, total, 977, 4096, &f.judge);
	assert_int_equal(f.frames, 4000);
}

static size_t pause_at_once(struct judge *j, struct pump *p, struct span in)
{
	(void)j;
	(void)in;
	p->paused = true;
	return 0;
}

static void test_paused_pump_keeps_what_it_has(void **state)
{
	struct rig *rig = *state;
	struct judge judge = {.look = pause_at_once};
	char got[8];
	int error;

	rig->pump.run = 0;
	assert_int_equal(write(rig->writer, "abc", 3), 3);
	assert_int_equal(pump_step(&rig->env, &rig->pump, &judge, &error), PUMP_BLOCKED);
	assert_int_equal(read(rig->reader, got, sizeof(got)), -1);

	rig->pump.paused = false;
	rig->pump.run = PUMP_ALL;
	pump_judge(&rig->pump, &judge);
	assert_int_equal(pump_step(&rig->env, &rig->pump, &judge, &error), PUMP_BLOCKED);
	assert_int_equal(read(rig->reader, got, sizeof(got)), 3);
	assert_memory_equal(got, "abc", 3);
}

static void test_front_goes_first(void **state)
{
	struct rig *rig = *state;
	char got[64] = "";
	int error;

	assert_int_equal(pump_put(&rig->pump, (const uint8_t *)"hello", 5, 5), 0);
	assert_int_equal(pump_put_front(&rig->pump, (const uint8_t *)"header ", 7), 0);
	assert_int_equal(pump_step(&rig->env, &rig->pump, NULL, &error), PUMP_BLOCKED);
	assert_int_equal(read(rig->reader, got, sizeof(got)), 12);
	assert_string_equal(got, "header hello");
	assert_null(rig->pump.buf);
}

static void test_reader_gone(void **state)
{
	struct rig *rig = *state;
	int error = 0;

	close(rig->reader);
	rig->reader = -1;
	assert_int_equal(write(rig->writer, "abc", 3), 3);
	assert_int_equal(pump_step(&rig->env, &rig->pump, NULL, &error), PUMP_TO_FAILED);
	assert_int_equal(error, EPIPE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_carries_small_and_large, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_carries_single_bytes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_carries_to_a_slow_reader, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_carries_without_pipes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_judge_sees_whole_heads, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_paused_pump_keeps_what_it_has, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_front_goes_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_reader_gone, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
