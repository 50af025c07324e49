# SPDX-License-Identifier: Apache-2.0
"""The helpers of every script: errors, command lines, files, progress.

It imports nothing else of this project, neither NNabla nor pictures.
"""
