#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command and fails when it fails, or when a cmocka test of it was skipped.
set -euo pipefail

out=$(mktemp)
trap 'rm -f "$out"' EXIT
"$@" 2>&1 | tee "$out"
if grep -F '[  SKIPPED ]' "$out" >/dev/null; then
	echo "skipped tests count as failures" >&2
	exit 1
fi
