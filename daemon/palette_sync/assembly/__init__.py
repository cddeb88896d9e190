"""Turns settings into parts. `store` is light; `instance` loads Palette, Kubernetes and the pass."""
