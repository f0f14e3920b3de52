"""Pure analysis: a model's config.json and a budget in, a recommendation out.

Imports numpy and pydantic only; never torch, transformers or scikit-learn
(tests/planner/test_import_boundary.py holds it), so that a plan starts in the time Python starts.
"""
