# SPDX-License-Identifier: Apache-2.0
"""Network parameters in files, read without trusting them. It may import common and models."""
