"""Live bytes of the forward passes, derived from what the layers do.

One file for each kind of block; docs/memory.md tells the derivation and the check.
"""

from .peak import peak

__all__ = ["peak"]
