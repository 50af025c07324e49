# SPDX-License-Identifier: Apache-2.0
"""The tests, in the folders of what they test; what several of them need is in helpers."""
