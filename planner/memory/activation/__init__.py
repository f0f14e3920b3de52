"""Live bytes of the forward passes, derived from what the layers do, for each engine.

One file for each kind of block; docs/memory.md tells the derivation and the check.
"""

from .peak import Activation, peak

__all__ = ["Activation", "peak"]
