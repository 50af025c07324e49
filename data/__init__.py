# SPDX-License-Identifier: Apache-2.0
"""Pictures and masks, on disk and as arrays. May import common; knows no network."""
