# SPDX-License-Identifier: Apache-2.0
"""Translate pictures instance by instance, and show the results.

It may import common, data, backend, models and weights."""
