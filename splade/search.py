"""Search an index for one question, for the lines of standard input (-), or for what is typed at a prompt.

An index knows which model made it and where the texts of its documents are, so nothing else need be named. The
beginning of each text is shown, with the words that match marked. config.top_k says how many documents are shown, 10
unless it is given.

Example: python -m splade.search experiments/debug/index "what do bees eat"
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.search", __doc__)
