# SPDX-License-Identifier: Apache-2.0
"""Everything around the training iteration: graphs, image pool, checkpoints, monitors, evaluation.

It may import what translation may, translation, metrics, and losses."""
