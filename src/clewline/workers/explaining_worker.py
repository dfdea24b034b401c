"""
The explaining process of a server: takes one request after another, and explains.

    this process ─(forks)─► main thread: takes a request, explains, replies
     (subreaper)            watching thread: ends the process at its limits

Its priority is the lowest that the system has (SCHED_IDLE), so that it takes only the time that
predictions leave. It stays in the session of the server, because Linux may group processes by
session, and compares priorities only within a group. The subreaper ends it, and what a model has
started in it, when the server ends.
"""

from __future__ import annotations

import sys

from clewline.model.isolation.subreaper import fork_below


def main() -> None:
    """Run the process; its argument is its orders in JSON."""
    import msgspec

    from clewline.workers.messages import ExplainingOrders

    orders = msgspec.json.decode(sys.argv[1], type=ExplainingOrders)
    fork_below(orders.lifeline)  # before anything large is imported
    from clewline.workers.explaining_loop import run

    run(orders)


if __name__ == "__main__":
    main()
