/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/refusal.h"
#include "sniff/http_head.h"

static void test_tls_alerts(void **state)
{
	static const struct {
		enum reason reason;
		uint8_t description;
	} cases[] = {
		{REASON_HOST_NOT_REGISTERED, 112}, {REASON_PORT_NOT_REGISTERED, 112},
		{REASON_NOT_EXPORTED, 112},        {REASON_NO_SERVER_NAME, 112},
		{REASON_PRIVATE_DESTINATION, 112}, {REASON_MALFORMED_HELLO, 50},
		{REASON_GATEWAY_UNAVAILABLE, 80},  {REASON_UPSTREAM_FAILED, 80},
	};
	uint8_t buf[REFUSAL_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const uint8_t want[] = {21, 3, 3, 0, 2, 2, cases[i].description};

		assert_int_equal(refusal_write(SPOKEN_TLS, cases[i].reason, 0, "", buf),
				 sizeof(want));
		assert_memory_equal(buf, want, sizeof(want));
	}
}

/* Every reason makes a response that our own strict reader takes, with all of its body. */
static void test_http_is_well_formed(void **state)
{
	char host[254];

	(void)state;
	memset(host, 'a', sizeof(host) - 1);
	host[sizeof(host) - 1] = '\0';
	for (enum reason reason = 0; reason < REASON_N_; reason++) {
		uint8_t buf[REFUSAL_MAX];
		struct http_response res = {0};
		size_t n = refusal_write(SPOKEN_HTTP, reason, 0, host, buf);

		assert_in_range(n, 1, REFUSAL_MAX);
		assert_int_equal(http_response_read((struct span){buf, n}, n, false, &res),
				 SNIFF_FOUND);
		assert_int_equal(res.status, http_status_of(reason));
		assert_int_equal(res.body, HTTP_BODY_LENGTH);
		assert_int_equal(res.head_len + res.content_length, n);
		assert_false(res.keep_alive);
		assert_int_not_equal(res.status, 502);
		assert_non_null(memmem(buf, n, host, strlen(host)));
		assert_non_null(memmem(buf, n, reason_str(reason), strlen(reason_str(reason))));
	}
}

static void test_http_status_given(void **state)
{
	uint8_t buf[REFUSAL_MAX];
	size_t n = refusal_write(SPOKEN_HTTP, REASON_NO_ROUTE, 421, "b.example.com", buf);

	(void)state;
	assert_memory_equal(buf, "HTTP/1.1 421 Misdirected Request\r\n", 34);
	assert_non_null(memmem(buf, n, "host 'b.example.com' refused: no_route\n", 39));
}

static void test_others_get_a_reset(void **state)
{
	uint8_t buf[REFUSAL_MAX];

	(void)state;
	assert_int_equal(refusal_write(SPOKEN_OTHER, REASON_HOST_NOT_REGISTERED, 0, "", buf), 0);
	assert_int_equal(refusal_write(SPOKEN_NOTHING, REASON_HELLO_TIMEOUT, 0, "", buf), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tls_alerts),
		cmocka_unit_test(test_http_is_well_formed),
		cmocka_unit_test(test_http_status_given),
		cmocka_unit_test(test_others_get_a_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
