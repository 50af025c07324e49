# SPDX-License-Identifier: Apache-2.0
"""Is the translation any good: scores, classifiers, the evaluation and its report.

It may import what translation may, and translation; never training."""
