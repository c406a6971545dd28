/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "base/owned.h"
#include "pod/found.h"

#define UID   "3c1b0a52-6f1e-4f5c-9d6e-0123456789ab"
#define UID_  "3c1b0a52_6f1e_4f5c_9d6e_0123456789ab"
#define OTHER "3c1b0a52-6f1e-4f5c-9d6e-0123456789ac"

static void test_folder_end(void **state)
{
	static const struct {
		const char *text, *folder; /* NULL: it is not in it */
	} cases[] = {
		{"0::/kubepods/besteffort/pod" UID "/0123abcd", "0::/kubepods/besteffort/pod" UID},
		{"0::/kubepods/pod" UID, "0::/kubepods/pod" UID},
		{"12:pids:/kn1/kubepods/burstable/pod" UID "/x\n0::/\n",
		 "12:pids:/kn1/kubepods/burstable/pod" UID},
		{"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" UID_
		 ".slice/cri-containerd-ab.scope",
		 "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" UID_
		 ".slice"},
		{"0::/kubepods/pod" OTHER "/x", NULL},
		{"0::/kubepods/pod" UID "0/x", NULL},
		{"0::/kubepods/pod" UID ".slices/x", NULL},
		{"0::/kubepods/" UID "/x", NULL},
		{"0::/kubepods/pod3c1b0a52-6f1e-4f5c", NULL},
		{"0::/pod/pod/pod" UID "/x", "0::/pod/pod/pod" UID},
		{"0::/system.slice/podman.service", NULL},
		{"0::/", NULL},
		{"", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *end = found_folder_end(cases[i].text, UID);

		if (!cases[i].folder && end)
			fail_msg("case %zu: found until '%s'", i, end);
		if (cases[i].folder &&
		    (!end || (size_t)(end - cases[i].text) != strlen(cases[i].folder)))
			fail_msg("case %zu: '%s'", i, end ? end : "not found");
	}
	assert_null(found_folder_end("0::/kubepods/pod/x", ""));
}

/* Nothing on this machine is called so. */
static void test_scan_finds_nobody(void **state)
{
	struct found f[2] = {{.uid = "no-such-pod-" OTHER}, {.uid = "", .pid = 7}};

	(void)state;
	assert_int_equal(found_scan(f, 2), 0);
	assert_int_equal(f[0].pid, 0);
	assert_int_equal(f[1].pid, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_folder_end),
		cmocka_unit_test(test_scan_finds_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
