# SPDX-License-Identifier: Apache-2.0
"""The page of app.py, and the REST API under it: jobs, their worker, what is kept for how long, and what is refused.

It may import common, data, backend, weights, masks and translation; only app.py imports it."""
