# SPDX-License-Identifier: Apache-2.0
"""Manifests and what stands beside them, without a cluster: reads files, starts nothing but programs
of ours and shells. Needs python3-yaml.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
