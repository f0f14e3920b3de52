"""The report: one self-contained page of pictures, live on localhost too.

`data.py` gathers numbers, `build.py` puts them and the scripts into one file, `figures.js` draws.
The page draws with Observable Plot (vendor/), and never asks a network for anything.
"""

DOOR = ("build", "data", "figures", "server", "sources")
"""Modules that other rooms may import."""
