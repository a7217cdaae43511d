"""Damaged and hostile files of every format that bnfold reads."""
