"""Families with recurrent layers: state space, linear attention, gated convolutions."""
