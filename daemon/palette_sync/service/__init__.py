"""The daemon: it owns the runners, the clock, signals, requests, and its notices to the supervisor."""
