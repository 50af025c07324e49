# SPDX-License-Identifier: Apache-2.0
"""The scripts that make data sets. They may import common, data and masks."""
