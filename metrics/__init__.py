# SPDX-License-Identifier: Apache-2.0
"""Measure the quality of translations: scores, classifiers, the evaluation and its report.

It may import what translation may, and translation; never training."""
