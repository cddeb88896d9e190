"""One pass over one instance: the only place where the pure core and I/O meet."""
