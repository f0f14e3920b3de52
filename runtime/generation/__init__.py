"""Prefill, decode and sampling over a loaded model; text in and out."""
