/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Text to numbers, all of it or nothing. Pure, any thread. */
#include <stdint.h>

/* Decimal digits only, from `min` to `max`. -EINVAL, or -ERANGE when outside. */
int num_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret);

/* 1 to 65535. -EINVAL or -ERANGE. */
int num_parse_port(const char *text, uint16_t *ret);

/* A duration as Go and Istio write it: "5s", "500ms", "1h", "1m30s"; also "0s". Milliseconds.
 * -EINVAL; -ERANGE beyond ten years.
 */
int num_parse_duration_ms(const char *text, uint64_t *ret);
