"""Reads an answer, in LaTeX or plain text, into a tree, and computes with what it says. No text is evaluated as code.

text -> tokens.py -> expressions.py, reader.py (the grammar) -> a tree -> tree.py (simplified), units.py, values.py
(numbers), regions.py (sets of real numbers). What two answers have to share is decided in strict.py, one room up.
"""
