# SPDX-License-Identifier: Apache-2.0
"""Network parameters in files, which are read as untrusted input. It may import common and models."""
