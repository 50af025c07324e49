# SPDX-License-Identifier: Apache-2.0
"""The place and way that NNabla computes: CPU or GPU, layers, precision, several processes. It may import common.

Others reach `backend.onednn` only through the modules of this folder.
"""
