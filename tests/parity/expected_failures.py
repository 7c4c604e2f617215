"""Golden files of pieces that are not built yet, by prefix.

Each is a strict expected failure: when the piece and its check arrive, the test
passes, which fails the suite until the line here is removed. The prefix alone
decides: such a file is not even opened.
"""

NOT_BUILT_YET: dict[str, str] = {}
