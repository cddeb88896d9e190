"""What a release consists of: its version, its files, their bill of materials, and what is known of their parts.

`docs/releasing.md` says how a release is made; each module here is one of its commands.
"""
