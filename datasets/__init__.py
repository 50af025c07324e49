# SPDX-License-Identifier: Apache-2.0
"""The scripts that make and check data sets. May import common, data and masks."""
