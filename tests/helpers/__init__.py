# SPDX-License-Identifier: Apache-2.0
"""Code that several tests share."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of the project
