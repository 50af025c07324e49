# SPDX-License-Identifier: Apache-2.0
"""Instance masks, wherever they come from: files, annotations, boxes, a segmenter.

May import common, data, backend and weights.
"""
