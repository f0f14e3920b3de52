"""Attention, FFN, MoE and recurrent blocks that families are built of."""
