"""The page at `/` of the daemon's HTTP endpoint: what is wrong, the instances, and the clusters. Read-only.

`query` is what a request asks for, `overview` and `cluster` are what it gets as values, `render` makes HTML of them,
and `routes` serves it. Only `routes` does I/O.
"""
