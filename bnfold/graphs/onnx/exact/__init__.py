"""Running a model in float64: the reference against which rounding is told from a fault, and the proof by parts.

`engine` runs a document node by node; `windows`, `interpolation` and `kernels` hold operators written for speed and
float64, and name those of onnx's own reference implementation that are trusted. What is in neither is not run, with a
reason. `fixed` computes what a model computes from its weights alone, `rounding` moves values as rounding does,
`parting` finds the operator on which float64 and a runtime differ.

`matching` says which values of two models are the same, `cutouts` cuts out the parts in which they differ, `samples`
draws what these are run on, `activity` tells whether that reaches all of them, `alone` makes a model of one for a
runtime, `certify` judges them, `findings` are what it finds; `exposed` hands out values from inside of both models.
"""
