"""`calibrate --ray`: runs over the cards of a Ray cluster, one writer of rows.

worker      what runs on a card: a model, a configuration at a time, rows as they are known
workers     the cluster seen from the writer: who is idle, whose row came, who was lost
campaign    the calibration's choices with several runs under way
"""

DOOR = ("run",)
"""Modules that other rooms may import."""
