# SPDX-License-Identifier: Apache-2.0
"""A trained generator as a file for other programs: ONNX, and NNabla's NNP.

It may import what translation may, and translation."""
