"""The idea: folding is reverse-mode differentiation of an affine. NumPy only, no framework.

affine   the value: y = scale * x + shift
reasons  why a site stays, for people
axes     how index maps carry a parameter from one shape to another
ops      the kinds of operator that are understood
rules    one backward and one forward rule per kind
plan     from one site to a complete edit, or to a refusal
reduction  the shortest spelling of a chain that stays
fold     over all the sites of a graph
"""
