"""transformers with attention written out in Python (attn_implementation="eager")."""

from ...memory.activation.forward_step import Attend
from ..transformers import Transformers

TRANSFORMERS_EAGER = Transformers("transformers-eager", Attend.EAGER)
