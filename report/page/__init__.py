"""The report: one self-contained page of pictures, live on localhost too.

`report_file.py` reads plans and receipts and writes the page: `data.py` gathers numbers, `build.py`
puts them and the scripts into one file, `figures.js` draws.
The page draws with Observable Plot (vendor/), and never asks a network for anything.
"""

DOOR = ("report_file", "server")
"""Modules that other rooms may import."""
