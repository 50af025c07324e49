# SPDX-License-Identifier: Apache-2.0
"""What every script needs: errors, command lines, files, progress. It imports nothing else of this project."""
