# SPDX-License-Identifier: Apache-2.0
"""What several tests need."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of the project
