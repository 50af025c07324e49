# SPDX-License-Identifier: Apache-2.0
"""The layer below the networks: CPU or GPU, layers, precision, several processes. It may import common.

Others reach `backend.onednn` only through the modules of this folder.
"""
