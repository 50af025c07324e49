# SPDX-License-Identifier: Apache-2.0
"""Pictures and masks, on disk and as arrays. It may import common; it knows no network."""
