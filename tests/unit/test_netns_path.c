/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pod/netns_path.h"

/* Of this process, and of the child that stays until its pipe closes. */
struct fixture {
	struct stat own;
	pid_t child;
	int pipe[2];
};

static int setup(void **state)
{
	static struct fixture f;
	char c;

	if (stat("/proc/self/ns/net", &f.own) < 0 || pipe(f.pipe) < 0)
		return -1;
	f.child = fork();
	if (f.child == 0) {
		close(f.pipe[1]);
		_exit(read(f.pipe[0], &c, 1) != 0);
	}
	*state = &f;
	return f.child < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status;

	close(f->pipe[1]);
	close(f->pipe[0]);
	return waitpid(f->child, &status, 0) == f->child && status == 0 ? 0 : -1;
}

static void test_another_process_is_found(void **state)
{
	const struct fixture *f = *state;
	char path[PATH_MAX], self[64];
	struct stat st;

	assert_int_equal(netns_path_find(f->own.st_dev, f->own.st_ino, 0, path), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_dev == f->own.st_dev && st.st_ino == f->own.st_ino);
	snprintf(self, sizeof(self), "/proc/%d/ns/net", getpid());
	assert_string_not_equal(path, self); /* who asks is no answer */
}

static void test_who_shall_not_be_found_is_not(void **state)
{
	const struct fixture *f = *state;
	char path[PATH_MAX] = "as it was", child[64];
	int r;

	snprintf(child, sizeof(child), "/proc/%d/ns/net", f->child);
	r = netns_path_find(f->own.st_dev, f->own.st_ino, f->child, path);
	assert_true(r == 0 || r == -ENOENT);
	assert_string_not_equal(path, child);
}

static void test_nobody_is_in_it(void **state)
{
	const struct fixture *f = *state;
	char path[PATH_MAX] = "as it was";

	assert_int_equal(netns_path_find(f->own.st_dev, 1, 0, path), -ENOENT);
	assert_int_equal(netns_path_find(f->own.st_dev + 1, f->own.st_ino, 0, path), -ENOENT);
	assert_string_equal(path, "as it was");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_another_process_is_found),
		cmocka_unit_test(test_who_shall_not_be_found_is_not),
		cmocka_unit_test(test_nobody_is_in_it),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
