"""Serve an index on a web page with an HTTP API under it; on this machine alone unless serve.host says otherwise.

The index knows which model made it and where the texts of its documents are. An index that is built again is taken
without a restart. Ctrl-C, or SIGTERM, lets requests that are worked on end. The API is described at /openapi.json.

Example: python -m splade.serve experiments/debug/index
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.serve", __doc__)
