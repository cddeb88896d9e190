"""palette-sync: the link between Spectro Cloud Palette and Backstage."""

__version__ = "0.1.0"
