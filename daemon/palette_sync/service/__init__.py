"""The daemon: runners, clock, reload, requests, signals, and notifications to the supervisor."""
