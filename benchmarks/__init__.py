# SPDX-License-Identifier: Apache-2.0
"""The scripts that measure speed, memory and precision. They may import everything but tests."""
